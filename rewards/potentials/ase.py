"""Any ASE calculator as a potential, one structure at a time, on several processes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystal_env.arguments import integer
from crystal_env.errors import InputError
from rewards.potentials.batching import library_defaults
from rewards.potentials.interface import Energies, Forces, as_energies, as_forces

if TYPE_CHECKING:
    from ase import Atoms

_PER_JOB = 8  # structures of one job; fewer do not pay for a process


@dataclass(frozen=True)
class ASEPotential:
    """An ASE calculator: MACE, EMT, a DFT code, or any other.

    Every process creates its own calculator, once. Structures are computed one by one; one that raises fails alone.

    Args:
        calculator: a callable that returns a calculator, such as a class, or ``"module:attribute"`` of one, such as
            ``"mace.calculators:mace_mp"``; or a calculator, if it can be pickled.
        kwargs: arguments of the callable.
        label: the name of the model, by default that of the calculator.
        scale: the scale of its energies, such as `PBE` for MACE-MP; the default fits only hulls of its own energies.
        n_jobs: processes, None for one per core. With 1, or for fewer than 8 structures, all run in this process.
        progress: show a bar with the time left.

    Raises:
        ValueError: if ``n_jobs`` is not positive or ``calculator`` is none of these; by the first call if its name
            cannot be imported.

    Example:
        >>> from ase.build import bulk
        >>> emt = ASEPotential("ase.calculators.emt:EMT")
        >>> bool(abs(emt.energies([bulk("Cu")]).total[0]) < 0.1)
        True
    """

    calculator: Any
    kwargs: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    scale: str = ""
    n_jobs: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.n_jobs is not None:
            integer("n_jobs", self.n_jobs, least=1)
        if isinstance(self.calculator, str):
            module, _, attribute = self.calculator.partition(":")
            wrong = not (module and attribute)
        else:
            wrong = not (callable(self.calculator) or hasattr(self.calculator, "get_property"))
        if wrong:
            raise InputError(
                "calculator must be an ASE calculator, a callable that returns one, or 'module:attribute', got "
                f"{self.calculator!r}"
            )

    @property
    def name(self) -> str:
        """The name of the model."""
        if self.label or isinstance(self.calculator, str):
            return self.label or self.calculator.rpartition(":")[2]
        return getattr(self.calculator, "__name__", type(self.calculator).__name__)

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other."""
        return as_energies(*self._run(atoms, ("energy",)))

    def forces(self, atoms: "Sequence[Atoms]") -> Forces:
        """Return energies, forces and stress; a structure that fails gets NaN and a reason and harms no other."""
        return as_forces(atoms, *self._run(atoms, ("energy", "forces", "stress")))

    def _factory(self) -> Callable[[], Any]:
        if hasattr(self.calculator, "get_property") and not isinstance(self.calculator, type):
            return lambda: self.calculator
        target = self.calculator
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            try:
                target = getattr(__import__(module, fromlist=[attribute]), attribute)
            except (ImportError, AttributeError, ValueError) as error:
                raise InputError(f"calculator {self.calculator!r} cannot be imported: {error}") from error
        return lambda: target(**self.kwargs)

    def _own(self) -> Any:
        """Return the calculator of this process, created once."""
        if "_kept" not in self.__dict__:
            object.__setattr__(self, "_kept", self._factory()())
        return self.__dict__["_kept"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def _run(self, atoms: "Sequence[Atoms]", properties: tuple[str, ...]) -> tuple[list[Any], Any]:
        import cloudpickle
        from joblib import Parallel, delayed
        from tqdm import tqdm

        n_jobs = self.n_jobs or os.cpu_count() or 1
        results: list[Any] = []
        with tqdm(total=len(atoms), desc=self.name, unit="crystal", disable=not self.progress) as bar:
            if n_jobs == 1 or len(atoms) < _PER_JOB:
                with library_defaults():
                    calculator = self._own()
                    for one in atoms:
                        results.append(_compute(calculator, one, properties))
                        bar.update()
            else:
                chunks = [list(atoms[start : start + _PER_JOB]) for start in range(0, len(atoms), _PER_JOB)]
                recipe = cloudpickle.dumps(self._factory())
                jobs = (delayed(_compute_all)(recipe, chunk, properties) for chunk in chunks)
                for part in Parallel(n_jobs=n_jobs, return_as="generator", pre_dispatch="2*n_jobs")(jobs):
                    results += part
                    bar.update(len(part))
        failures = np.array([*(r if isinstance(r, str) else None for r in results), None], object)[:-1]
        return [None if isinstance(r, str) else r for r in results], failures


@lru_cache(maxsize=4)
def _made(recipe: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(recipe)()


def _compute_all(recipe: bytes, atoms: "list[Atoms]", properties: tuple[str, ...]) -> list[Any]:
    try:
        calculator = _made(recipe)
    except Exception as error:  # noqa: BLE001  all fail, with the reason
        return [f"{type(error).__name__}: {error}"] * len(atoms)
    return [_compute(calculator, one, properties) for one in atoms]


def _compute(calculator: Any, atoms: "Atoms", properties: tuple[str, ...]) -> Any:
    """Return the energy, or the triple of energy, forces and stress (3, 3), or the reason why there is none."""
    try:
        atoms = atoms.copy()  # type: ignore[no-untyped-call]
        atoms.calc = calculator
        energy = float(atoms.get_potential_energy())  # type: ignore[no-untyped-call]
        if properties == ("energy",):
            return energy if np.isfinite(energy) else f"the calculator gave {energy}"
        forces = np.array(atoms.get_forces(), np.float64)  # type: ignore[no-untyped-call]
        stress = np.array(atoms.get_stress(voigt=False), np.float64)  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001  whatever breaks on one structure must not break the others
        return f"{type(error).__name__}: {error}"
    if not all(np.isfinite(part).all() for part in (energy, forces, stress)):
        return "the calculator gave a number that is not finite"
    return energy, forces, stress

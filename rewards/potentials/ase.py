"""Any ASE calculator as a potential, one structure at a time, on several processes."""

import importlib
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from crystal_env.arguments import integer
from crystal_env.errors import InputError
from rewards.potentials.batching import library_defaults
from rewards.potentials.calculators import Calculators, calculators_of, for_this_thread
from rewards.potentials.interface import Energies, Forces, as_energies, as_forces

if TYPE_CHECKING:
    from ase import Atoms

_PER_JOB = 8  # structures of one job; fewer do not pay for a process


@dataclass(frozen=True)
class ASEPotential:
    """An ASE calculator: MACE, EMT, a DFT code, or any other.

    A calculator keeps the structure it works on, so it belongs to one thread of one process: each creates its
    own, once. Structures are computed one by one; one that raises fails alone. A worker of joblib
    computes all of its structures itself.

    Args:
        calculator: a callable that returns a new calculator, such as a class, or ``"module:attribute"`` of one, such as
            ``"mace.calculators:mace_mp"``; or a calculator. The first thread that computes uses that one, all others
            use copies, for which it must be possible to pickle it.
        kwargs: arguments of the callable.
        label: the name of the model, by default that of the calculator.
        scale: the scale of its energies, such as `PBE` for MACE-MP; the default fits only hulls of its own energies.
        n_jobs: processes, None for one per core. With 1, or for fewer than 8 structures, all run in this process.
        progress: show a bar with the time left.

    Raises:
        ValueError: if ``n_jobs`` is not positive or ``calculator`` is none of these; by the first call if its name
            cannot be imported, or a second thread needs a calculator that cannot be pickled.

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
    n_jobs: int | None = field(default=None, compare=False)
    progress: bool = field(default=False, compare=False)

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

    def made_of(self) -> dict[str, Any]:
        """Return what energies depend on, with the calculator that a name stands for; see `identity`.

        Raises:
            ValueError: if its name cannot be imported.
        """
        return {"calculator": self._imported(), "kwargs": self.kwargs, "scale": self.scale}

    def create(self) -> Any:
        """Return a calculator that no other thread uses.

        Raises:
            ValueError: if its name cannot be imported, or a copy is needed and it cannot be pickled.
        """
        if hasattr(self.calculator, "get_property") and not isinstance(self.calculator, type):
            return for_this_thread(self.calculator)
        return self._imported()(**self.kwargs)

    def _imported(self) -> Any:
        if not isinstance(self.calculator, str):
            return self.calculator
        module, _, attribute = self.calculator.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"calculator {self.calculator!r} cannot be imported: {error}") from error

    def _calculators(self) -> Calculators:
        """Return the calculators of this process; copies that were sent to it share them."""
        if "_own" not in self.__dict__:
            token = self.__dict__.get("_token")
            object.__setattr__(self, "_own", Calculators() if token is None else calculators_of(token))
        own: Calculators = self.__dict__["_own"]
        return own

    def __getstate__(self) -> dict[str, Any]:
        if "_token" not in self.__dict__:
            object.__setattr__(self, "_token", uuid.uuid4().hex)
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def _run(self, atoms: "Sequence[Atoms]", properties: tuple[str, ...]) -> tuple[list[Any], Any]:
        from tqdm import tqdm

        n_jobs = self.n_jobs or os.cpu_count() or 1
        here = n_jobs == 1 or len(atoms) < _PER_JOB or _is_worker()
        results: list[Any] = []
        with tqdm(total=len(atoms), desc=self.name, unit="crystal", disable=not self.progress) as bar:
            for part in self._one_by_one(atoms, properties) if here else self._in_processes(atoms, properties, n_jobs):
                results += part
                bar.update(len(part))
        failures = np.array([*(r if isinstance(r, str) else None for r in results), None], object)[:-1]
        return [None if isinstance(r, str) else r for r in results], failures

    def _one_by_one(self, atoms: "Sequence[Atoms]", properties: tuple[str, ...]) -> Iterator[list[Any]]:
        with library_defaults():
            calculator = self._calculators().mine(self.create)
            for one in atoms:
                yield [_compute(calculator, one, properties)]

    def _in_processes(self, atoms: "Sequence[Atoms]", properties: tuple[str, ...], n_jobs: int) -> Iterator[list[Any]]:
        import cloudpickle
        from joblib import Parallel, delayed

        self._imported()  # a wrong name is an error here, not a failure of every structure
        recipe = cloudpickle.dumps(self)
        chunks = [list(atoms[start : start + _PER_JOB]) for start in range(0, len(atoms), _PER_JOB)]
        jobs = (delayed(_compute_all)(self.__dict__["_token"], recipe, chunk, properties) for chunk in chunks)
        yield from Parallel(n_jobs=n_jobs, backend="loky", return_as="generator", pre_dispatch="2*n_jobs")(jobs)


def _is_worker() -> bool:
    """Return whether a worker of joblib runs this, where further ones would be threads, or too many."""
    from joblib.parallel import get_active_backend

    return bool(get_active_backend()[0].nesting_level)


def _compute_all(token: str, recipe: bytes, atoms: "list[Atoms]", properties: tuple[str, ...]) -> list[Any]:
    import cloudpickle

    try:
        calculator = calculators_of(token).mine(lambda: cloudpickle.loads(recipe).create())
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

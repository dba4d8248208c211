"""Relaxation: crystals brought to a nearby minimum of a potential's energy, their symmetry kept."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from crystal_env.crystal import Crystal, CrystalBatch
from rewards.screen import Screen

if TYPE_CHECKING:
    from ase import Atoms


class Relaxed(NamedTuple):
    """B crystals after relaxation, in their order.

    Attributes:
        crystals: the relaxed ones; one that failed is as it was.
        failures (B,): object array of None or the reason why a crystal could not be relaxed.
    """

    crystals: CrystalBatch
    failures: NDArray[np.object_]


@dataclass(frozen=True)
class Relaxation:
    """Relaxes cell and atoms of crystals one by one, with FIRE and the space group's operations imposed on each step.

    What comes out is written down anew, with `Crystal.from_structure`: another origin may be chosen, and the space
    group is a higher one where atoms or cell have moved to where it is. A crystal that is not converged after ``steps``
    is what it has become by then. Identical crystals are relaxed once.

    Args:
        potential: ``"chgnet"``, or an ASE calculator with forces and stress.
        fmax: convergence in eV/Å: of the forces on atoms, and of those on the cell, the stress times the volume per
            atom, in eV.
        steps: most steps of a crystal.
        seconds: most time of a crystal; beyond, it counts as failed.
        screen: limits a crystal must keep before the potential is asked.
        device: a torch device for the potential, such as ``"cpu"`` or ``"cuda"``.
        progress: show a bar with the time left.

    Raises:
        ValueError: if the potential is unknown, or ``fmax``, ``steps`` or ``seconds`` is not positive.

    Example:
        >>> relax = Relaxation()
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-6-6-6-90-90-90")
        >>> relaxed, failures = relax(rock_salt.to_batch())
        >>> bool(5.6 < relaxed[0].L[0] < 5.8)
        True
    """

    potential: Any = "chgnet"
    fmax: float = 0.1
    steps: int = 100
    seconds: float = 120.0
    screen: Screen = field(default_factory=Screen)
    device: str = "cpu"
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("fmax", "steps", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.potential != "chgnet" and not hasattr(self.potential, "get_property"):
            raise ValueError(f"potential must be 'chgnet' or an ASE calculator, got {self.potential!r}")

    def __call__(self, crystals: CrystalBatch) -> Relaxed:
        """Relax B crystals; one that breaks is as it was, with a reason, and harms no other."""
        first, place = crystals.distinct()
        relaxed, failures = list(crystals[first]), self.screen(crystals[first])
        with _calculator(self.potential, self.device) as calculator:
            for row in tqdm(range(len(relaxed)), unit="crystal", desc="relax", disable=not self.progress):
                if failures[row] is None:
                    try:
                        relaxed[row] = self._relax(relaxed[row].to_atoms(), calculator)
                    except Exception as error:  # noqa: BLE001  whatever breaks on one crystal must not break the others
                        failures[row] = f"{type(error).__name__}: {error}"
        return Relaxed(CrystalBatch.from_crystals(relaxed)[place], failures[place])

    def _relax(self, atoms: "Atoms", calculator: Any) -> Crystal:
        from ase.constraints import FixSymmetry
        from ase.filters import FrechetCellFilter
        from ase.optimize import FIRE

        deadline = time.monotonic() + self.seconds
        atoms.set_constraint(FixSymmetry(atoms))  # type: ignore[no-untyped-call]
        atoms.calc = calculator
        cell_and_atoms = FrechetCellFilter(atoms)  # type: ignore[no-untyped-call]
        for _ in FIRE(cell_and_atoms, logfile=None).irun(fmax=self.fmax, steps=self.steps):
            if time.monotonic() > deadline:
                raise TimeoutError(f"it takes more than {self.seconds:g} s")
        return Crystal.from_structure(atoms)


@contextmanager
def _calculator(potential: Any, device: str) -> Iterator[Any]:
    """Give an ASE calculator, and leave torch's settings as found; what libraries remark on the way is dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if potential != "chgnet":
            yield potential
            return
        import torch

        from rewards.chgnet import _library_defaults

        with _library_defaults(), torch.inference_mode(False), torch.enable_grad():
            yield _chgnet(device)


def _chgnet(device: str) -> Any:
    """Return a calculator of `rewards.chgnet`'s model and graphs, whose size is bounded, unlike CHGNet's own."""
    from ase.calculators.calculator import Calculator
    from ase.units import GPa

    from rewards.chgnet import _graph, _load_model

    model = _load_model(device)
    base: Any = Calculator

    class CHGNet(base):
        implemented_properties = ("energy", "forces", "stress")

        def calculate(self, *arguments: Any) -> None:
            super().calculate(*arguments)
            graph, _ = _graph(self.atoms)
            graph.atom_frac_coord.requires_grad_()
            result = model([graph.to(device)], task="efs")
            energy, forces, stress = (result[name][0].detach().cpu().double().numpy() for name in "efs")
            stress = GPa * stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            self.results = {"energy": float(energy) * len(forces), "forces": forces, "stress": stress}

    return CHGNet()

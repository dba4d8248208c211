"""What a potential is, and how to get one by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms


class Energies(NamedTuple):
    """Total energies of B structures, in their order.

    Attributes:
        total (B,): energies of the given cells in eV, NaN where there is none.
        failures (B,): object array of None or the reason why there is none.
    """

    total: NDArray[np.float64]
    failures: NDArray[np.object_]


@runtime_checkable
class Potential(Protocol):
    """An energy model.

    Attributes:
        name: names the model and with it the scale of its energies, such as ``"chgnet-0.3.0"``. A hull can be used
            with a potential only if both have the same name.
    """

    @property
    def name(self) -> str:
        """The name of the energy scale."""
        ...

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other."""
        ...


def load_potential(potential: str | Potential) -> Potential:
    """Return a potential from its name, or the given object.

    Args:
        potential: ``"chgnet"``, or an object with ``name`` and ``energies``.

    Raises:
        ValueError: if there is no potential of that name, or the object is none.
    """
    if potential == "chgnet":
        from rewards.chgnet import CHGNetPotential

        return CHGNetPotential()
    if isinstance(potential, str) or not isinstance(potential, Potential):
        raise ValueError(f"potential must be 'chgnet' or an object with name and energies, got {potential!r}")
    return potential

"""What a finished crystal is worth: potentials, the convex hull, validity, and Gymnasium reward wrappers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.density import Density
    from rewards.ehull import EnergyAboveHull
    from rewards.hull import ConvexHull
    from rewards.potentials import load_potential
    from rewards.screen import Screen
    from rewards.validity import Validity
    from rewards.wrappers import CrystalReward, VectorCrystalReward

__all__ = [
    "ConvexHull",
    "CrystalReward",
    "Density",
    "EnergyAboveHull",
    "Screen",
    "Validity",
    "VectorCrystalReward",
    "load_potential",
]

_MODULES = {
    "ConvexHull": "hull",
    "CrystalReward": "wrappers",
    "Density": "density",
    "EnergyAboveHull": "ehull",
    "Screen": "screen",
    "Validity": "validity",
    "VectorCrystalReward": "wrappers",
    "load_potential": "potentials",
}


def __getattr__(name: str) -> Any:
    """Import a public name with its first use, so that ``import rewards`` stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

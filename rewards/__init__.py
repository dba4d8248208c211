"""What a finished crystal is worth: potentials, the convex hull, properties, combinators, and Gymnasium wrappers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.density import Density
    from rewards.dielectric import DielectricFoM
    from rewards.ehull import EnergyAboveHull
    from rewards.hull import ConvexHull
    from rewards.potentials import load_potential
    from rewards.property import BandGap, Property
    from rewards.relax import Relaxation
    from rewards.screen import Screen
    from rewards.validity import Validity
    from rewards.wrappers import CrystalReward, VectorCrystalReward

__all__ = [
    "BandGap",
    "ConvexHull",
    "CrystalReward",
    "Density",
    "DielectricFoM",
    "EnergyAboveHull",
    "Property",
    "Relaxation",
    "Screen",
    "Validity",
    "VectorCrystalReward",
    "load_potential",
]

_MODULES = {
    "BandGap": "property",
    "ConvexHull": "hull",
    "CrystalReward": "wrappers",
    "Density": "density",
    "DielectricFoM": "dielectric",
    "EnergyAboveHull": "ehull",
    "Property": "property",
    "Relaxation": "relax",
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

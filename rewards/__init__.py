"""What a finished crystal is worth: potentials, the convex hull, properties, combinators, and Gymnasium wrappers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.bulk_modulus import BulkModulus
    from rewards.cached import Cached
    from rewards.combine import Gate, Minimum, WeightedProduct, WeightedSum
    from rewards.composition_match import CompositionMatch
    from rewards.density import Density
    from rewards.dielectric import DielectricFoM
    from rewards.diversity import Diversity
    from rewards.ehull import EnergyAboveHull
    from rewards.force_stress import ForceStress
    from rewards.hull import ConvexHull
    from rewards.meter import Metered
    from rewards.novelty import Novelty
    from rewards.potentials import load_potential
    from rewards.process import ProcessReward
    from rewards.property import BandGap, Property
    from rewards.ray_pool import RayPool
    from rewards.relax import Relaxation
    from rewards.screen import Screen
    from rewards.transforms import Affine, Clip, DoubleSigmoid, Sigmoid, Target
    from rewards.uniqueness import Uniqueness
    from rewards.validity import Validity
    from rewards.wrappers import CrystalReward, VectorCrystalReward

__all__ = [
    "Affine",
    "BandGap",
    "BulkModulus",
    "Cached",
    "Clip",
    "CompositionMatch",
    "ConvexHull",
    "CrystalReward",
    "Density",
    "DielectricFoM",
    "Diversity",
    "DoubleSigmoid",
    "EnergyAboveHull",
    "ForceStress",
    "Gate",
    "Metered",
    "Minimum",
    "Novelty",
    "ProcessReward",
    "Property",
    "RayPool",
    "Relaxation",
    "Screen",
    "Sigmoid",
    "Target",
    "Uniqueness",
    "Validity",
    "VectorCrystalReward",
    "WeightedProduct",
    "WeightedSum",
    "load_potential",
]

_MODULES = {
    "Affine": "transforms",
    "BandGap": "property",
    "BulkModulus": "bulk_modulus",
    "Cached": "cached",
    "Clip": "transforms",
    "CompositionMatch": "composition_match",
    "ConvexHull": "hull",
    "CrystalReward": "wrappers",
    "Density": "density",
    "DielectricFoM": "dielectric",
    "Diversity": "diversity",
    "DoubleSigmoid": "transforms",
    "EnergyAboveHull": "ehull",
    "ForceStress": "force_stress",
    "Gate": "combine",
    "Metered": "meter",
    "Minimum": "combine",
    "Novelty": "novelty",
    "ProcessReward": "process",
    "Property": "property",
    "RayPool": "ray_pool",
    "Relaxation": "relax",
    "Screen": "screen",
    "Sigmoid": "transforms",
    "Target": "transforms",
    "Uniqueness": "uniqueness",
    "Validity": "validity",
    "VectorCrystalReward": "wrappers",
    "WeightedProduct": "combine",
    "WeightedSum": "combine",
    "load_potential": "potentials",
}


def __getattr__(name: str) -> Any:
    """Import a public name with its first use, so that ``import rewards`` stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

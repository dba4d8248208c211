"""Rewards of finished crystals.

One file a reward: `ehull`, `validity`, `density`, `property`, `dielectric`, `force_stress`, `bulk_modulus`, `novelty`,
`uniqueness`, `composition_match`. `screen`, `matching`, `distinct`, `goal` and `predict` serve several of them,
`wrappers` put a reward on an environment. The folders hold potentials, the convex hull, relaxation, combinators of
rewards, rewards that run elsewhere, training of property models, and contract tests.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.bulk_modulus import BulkModulus
    from rewards.combinators.aggregate import Gate, Minimum, WeightedProduct, WeightedSum
    from rewards.combinators.cache import Cached
    from rewards.combinators.diversity import Diversity
    from rewards.combinators.metered import Metered
    from rewards.combinators.transforms import Affine, Clip, DoubleSigmoid, Sigmoid, Target
    from rewards.composition_match import CompositionMatch
    from rewards.density import Density
    from rewards.dielectric import DielectricFoM
    from rewards.ehull import EnergyAboveHull
    from rewards.force_stress import ForceStress
    from rewards.hull.convex_hull import ConvexHull
    from rewards.novelty import Novelty
    from rewards.potentials import load_potential
    from rewards.property import BandGap, Property
    from rewards.relaxation.relax import Relaxation
    from rewards.remote.process import ProcessReward
    from rewards.remote.ray_pool import RayPool
    from rewards.screen import Screen
    from rewards.sun import SUN
    from rewards.uniqueness import Uniqueness
    from rewards.validity import Validity
    from rewards.wrappers import CrystalReward, VectorCrystalReward

__all__ = [
    "SUN",
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
    "SUN": "sun",
    "Affine": "combinators.transforms",
    "BandGap": "property",
    "BulkModulus": "bulk_modulus",
    "Cached": "combinators.cache",
    "Clip": "combinators.transforms",
    "CompositionMatch": "composition_match",
    "ConvexHull": "hull.convex_hull",
    "CrystalReward": "wrappers",
    "Density": "density",
    "DielectricFoM": "dielectric",
    "Diversity": "combinators.diversity",
    "DoubleSigmoid": "combinators.transforms",
    "EnergyAboveHull": "ehull",
    "ForceStress": "force_stress",
    "Gate": "combinators.aggregate",
    "Metered": "combinators.metered",
    "Minimum": "combinators.aggregate",
    "Novelty": "novelty",
    "ProcessReward": "remote.process",
    "Property": "property",
    "RayPool": "remote.ray_pool",
    "Relaxation": "relaxation.relax",
    "Screen": "screen",
    "Sigmoid": "combinators.transforms",
    "Target": "combinators.transforms",
    "Uniqueness": "uniqueness",
    "Validity": "validity",
    "VectorCrystalReward": "wrappers",
    "WeightedProduct": "combinators.aggregate",
    "WeightedSum": "combinators.aggregate",
    "load_potential": "potentials",
}


def __getattr__(name: str) -> Any:
    """Import a public name with its first use, so that ``import rewards`` stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

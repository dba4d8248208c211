"""The baselines of the benchmark: frozen dataclasses whose fields are their settings, one file a method.

Any of them is an agent: ``crystalgen benchmark run stability --agent benchmarks.baselines:BestOfN``. `search`,
`training_set` and `masked_ppo` are what several of them share.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.baselines.base_model import BaseModel
    from benchmarks.baselines.base_model_relaxed import BaseModelRelaxed
    from benchmarks.baselines.best_of_n import BestOfN
    from benchmarks.baselines.element_substitution import ElementSubstitution
    from benchmarks.baselines.genetic_algorithm import GeneticAlgorithm
    from benchmarks.baselines.klppo import (
        ExpertIteration,
        KLPPOBalance,
        KLPPOBest,
        KLPPOOnPolicy,
        KLPPOPaper,
        KLPPOPositives,
        KLPPOSeeded,
        LeaveOneOutREINFORCE,
        TokenPPO,
    )
    from benchmarks.baselines.marginal_sampler import MarginalSampler
    from benchmarks.baselines.maskable_ppo_crystalformer import MaskablePPOCrystalFormer
    from benchmarks.baselines.maskable_ppo_mlp import MaskablePPOMLP
    from benchmarks.baselines.mcmc import MCMC
    from benchmarks.baselines.random_policy import RandomPolicy
    from benchmarks.baselines.supervised_fine_tuning import SupervisedFineTuning

__all__ = [
    "MCMC",
    "BaseModel",
    "BaseModelRelaxed",
    "BestOfN",
    "ElementSubstitution",
    "ExpertIteration",
    "GeneticAlgorithm",
    "KLPPOBalance",
    "KLPPOBest",
    "KLPPOOnPolicy",
    "KLPPOPaper",
    "KLPPOPositives",
    "KLPPOSeeded",
    "LeaveOneOutREINFORCE",
    "MarginalSampler",
    "MaskablePPOCrystalFormer",
    "MaskablePPOMLP",
    "RandomPolicy",
    "SupervisedFineTuning",
    "TokenPPO",
]

_MODULES = {
    "MCMC": "mcmc",
    "BaseModel": "base_model",
    "BaseModelRelaxed": "base_model_relaxed",
    "BestOfN": "best_of_n",
    "ElementSubstitution": "element_substitution",
    "GeneticAlgorithm": "genetic_algorithm",
    "ExpertIteration": "klppo",
    "KLPPOBalance": "klppo",
    "KLPPOBest": "klppo",
    "KLPPOOnPolicy": "klppo",
    "KLPPOPaper": "klppo",
    "KLPPOPositives": "klppo",
    "KLPPOSeeded": "klppo",
    "LeaveOneOutREINFORCE": "klppo",
    "MarginalSampler": "marginal_sampler",
    "MaskablePPOCrystalFormer": "maskable_ppo_crystalformer",
    "MaskablePPOMLP": "maskable_ppo_mlp",
    "RandomPolicy": "random_policy",
    "SupervisedFineTuning": "supervised_fine_tuning",
    "TokenPPO": "klppo",
}


def __getattr__(name: str) -> Any:
    """Import a baseline with its first use: the random policy needs no network."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

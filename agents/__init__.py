"""Agents: CrystalFormer, its training, and search with it.

`crystalformer` is the network with its densities and sampler, `training` what all training shares, `sb3` environment
and network as stable-baselines3 expects them. On these stand siblings that never import each other: `klppo`
(reinforcement), `supervised` (pre-training, fine-tuning, DPO) and `search` (Markov chains, best-of-n). `cli` has the
commands, `sample` the one that samples crystals into a folder.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agents.crystalformer.config import CrystalFormerConfig
from agents.crystalformer.likelihood import LogProb
from agents.crystalformer.model import CrystalFormer
from agents.klppo.config import KLPPOConfig, TrainConfig
from agents.sample import SampleConfig, sample
from agents.search.best_of_n import best_of_n
from agents.search.mcmc import MCMCResult
from agents.search.mcmc_config import MCMCConfig
from agents.supervised.dpo import DPOConfig, dpo
from agents.supervised.finetune import FinetuneConfig, finetune
from agents.supervised.pretrain import pretrain
from agents.supervised.pretrain_config import PretrainConfig

if TYPE_CHECKING:
    from agents.klppo.klppo import KLPPO
    from agents.klppo.run import train
    from agents.sb3.discrete_policy import CrystalFormerPolicy
    from agents.sb3.features import TokenFeatures
    from agents.sb3.vec_env import CrystalVecEnv

__all__ = [
    "KLPPO",
    "CrystalFormer",
    "CrystalFormerConfig",
    "CrystalFormerPolicy",
    "CrystalVecEnv",
    "DPOConfig",
    "FinetuneConfig",
    "KLPPOConfig",
    "LogProb",
    "MCMCConfig",
    "MCMCResult",
    "PretrainConfig",
    "SampleConfig",
    "TokenFeatures",
    "TrainConfig",
    "best_of_n",
    "dpo",
    "finetune",
    "pretrain",
    "sample",
    "train",
]

_MODULES = {
    "KLPPO": "klppo.klppo",
    "CrystalFormerPolicy": "sb3.discrete_policy",
    "CrystalVecEnv": "sb3.vec_env",
    "TokenFeatures": "sb3.features",
    "train": "klppo.run",
}


def __getattr__(name: str) -> Any:
    """Import the modules that need stable-baselines3 when they are first used: the network and its training do not."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Agents: CrystalFormer, stable-baselines3's view of the environment, and what learns in it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agents.best_of_n import best_of_n
from agents.config import CrystalFormerConfig
from agents.crystalformer import CrystalFormer
from agents.dpo import DPOConfig, dpo
from agents.finetune import FinetuneConfig, finetune
from agents.likelihood import LogProb
from agents.mcmc import MCMCConfig, MCMCResult
from agents.pretrain import pretrain
from agents.pretrain_config import PretrainConfig
from agents.sample import SampleConfig, sample
from agents.train_config import TrainConfig

if TYPE_CHECKING:
    from agents.features import TokenFeatures
    from agents.klppo import KLPPO
    from agents.policy import CrystalFormerPolicy
    from agents.train_run import train
    from agents.vec_env import CrystalVecEnv

__all__ = [
    "KLPPO",
    "CrystalFormer",
    "CrystalFormerConfig",
    "CrystalFormerPolicy",
    "CrystalVecEnv",
    "DPOConfig",
    "FinetuneConfig",
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
    "KLPPO": "klppo",
    "CrystalFormerPolicy": "policy",
    "CrystalVecEnv": "vec_env",
    "TokenFeatures": "features",
    "train": "train_run",
}


def __getattr__(name: str) -> Any:
    """Import what needs stable-baselines3 with its first use: the network and its training do without."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

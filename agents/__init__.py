"""Agents: CrystalFormer, stable-baselines3's view of the environment, and what learns in it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agents.config import CrystalFormerConfig
from agents.crystalformer import CrystalFormer
from agents.likelihood import LogProb
from agents.pretrain import pretrain
from agents.pretrain_config import PretrainConfig

if TYPE_CHECKING:
    from agents.features import TokenFeatures
    from agents.policy import CrystalFormerPolicy
    from agents.vec_env import CrystalVecEnv

__all__ = [
    "CrystalFormer",
    "CrystalFormerConfig",
    "CrystalFormerPolicy",
    "CrystalVecEnv",
    "LogProb",
    "PretrainConfig",
    "TokenFeatures",
    "pretrain",
]

_MODULES = {"CrystalFormerPolicy": "policy", "CrystalVecEnv": "vec_env", "TokenFeatures": "features"}


def __getattr__(name: str) -> Any:
    """Import what needs stable-baselines3 with its first use: the network and its training do without."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

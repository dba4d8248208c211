"""Agents: CrystalFormer, stable-baselines3's view of the environment, and what learns in it."""

from agents.config import CrystalFormerConfig
from agents.crystalformer import CrystalFormer
from agents.features import TokenFeatures
from agents.likelihood import LogProb
from agents.policy import CrystalFormerPolicy
from agents.pretrain import pretrain
from agents.pretrain_config import PretrainConfig
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

"""Agents: stable-baselines3's view of the environment, and what learns in it."""

from agents.features import TokenFeatures
from agents.vec_env import CrystalVecEnv

__all__ = ["CrystalVecEnv", "TokenFeatures"]

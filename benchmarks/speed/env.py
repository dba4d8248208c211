"""Random masked play in steps per second: the native vector environment against Gymnasium's and stable-baselines3's.

Run ``python -m benchmarks.speed.env``. All play with masks in info and the same reward, which counts sites, on one
thread; actions are drawn from the masks by `crystal_env.sample_masked`, whose share of the time is shown. Numbers are
medians of several rounds, the contestants taking turns.
"""

import cProfile
import pstats
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv

import crystal_env
from crystal_env import CrystalBatch

_Play = Callable[[], tuple[int, float, float]]


def count_sites(crystals: CrystalBatch) -> NDArray[np.float64]:
    """Return the number of sites of every crystal: the cheapest of rewards."""
    return crystals.n_sites().astype(np.float64)


def native(num_envs: int, duration: float) -> _Play:
    """Return a round of play in the native vector environment."""
    return _vector(gym.make_vec("CrystalGen-v0", num_envs=num_envs, reward=count_sites), duration)


def sync(num_envs: int, duration: float) -> _Play:
    """Return a round of play in Gymnasium's SyncVectorEnv over single environments."""
    env = gym.make_vec("CrystalGen-v0", num_envs=num_envs, vectorization_mode="sync", reward=count_sites)
    return _vector(env, duration)


def dummy(num_envs: int, duration: float) -> _Play:
    """Return a round of play in stable-baselines3's DummyVecEnv over single environments."""
    env = DummyVecEnv([lambda: gym.make("CrystalGen-v0", reward=count_sites)] * num_envs)
    env.reset()

    def step(actions: NDArray[np.int64]) -> NDArray[np.int8]:
        _, _, done, infos = env.step(actions)
        for row in np.flatnonzero(done):
            infos[row] = env.reset_infos[row]
        return np.stack([info["action_mask"] for info in infos])

    return _round(step, np.stack([info["action_mask"] for info in env.reset_infos]), duration)


def _vector(env: gym.vector.VectorEnv, duration: float) -> _Play:
    _, info = env.reset(seed=0)
    return _round(lambda actions: env.step(actions)[4]["action_mask"], info["action_mask"], duration)


def _round(step: Callable[[NDArray[np.int64]], Any], masks: Any, duration: float) -> _Play:
    rng = np.random.default_rng(0)

    def play() -> tuple[int, float, float]:
        nonlocal masks
        steps, drawing, start = 0, 0.0, time.perf_counter()
        while time.perf_counter() - start < duration:
            before = time.perf_counter()
            actions = crystal_env.sample_masked(masks, rng)
            drawing += time.perf_counter() - before
            masks = step(actions)
            steps += len(actions)
        return steps, drawing, time.perf_counter() - start

    return play


def main(duration: float = 1.0, rounds: int = 5, profile: bool = False) -> None:
    """Play all contestants in turns and print a table.

    Args:
        duration: seconds of a round.
        rounds: rounds of every contestant, whose median counts.
        profile: instead, show where 256 native copies spend their time.
    """
    if profile:
        profiler = cProfile.Profile()
        steps, _, _ = profiler.runcall(native(256, 10 * duration))
        print(f"{steps // 256} steps of 256 copies under cProfile, which itself slows them down")
        pstats.Stats(profiler).sort_stats("cumulative").print_stats("crystal_env|method", 32)
        return
    contestants = {("native", n): native(n, duration) for n in (1, 64, 256, 1024)}
    contestants |= {("SyncVectorEnv", n): sync(n, duration) for n in (64, 256)}
    contestants |= {("DummyVecEnv", n): dummy(n, duration) for n in (64, 256)}
    rates: dict[tuple[str, int], list[float]] = {name: [] for name in contestants}
    shares: dict[tuple[str, int], list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, play in contestants.items():
            steps, drawing, total = play()
            rates[name].append(steps / total)
            shares[name].append(drawing / total)
    reference = median(rates["DummyVecEnv", 256])
    print(f"{'environment':<16}{'copies':>8}{'steps/s':>12}{'x Dummy 256':>13}{'drawing actions':>17}")
    for name, values in rates.items():
        rate, share = median(values), median(shares[name])
        print(f"{name[0]:<16}{name[1]:>8}{rate:>12,.0f}{rate / reference:>13.1f}{share:>17.0%}")


if __name__ == "__main__":
    tyro.cli(main)

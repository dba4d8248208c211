"""Steps per second of a random policy: the native vector environment against Gymnasium's and stable-baselines3's.

Run ``python -m benchmarks.speed.env``. All have masks in info and the same reward, which counts sites, on one thread;
actions are sampled from the masks by `crystal_env.sample_masked`, whose fraction of the time is shown. Numbers are
medians of several rounds, in which the environments take turns.
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

_Round = Callable[[], tuple[int, float, float]]


def count_sites(crystals: CrystalBatch) -> NDArray[np.float64]:
    """Return the number of sites of every crystal: the cheapest reward."""
    return crystals.n_sites().astype(np.float64)


def native(num_envs: int, duration: float) -> _Round:
    """Return a round in the native vector environment."""
    return _vector(gym.make_vec("CrystalGen-v0", num_envs=num_envs, reward=count_sites), duration)


def sync(num_envs: int, duration: float) -> _Round:
    """Return a round in Gymnasium's SyncVectorEnv over single environments."""
    env = gym.make_vec("CrystalGen-v0", num_envs=num_envs, vectorization_mode="sync", reward=count_sites)
    return _vector(env, duration)


def dummy(num_envs: int, duration: float) -> _Round:
    """Return a round in stable-baselines3's DummyVecEnv over single environments."""
    env = DummyVecEnv([lambda: gym.make("CrystalGen-v0", reward=count_sites)] * num_envs)
    env.reset()

    def step(actions: NDArray[np.int64]) -> NDArray[np.int8]:
        _, _, done, infos = env.step(actions)
        for row in np.flatnonzero(done):
            infos[row] = env.reset_infos[row]
        return np.stack([info["action_mask"] for info in infos])

    return _round(step, np.stack([info["action_mask"] for info in env.reset_infos]), duration)


def _vector(env: gym.vector.VectorEnv, duration: float) -> _Round:
    _, info = env.reset(seed=0)
    return _round(lambda actions: env.step(actions)[4]["action_mask"], info["action_mask"], duration)


def _round(step: Callable[[NDArray[np.int64]], Any], masks: Any, duration: float) -> _Round:
    rng = np.random.default_rng(0)

    def run() -> tuple[int, float, float]:
        nonlocal masks
        steps, sampling, start = 0, 0.0, time.perf_counter()
        while time.perf_counter() - start < duration:
            before = time.perf_counter()
            actions = crystal_env.sample_masked(masks, rng)
            sampling += time.perf_counter() - before
            masks = step(actions)
            steps += len(actions)
        return steps, sampling, time.perf_counter() - start

    return run


def main(duration: float = 1.0, rounds: int = 5, profile: bool = False) -> None:
    """Time all environments in turns and print a table.

    Args:
        duration: Seconds of a round.
        rounds: Rounds of every environment; the median is printed.
        profile: Show instead where 256 native copies spend their time.
    """
    if profile:
        profiler = cProfile.Profile()
        steps, _, _ = profiler.runcall(native(256, 10 * duration))
        print(f"{steps // 256} steps of 256 copies under cProfile, which itself slows them down")
        pstats.Stats(profiler).sort_stats("cumulative").print_stats("crystal_env|method", 32)
        return
    candidates = {("native", n): native(n, duration) for n in (1, 64, 256, 1024)}
    candidates |= {("SyncVectorEnv", n): sync(n, duration) for n in (64, 256)}
    candidates |= {("DummyVecEnv", n): dummy(n, duration) for n in (64, 256)}
    rates: dict[tuple[str, int], list[float]] = {name: [] for name in candidates}
    fractions: dict[tuple[str, int], list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            steps, sampling, total = run()
            rates[name].append(steps / total)
            fractions[name].append(sampling / total)
    reference = median(rates["DummyVecEnv", 256])
    print(f"{'environment':<16}{'copies':>8}{'steps/s':>12}{'x Dummy 256':>13}{'sampling actions':>17}")
    for name, values in rates.items():
        rate, fraction = median(values), median(fractions[name])
        print(f"{name[0]:<16}{name[1]:>8}{rate:>12,.0f}{rate / reference:>13.1f}{fraction:>17.0%}")


if __name__ == "__main__":
    tyro.cli(main)

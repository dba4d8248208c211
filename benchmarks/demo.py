"""The demonstration: an agent that has never seen a crystal learns to make stable ones.

`MaskablePPO` with a small network plays ``CrystalGen-Coarse-v0`` in a few space groups of high symmetry. Its reward is
minus the energy above the convex hull, by the CHGNet potential. Random masked play is the yardstick.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor
from tqdm import tqdm

from agents import CrystalVecEnv, TokenFeatures
from benchmarks import demo_report
from benchmarks.demo_report import Sample
from crystal_env import Crystal, CrystalBatch, sample_masked
from crystal_env.elements import SYMBOLS
from rewards import EnergyAboveHull, Screen, Validity

_Policy = Callable[[Any, NDArray[np.bool_]], NDArray[np.int64]]

SPACE_GROUPS = (139, 194, 216, 221, 225)
"""I4/mmm, P6_3/mmc, F-43m, Pm-3m and Fm-3m: home of many simple prototypes."""


UNWANTED = ("He", "Ne", "Ar", "Kr", "Xe", "Tc", "Pm")
"""Noble gases, whose bonds CHGNet has hardly seen and flatters, and radioactive elements."""
CLIP = 5.0
"""Bound of the reward in eV/atom, which is also what a crystal loses that cannot be scored."""


@dataclass
class Args:
    """What the demonstration does.

    Attributes:
        out: folder of the results.
        steps: decisions the agent trains on.
        crystals: crystals that random play and the trained agent are judged by.
        num_envs: environments played side by side.
        max_sites: most inequivalent sites of a crystal.
        max_atoms: most atoms in its primitive cell.
        entropy: weight of the policy's entropy: more of it finds more kinds of crystals, less of it more stable ones.
        seed: of everything random.
    """

    out: Path = Path("runs/demo")
    steps: int = 200_000
    crystals: int = 1000
    num_envs: int = 64
    max_sites: int = 3
    max_atoms: int = 6
    entropy: float = 0.1
    seed: int = 0


class Record(BaseCallback):
    """Keeps every crystal that ends, with its energy, and the mean of every rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.crystals: list[Crystal] = []
        self.e_above_hull: list[float] = []
        self.curve: list[tuple[int, float, float]] = []
        self._rollout: list[tuple[float, bool]] = []

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals["dones"]):
            info = self.locals["infos"][row]
            energy = min(info["reward_terms"]["e_above_hull"], CLIP)
            self._rollout.append((energy, info["is_success"]))
            if info["is_success"]:
                self.crystals.append(info["crystal"])
                self.e_above_hull.append(energy)
        return True

    def _on_rollout_end(self) -> None:
        if not self._rollout:  # no crystal was finished
            return
        energy, stable = np.mean(self._rollout, axis=0)
        self.curve.append((self.num_timesteps, float(energy), float(stable)))
        self.logger.record("rollout/e_above_hull", energy)
        self.logger.record("rollout/stable_share", stable)
        self._rollout.clear()


def main(args: Args) -> None:
    """Train an agent on the energy above the hull and compare it with random play."""
    start = time.time()
    torch.set_num_threads(1)  # faster for small networks; CHGNet has its own worker threads
    args.out.mkdir(parents=True, exist_ok=True)
    reward = EnergyAboveHull(clip=CLIP, max_depth=0.2, screen=Screen(min_distance=1.0, max_volume=100.0))
    print(f"space groups {SPACE_GROUPS}, up to {args.max_sites} sites and {args.max_atoms} atoms, seed {args.seed}")
    venv = gym.make_vec(
        "CrystalGen-Coarse-v0",
        num_envs=args.num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward=reward,
        invalid_reward=-CLIP,
        mask_in_info=False,
        space_group=list(SPACE_GROUPS),
        elements=[symbol for symbol in SYMBOLS[1:84] if symbol not in UNWANTED],
        max_sites=args.max_sites,
        max_atoms=args.max_atoms,
    )
    env = CrystalVecEnv(venv)
    env.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    random = _play(env, args.crystals, "random play", lambda _, masks: sample_masked(masks, rng))
    model = _model(env, args)
    record = Record()
    try:
        model.learn(args.steps, callback=record, progress_bar=True)
    except KeyboardInterrupt:
        print("interrupted: judging what has been learned so far")
    model.save(args.out / "agent.zip")
    trained = _play(env, args.crystals, "trained agent", lambda seen, masks: model.predict(seen, action_masks=masks)[0])
    demo_report.write(
        args.out,
        random,
        trained,
        record.curve,
        CrystalBatch.from_crystals(record.crystals),
        np.array(record.e_above_hull),
    )
    print(f"done in {(time.time() - start) / 60:.1f} minutes; training curves: tensorboard --logdir {args.out}")


def _model(env: CrystalVecEnv, args: Args) -> MaskablePPO:
    return MaskablePPO(
        "MlpPolicy",
        VecMonitor(env),
        n_steps=64,
        batch_size=512,
        n_epochs=4,
        gamma=1.0,  # the reward comes at the end, and an early decision matters as much as a late one
        learning_rate=1e-3,
        ent_coef=args.entropy,
        seed=args.seed,
        tensorboard_log=str(args.out),
        policy_kwargs={
            "features_extractor_class": TokenFeatures,
            "features_extractor_kwargs": {"max_tokens": 5 * args.max_sites + 7},
            "net_arch": [256, 256],
        },
    )


def _play(env: CrystalVecEnv, count: int, name: str, act: _Policy) -> Sample:
    """Play until the first ``count`` crystals to be begun are finished, so that long ones count like short ones."""
    ended: list[tuple[int, dict[str, Any]]] = []
    observations = env.reset()
    begun = np.arange(env.num_envs)
    with tqdm(total=count, desc=name, unit="crystal") as bar:
        while bar.n < count:
            observations, _, done, infos = env.step(act(observations, np.stack(env.env_method("action_masks"))))
            for row in np.flatnonzero(done):
                if begun[row] < count:
                    ended.append((int(begun[row]), infos[row]))
                    bar.update()
                begun[row] = begun.max() + 1
    infos = [info for _, info in sorted(ended, key=lambda pair: pair[0])]
    crystals = CrystalBatch.from_crystals(info["crystal"] for info in infos)
    return Sample(
        crystals,
        np.array([min(info["reward_terms"]["e_above_hull"], CLIP) for info in infos]),
        np.array([info["reward_failure"] is None for info in infos]),
        np.array([info["is_success"] for info in infos]),
        Validity()(crystals).success(),
    )

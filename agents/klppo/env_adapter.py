"""What an environment asks for: whole crystals are sampled and scored without stepping it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.crystalformer.decoder import walk
from agents.crystalformer.distribution import Distribution
from agents.crystalformer.temperature import Temperature
from agents.klppo.env_layers import read_layers
from agents.training.transitions import REJECTED
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.state import CrystalStates
from crystal_env.reward import RewardResult, stateful_parts
from crystal_env.vocabulary import Vocabulary
from crystal_env.wyckoff import tables


class EnvAdapter:
    """The task of an environment: what its crystals must be like, and their rewards.

    What is sampled and scored here has the distribution and the rewards that stepping through the environment would
    have, its constraints and reward wrappers included. The task is asked for through ``crystal_task``, which an
    environment and every wrapper that scores crystals have; a layer that changes steps in any other way is refused.

    Args:
        env: a stable-baselines3 environment around ``CrystalGen-v0``, in this process.

    Attributes:
        grammar: what the crystals must be like.
        bins: numeric bins of the discrete environment, 0 on the continuous one.
        digest: hash of grammar, bins, reward and transforms, the same in every process; None if there is none.

    Raises:
        ValueError: if it is no such environment, has no reward, lets the agent choose the space group, has a layer
            whose effect is not known, or copies that differ.
    """

    def __init__(self, env: VecEnv) -> None:
        scored, self._monitors = read_layers(env)
        if scored.task.grammar.constraints.chooses_group:
            raise InputError("space_group of the environment must not be 'agent': the network does not choose it")
        if scored.task.scorer is None:
            raise InputError("env must have a reward, its reward is None")
        self.grammar, self.bins, self._scorer = scored.task.grammar, scored.task.bins, scored.task.scorer
        self._scored, self.digest = scored, scored.digest()

    def distribution(self, temperature: Temperature) -> Distribution:
        """Return how crystals are sampled, the network apart."""
        return Distribution(self.grammar, temperature, bins=self.bins)

    def score(self, crystals: CrystalBatch) -> RewardResult:
        """Return the scores of crystals (B,), their totals those that episodes end with."""
        result = self._scorer(crystals)
        return result._replace(total=self._scored.apply(result.total))

    def rejected(self, size: int, name: str) -> RewardResult:
        """Return the scores of crystals that a filter of some name finds not worth a call: the floor."""
        totals = self._scored.apply(np.full(size, self._scorer.floor))
        return RewardResult(totals, {}, np.full(size, REJECTED + name, object))

    def has_task_of(self, other: "EnvAdapter | None", digest: str | None) -> bool:
        """Return whether crystals get the same rewards here as in another environment, as far as is known.

        Args:
            other: the adapter of the other environment, if it is in this process.
            digest: its digest.
        """
        if other is not None and self._scored.is_same(other._scored):
            return True
        return digest is not None and digest == self.digest

    def reward_state(self) -> dict[str, Any]:
        """Return what the reward remembers, such as the buckets of `rewards.Diversity`, by place in it."""
        return {place: part.state_dict() for place, part in stateful_parts(self._scorer).items()}

    def load_reward_state(self, state: dict[str, Any]) -> None:
        """Let the reward remember what `reward_state` gave; parts that it does not have are passed over."""
        for place, part in stateful_parts(self._scorer).items():
            if place in state:
                part.load_state_dict(state[place])

    def masks(self, observations: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return the ids (N, V) that the constraints allow after observations (N, 2 + T), None without constraints.

        Where an observation itself is outside them, as that of a reset with other constraints, all ids are allowed.
        """
        if not set(self.grammar.constraints.in_words()) - {"space_group"}:
            return None
        states = CrystalStates(len(observations), Vocabulary(self.bins))
        rows, phase = np.arange(len(observations)), observations[:, 1].astype(np.int64)
        groups = observations[:, 0].astype(np.int64)
        inside = self.grammar.probabilities[groups] > 0
        states.reset(rows[inside], self.grammar, groups[inside])
        for part, tokens, values in walk(states, rows[inside], observations[inside, 2:], phase[inside]):
            allowed = states.step(part, tokens, values)
            inside[part[~allowed]] = False
            if not allowed.all():
                break
        return np.where((inside & (states.phase == phase))[:, None], states.masks, True)

    def record(self, crystals: CrystalBatch, rewards: NDArray[np.float64], seconds: float) -> list[dict[str, Any]]:
        """Report episodes (B,) that were not stepped to the monitors; return their entries of the infos."""
        lengths = n_decisions(crystals)
        entries = [
            {"r": round(float(r), 6), "l": int(n), "t": round(seconds, 6)}
            for r, n in zip(rewards, lengths, strict=True)
        ]
        for monitor in self._monitors:
            if monitor.results_writer is not None:
                for entry in entries:
                    monitor.results_writer.write_row(entry)
        return entries


def n_decisions(crystals: CrystalBatch) -> NDArray[np.int64]:
    """Return the number of decisions (B,) that crystals consist of: the steps of their episodes."""
    T = tables()
    coordinates = T.free_coordinates[crystals.G[:, None], crystals.W].sum((1, 2))
    decisions: NDArray[np.int64] = 2 * crystals.n_sites() + 1 + coordinates + T.free_lattice[crystals.G].sum(1)
    return decisions

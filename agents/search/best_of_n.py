"""Best of n: more samples without any learning."""

from typing import NamedTuple, Unpack

import numpy as np
from tqdm import tqdm

from agents.crystalformer.distribution import compile_constraints, sample_groups
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.random_streams import RandomStreams, Seed
from agents.crystalformer.sampler import sample_crystals
from agents.crystalformer.temperature import Temperature
from agents.training.scored_samples import ScoredSamples
from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.constraints import ConstraintOptions, SpaceGroup
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward


class BestOfN(NamedTuple):
    """The best crystals of ``size`` groups of n.

    Attributes:
        crystals: the best one of each group.
        result: their rewards.
        calls: distinct crystals that were scored.
        kl_bound: upper bound of the KL divergence from what the model samples, in nats: see `kl_bound`.
    """

    crystals: CrystalBatch
    result: RewardResult
    calls: int
    kl_bound: float


def best_of_n(
    model: CrystalFormer,
    reward: Reward | str,
    n: int,
    size: int,
    *,
    floor: float = -10.0,
    space_groups: SpaceGroup = "mp20",
    seed: Seed = None,
    bins: int = 0,
    temperature: Temperature | None = None,
    top_p: float = 1.0,
    batch_size: int | None = None,
    progress: bool = False,
    **constraints: Unpack[ConstraintOptions],
) -> BestOfN:
    """Sample ``size`` groups of n crystals, each of one space group, and return the best of each.

    Args:
        model: the network.
        reward: a callable, or ``"module:attribute"``.
        n: crystals of a group.
        size: groups.
        floor: reward of a crystal that cannot be scored.
        space_groups: space groups to sample: see `CrystalFormer.sample`.
        seed: see `CrystalFormer.sample`.
        bins: see `CrystalFormer.sample`.
        temperature: see `CrystalFormer.sample`.
        top_p: see `CrystalFormer.sample`.
        batch_size: crystals that are sampled and scored together; see `CrystalFormer.sample`.
        progress: show a bar with the time left.
        constraints: see `CrystalFormer.sample`.

    Raises:
        ValueError: if an argument is malformed, or no crystal of a space group meets the constraints.
    """
    batch_size = model.default_batch_size() if batch_size is None else batch_size
    for name, value in (("n", n), ("size", size), ("batch_size", batch_size)):
        integer(name, value, 1)
    finite_number("floor", floor)
    scorer, streams = Scorer(resolve_reward(reward), floor), RandomStreams(seed)
    groups = np.repeat(sample_groups(space_groups, size, streams, constraints), n)
    distribution = model.distribution(compile_constraints(groups, constraints), temperature, top_p, bins)
    samples = ScoredSamples()
    with tqdm(total=len(groups), unit="crystal", desc="sample and score", disable=not progress) as bar:
        for start in range(0, len(groups), batch_size):
            index = np.arange(start, min(start + batch_size, len(groups)))
            sampled = sample_crystals(model, groups[index], distribution, streams, batch_size, index=index)
            samples = samples.extended(sampled.crystals, scorer)
            bar.update(len(index))
    best = np.arange(size) * n + samples.result.total.reshape(size, n).argmax(1)
    return BestOfN(samples.crystals[best], samples.result.take(best), len(samples.crystals.distinct()[0]), kl_bound(n))


def kl_bound(n: int) -> float:
    """Return ln n - (n - 1) / n, an upper bound of the KL divergence of the best of n from the model, in nats.

    It is exact where no two crystals have the same reward (Beirami et al., arXiv:2401.01879).
    """
    return float(np.log(n) - (n - 1) / n)

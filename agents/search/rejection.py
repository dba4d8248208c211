"""Rejection of crystals whose atoms are impossibly close: free of any reward, and exact up to a constant per group."""

from typing import Any, NamedTuple

import numpy as np

from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.random_streams import Seed
from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch
from crystal_env.elements import MIN_CONTACT
from crystal_env.grammar.constraints import SpaceGroup


class Accepted(NamedTuple):
    """Crystals that passed, and how many were sampled for them.

    Attributes:
        crystals: a crystal for each one requested; one that never passed is the last that was tried.
        sampled: number of crystals that were sampled.
        failed: number of crystals that never passed.
    """

    crystals: CrystalBatch
    sampled: int
    failed: int


def sample_accepted(
    model: CrystalFormer,
    space_groups: SpaceGroup = "mp20",
    size: int | None = None,
    *,
    min_contact: float = MIN_CONTACT,
    tries: int = 20,
    seed: Seed = None,
    **options: Any,
) -> Accepted:
    """Sample crystals, each again in its space group while its shortest contact is below ``min_contact``.

    The distribution is that of the model, given that a crystal passes: its log-likelihood is the model's minus the log
    of the fraction of its space group that passes.

    Args:
        model: the network.
        space_groups: see `CrystalFormer.sample`.
        size: see `CrystalFormer.sample`.
        min_contact: shortest distance of two atoms, in units of the sum of their covalent radii.
        tries: crystals sampled for each one requested, at most.
        seed: see `CrystalFormer.sample`.
        options: other arguments of `CrystalFormer.sample`.

    Raises:
        ValueError: if an argument is malformed, or no crystal of a space group meets the constraints.
    """
    finite_number("min_contact", min_contact, above=0)
    integer("tries", tries, 1)
    rng = np.random.default_rng(seed)
    crystals = model.sample(space_groups, size, seed=rng, **options)
    rejected, sampled = np.arange(len(crystals)), len(crystals)
    for attempt in range(tries):
        rejected = rejected[crystals[rejected].min_contact(min_contact) < min_contact]
        if not len(rejected) or attempt + 1 == tries:
            break
        again = model.sample(crystals.G[rejected], seed=rng, **options)
        sampled += len(again)
        source = np.arange(len(crystals))
        source[rejected] = len(crystals) + np.arange(len(again))
        crystals = CrystalBatch.concatenate([crystals, again])[source]
    return Accepted(crystals, sampled, len(rejected))

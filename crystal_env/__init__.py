"""The grammar of crystals and its Gymnasium environment ``CrystalGen-v0``.

`env` and `vector_env` are the environments over the common core in `episodes`, `wrappers` their observation wrappers,
`reward` the interface of rewards. `crystal` holds the data types, `dataset` reads files of structures. `encoding`,
`vocabulary`, `geometry` and `wyckoff` are the rules and tables below them. ``grammar``, ``symmetry`` and ``render`` are
described in their folders.
"""

import gymnasium as gym

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.dataset import load_crystals
from crystal_env.env import CrystalGenEnv
from crystal_env.reward import RewardResult
from crystal_env.sampling import sample_masked
from crystal_env.vector_env import CrystalGenVectorEnv
from crystal_env.vocabulary import Phase, Vocabulary
from crystal_env.wrappers import (
    CrystalDictObservation,
    MaskInObservation,
    VectorCrystalDictObservation,
    VectorMaskInObservation,
)
from crystal_env.wyckoff import tables

__all__ = [
    "Crystal",
    "CrystalBatch",
    "CrystalDictObservation",
    "CrystalGenEnv",
    "CrystalGenVectorEnv",
    "MaskInObservation",
    "Phase",
    "RewardResult",
    "VectorCrystalDictObservation",
    "VectorMaskInObservation",
    "Vocabulary",
    "load_crystals",
    "sample_masked",
    "tables",
]

VARIANTS: dict[str, dict[str, int]] = {"CrystalGen-v0": {}, "CrystalGen-Coarse-v0": {"bins": 48}}
"""Id of a registered environment -> arguments that it differs in."""

for _id, _kwargs in VARIANTS.items():
    gym.register(
        id=_id,
        entry_point="crystal_env.env:CrystalGenEnv",
        vector_entry_point="crystal_env.vector_env:CrystalGenVectorEnv",
        kwargs=_kwargs,
    )

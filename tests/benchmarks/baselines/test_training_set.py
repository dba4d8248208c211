"""Statistics of known crystals."""

import numpy as np
import pytest

from benchmarks.baselines.training_set import TrainingSet, load_training_set
from crystal_env import Crystal, CrystalBatch


def test_substitutes_are_elements_seen_on_each_others_sites():
    texts = ["225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2", "225-a-K-0-0-0-b-Cl-1/2-1/2-1/2", "225-a-K-0-0-0-b-Br-1/2-1/2-1/2"]
    texts += ["221-a-Na-0-0-0-b-Br-1/2-1/2-1/2"]
    crystals = CrystalBatch.from_crystals([Crystal.from_string(f"{text}-X-5-5-5-90-90-90") for text in texts])
    substitutes = TrainingSet(crystals).substitutes
    known = {(int(a), int(b)) for a, b in np.argwhere(substitutes)}
    assert known == {(11, 19), (19, 11), (17, 35), (35, 17)}


def test_a_missing_training_set_is_named():
    with pytest.raises(ValueError, match=r"training_set nowhere\.csv"):
        load_training_set("nowhere.csv")

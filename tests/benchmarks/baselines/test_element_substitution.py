"""Known crystals with exchanged elements."""

import numpy as np

from benchmarks.baselines.element_substitution import Substitution
from benchmarks.baselines.search import grammar_of
from benchmarks.harness.rollout import keeps
from benchmarks.tasks import find_task


def test_substitution_keeps_sites_and_maps_elements_one_to_one(known):
    sampler = Substitution(known, grammar_of(find_task("validity")))
    prototypes = known.crystals[:200]
    new, fits = sampler.substituted(prototypes, np.random.default_rng(0))
    assert fits.all()
    assert np.array_equal(new.W, prototypes.W)
    assert (new.A != prototypes.A).any(1).all()
    for old, other in zip(prototypes, new, strict=True):
        assert len({*zip(old.A.tolist(), other.A.tolist(), strict=True)}) == len({*old.A.tolist()})
        assert len({*other.A.tolist()}) == len({*old.A.tolist()})


def test_substitution_reaches_a_given_formula(known):
    task = find_task("structure-prediction").case(0)
    sampler = Substitution(known, grammar_of(task))
    groups = grammar_of(task).sample_groups(50, np.random.default_rng(0))
    crystals = sampler.sample(groups, 1)
    assert np.array_equal(crystals.G, groups)
    assert {crystal.formula for crystal in crystals} == {"CoBr2"}
    assert keeps(crystals, task).all()

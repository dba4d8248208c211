"""Children have one change."""

import numpy as np

from benchmarks.baselines.element_substitution import Substitution
from benchmarks.baselines.genetic_algorithm import Breeding, GeneticAlgorithm
from benchmarks.baselines.search import grammar_of
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task


def test_children_have_the_sites_of_their_parent_and_one_change(known):
    task = find_task("validity")
    rng = np.random.default_rng(0)
    newcomers = Substitution(known, grammar_of(task))
    breeding = Breeding(GeneticAlgorithm(), Session(task), known, newcomers, rng)
    parents = known.crystals[:300]
    children = breeding.children(parents, known.crystals[rng.permutation(300)])
    assert np.array_equal(children.G, parents.G)
    assert np.array_equal(children.W, parents.W)
    elements = (children.A != parents.A).any(1)
    moved = (children.XYZ != parents.XYZ).any((1, 2))
    strained = ~np.isclose(children.L, parents.L).all(1)
    assert not (elements & moved).any()
    assert not (moved & strained).any()
    for changed in (elements, moved, strained & ~elements):
        assert changed.sum() > 15
    children.to_actions()  # the environment could build them

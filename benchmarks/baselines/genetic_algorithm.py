"""A genetic algorithm: the best crystals of each space group are mutated, and the better ones survive."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.element_substitution import Substitution
from benchmarks.baselines.search import BestSeen, grammar_of, iteration_size
from benchmarks.baselines.training_set import TRAINING_SET, TrainingSet, choose, load_training_set
from benchmarks.harness.rollout import keeps
from benchmarks.harness.session import Session
from crystal_env.crystal import CrystalBatch
from crystal_env.geometry import representatives
from crystal_env.grammar.feasibility import Grammar
from crystal_env.wyckoff import N_ELEMENTS, tables

_PATIENCE = 50  # generations in a row without a new crystal, after which the search ends


@dataclass(frozen=True)
class GeneticAlgorithm:
    """Evolves crystals within each space group, starting from known crystals with exchanged elements.

    A child is a parent with one change: an element is replaced by another one or by one of a second parent, two sites
    swap their elements, or lattice or coordinates are perturbed. Parents are sampled from the best ``parents`` crystals
    of the space group so far; where there is none, and for a fraction of each generation, known crystals with exchanged
    elements are added (`ElementSubstitution`). Children that violate the task's constraints are replaced. The best
    crystals found are returned.

    Attributes:
        training_set: File of known crystals, or the name of one in the folder $CRYSTALGEN_DATA.
        generations: Generations that the budget is split into.
        parents: Number of best crystals of a space group that are parents.
        fresh: Fraction of each generation that has no parent.
        strain: Standard deviation of the logarithm of a lattice length, and of an angle in radians.
        shift: Standard deviation of a coordinate's change, in fractions of an axis.
        tries: Tries per child before a crystal without parents replaces it.
    """

    training_set: str = TRAINING_SET
    generations: int = 50
    parents: int = 5
    fresh: float = 0.05
    strain: float = 0.05
    shift: float = 0.05
    tries: int = 10

    def train(self, session: Session) -> BestSeen:
        """Spend the budget and return the sampler."""
        known, grammar = load_training_set(self.training_set), grammar_of(session.task)
        newcomers = Substitution(known, grammar)
        breeding = Breeding(self, session, known, newcomers, np.random.default_rng(session.seed))
        size, idle = iteration_size(session.task, session.task.budget, self.generations), 0
        while not session.oracle.spent and idle < _PATIENCE:
            calls = session.oracle.calls
            session.score(breeding.generation(grammar.sample_groups(size, breeding.rng)))
            idle = 0 if session.oracle.calls > calls else idle + 1
        return BestSeen(session, newcomers)


class Breeding:
    """Makes new crystals from those that the oracle was queried for."""

    def __init__(
        self,
        settings: GeneticAlgorithm,
        session: Session,
        known: TrainingSet,
        newcomers: Substitution,
        rng: np.random.Generator,
    ) -> None:
        self.settings, self.session, self.known, self.rng = settings, session, known, rng
        self.newcomers = newcomers
        self._elements = _possible_elements(newcomers.grammar)

    def generation(self, groups: NDArray[np.int64]) -> CrystalBatch:
        """Return a new crystal for each of the space groups (N,)."""
        crystals, best = self.session.oracle.crystals, self._best()
        first, second = (self._parents(groups, best) for _ in range(2))
        missing = np.flatnonzero((first >= 0) & (self.rng.random(len(groups)) >= self.settings.fresh))
        place, parts = np.full(len(groups), -1), [CrystalBatch.empty()]
        made = 0
        for _ in range(self.settings.tries):
            if not len(missing):
                break
            children = self.children(crystals[first[missing]], crystals[second[missing]])
            fits = keeps(children, self.session.task)
            place[missing[fits]] = made + np.arange(fits.sum())
            parts.append(children[fits])
            made, missing = made + int(fits.sum()), missing[~fits]
        rest = np.flatnonzero(place < 0)
        place[rest] = made + np.arange(len(rest))
        parts.append(self.newcomers.sample(groups[rest], self.rng))
        return CrystalBatch.concatenate(parts)[place]

    def children(self, parents: CrystalBatch, mates: CrystalBatch) -> CrystalBatch:
        """Return the parents (N,), each with one change."""
        children, kind = parents[np.arange(len(parents))], self.rng.integers(5, size=len(parents))
        site = self._sites(parents)
        old = parents.A[np.arange(len(parents)), site]
        mutated, crossed = np.flatnonzero(kind == 0), np.flatnonzero(kind == 1)
        weights = self.known.substitutes[old[mutated], 1:] + 1 / N_ELEMENTS
        _replace(children, mutated, old, 1 + choose(weights * self._elements, self.rng))
        _replace(children, crossed, old, mates.A[crossed, self._sites(mates)[crossed]])
        rows = np.flatnonzero(kind == 2)
        other = self._sites(parents)
        children.A[rows, site[rows]] = parents.A[rows, other[rows]]
        children.A[rows, other[rows]] = old[rows]
        self._shift(children, np.flatnonzero(kind == 3), site)
        children = self.known.fitted(children, parents)
        return self._strained(children, np.flatnonzero(kind == 4))

    def _shift(self, crystals: CrystalBatch, rows: NDArray[np.int64], site: NDArray[np.int64]) -> None:
        G, W = crystals.G[rows], crystals.W[rows, site[rows]]
        shift = self.rng.normal(0.0, self.settings.shift, (len(rows), 3))
        moved = crystals.XYZ[rows, site[rows]] + np.where(tables().free_coordinates[G, W], shift, 0.0)
        crystals.XYZ[rows, site[rows]] = representatives(G, W, moved - np.floor(moved)) % 1.0

    def _strained(self, crystals: CrystalBatch, rows: NDArray[np.int64]) -> CrystalBatch:
        """Return crystals with other lattices in some rows (n,); an impossible one stays unchanged."""
        from agents.supervised.training_data import impossible

        T, G = tables(), crystals.G[rows]
        step = self.rng.normal(0.0, self.settings.strain, (len(rows), 6))
        old = crystals.L[rows]
        L = np.concatenate([old[:, :3] * np.exp(step[:, :3]), old[:, 3:] + np.degrees(step[:, 3:])], axis=1)
        L = np.take_along_axis(np.where(T.free_lattice[G], L, old), T.lattice_source[G], axis=1)
        L = np.where(T.lattice_angle[G] > 0, T.lattice_angle[G], L)
        every = crystals.L.copy()
        every[rows] = L
        strained = CrystalBatch(crystals.G, crystals.W, crystals.A, crystals.XYZ, every)
        wrong = rows[list(impossible(strained[rows]))]
        every[wrong] = crystals.L[wrong]
        return strained

    def _best(self) -> NDArray[np.int64]:
        """Return the rows of the scored crystals, the best first."""
        result = self.session.oracle.result()
        scored = result.scored
        best = np.argsort(-result.total, kind="stable")
        return best[scored[best]]

    def _parents(self, groups: NDArray[np.int64], best: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample rows (N,) among the best of the space groups (N,), -1 where there is none."""
        G, rows = self.session.oracle.crystals.G[best], np.full(len(groups), -1)
        for group in np.unique(groups):
            pool, at = best[group == G][: self.settings.parents], np.flatnonzero(groups == group)
            if len(pool):
                rows[at] = pool[self.rng.integers(len(pool), size=len(at))]
        return rows

    def _sites(self, crystals: CrystalBatch) -> NDArray[np.int64]:
        """Sample a site (N,) of each crystal."""
        return (self.rng.random(len(crystals)) * crystals.n_sites()).astype(np.int64)


def _replace(crystals: CrystalBatch, rows: NDArray[np.int64], old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
    """Replace elements ``old`` (N,)[rows] by ``new`` (n,) at all sites of some rows (n,)."""
    A = crystals.A[rows]
    crystals.A[rows] = np.where(old[rows, None] == A, new[:, None], A)


def _possible_elements(grammar: Grammar) -> NDArray[np.float64]:
    """Return 1 for the elements (118,) that some site may hold, else 0."""
    given = grammar.constraints
    possible = set(given.elements)
    if given.wyckoff_letters and len(given.site_elements) >= len(given.wyckoff_letters):
        possible &= {Z for site in given.site_elements for Z in site or given.elements}
    return np.isin(np.arange(1, N_ELEMENTS + 1), sorted(possible)).astype(np.float64)

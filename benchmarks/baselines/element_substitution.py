"""Element substitution: known crystals whose elements are exchanged for similar ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.marginal_sampler import TokenMarginals
from benchmarks.baselines.search import BestSeen, grammar_of, spend
from benchmarks.baselines.training_set import TRAINING_SET, TrainingSet, choose, load_training_set
from benchmarks.harness.session import Session
from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.feasibility import Grammar
from crystal_env.wyckoff import N_ELEMENTS, tables

_TINY = 1e-9  # weight of an exchange that is allowed and was never seen


@dataclass(frozen=True)
class ElementSubstitution:
    """Exchanges elements of known crystals for similar ones: the search for materials before generative models.

    Elements are similar if known crystals show them on each other's sites (`TrainingSet.substitutes`). The cell is
    scaled to the volume of the new atoms. A crystal that violates the task's constraints is replaced by another try;
    where none fits, as for some formulas, the marginal sampler takes over. The budget is spent on such crystals, and
    the best of them are returned.

    Attributes:
        training_set: File of known crystals, or the name of one in the folder $CRYSTALGEN_DATA.
        changed: Probability that an element is exchanged; at least one per crystal is.
        tries: Known crystals that are tried per new crystal.
        batch_size: Crystals per oracle query.
    """

    training_set: str = TRAINING_SET
    changed: float = 0.5
    tries: int = 10
    batch_size: int = 128

    def train(self, session: Session) -> BestSeen:
        """Spend the budget and return the sampler."""
        known = load_training_set(self.training_set)
        sampler = Substitution(known, grammar_of(session.task), self.changed, self.tries)
        spend(session, sampler, self.batch_size)
        return BestSeen(session, sampler)


class Substitution:
    """Samples known crystals with other elements, under a grammar."""

    def __init__(self, known: TrainingSet, grammar: Grammar, changed: float = 0.5, tries: int = 10) -> None:
        self.known, self.grammar, self.changed, self.tries = known, grammar, changed, tries
        self.others = TokenMarginals(known, grammar)
        self.formula = np.zeros(N_ELEMENTS + 1, np.int64)
        for Z, count in grammar.constraints.formula or ():
            self.formula[Z] = count
        self._pool = np.arange(len(known.crystals))
        if self.formula.any():
            proportions = np.sort(_reduced(known.crystals), axis=1)
            self._pool = np.flatnonzero((proportions == np.sort(self.formula)).all(1))

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        rng = np.random.default_rng(seed)
        missing, parts, places = np.arange(len(space_groups)), [], []
        for _ in range(self.tries):
            rows, prototypes = self._prototypes(space_groups[missing], rng)
            new, fits = self.substituted(prototypes, rng)
            parts.append(new[fits])
            places.append(missing[rows[fits]])
            missing = np.delete(missing, rows[fits])
        parts.append(self.others.sample(space_groups[missing], rng))
        order = np.argsort(np.concatenate([*places, missing]))
        return CrystalBatch.concatenate(parts)[order]

    def substituted(self, prototypes: CrystalBatch, rng: np.random.Generator) -> tuple[CrystalBatch, NDArray[np.bool_]]:
        """Return crystals (B,) with other elements, and which of them (B,) meet the constraints."""
        G, W, old, n = prototypes.G, prototypes.W, prototypes.A, prototypes.n_sites()
        new, state, start = np.zeros_like(old), np.zeros(len(G), np.int64), np.ones(len(G), np.int64)
        fits, exchange = np.ones(len(G), bool), _Exchange(self, prototypes, rng)
        for site in range(old.shape[1]):
            at = np.flatnonzero(fits & (n >= site))
            letters = self.grammar.letters(G[at], np.full(len(at), site), start[at], state[at])
            fits[at] = letters[np.arange(len(at)), W[at, site]]
            at = np.flatnonzero(fits & (n > site))
            if not len(at):
                break
            place = G[at], W[at, site], np.full(len(at), site), state[at]
            weights = exchange.weights(at, old[at, site]) * self.grammar.elements(*place, new[at])
            fits[at] = weights.sum(1) > 0
            at, weights = at[fits[at]], weights[fits[at]]
            new[at, site] = Z = 1 + choose(weights, rng)
            exchange.settle(at, old[at, site], Z)
            state[at] = self.grammar.advance(G[at], W[at, site], Z, np.full(len(at), site), state[at])
            start[at] = tables().successor[G[at], W[at, site]]
        new = np.where(fits[:, None], new, old)
        return self.known.fitted(CrystalBatch(G, W, new, prototypes.XYZ, prototypes.L), prototypes), fits

    def _prototypes(
        self, groups: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], CrystalBatch]:
        """Sample known crystals for the space groups (N,) that have any; return rows (n,) and crystals (n,)."""
        rows = np.full(len(groups), -1)
        for group in np.unique(groups):
            pool, at = self._pool[self.known.crystals.G[self._pool] == group], np.flatnonzero(groups == group)
            if len(pool):
                rows[at] = pool[rng.integers(len(pool), size=len(at))]
        found = np.flatnonzero(rows >= 0)
        return found, self.known.crystals[rows[found]]


class _Exchange:
    """The map from old to new elements of each crystal: the same at all its sites, and injective."""

    def __init__(self, sampler: Substitution, prototypes: CrystalBatch, rng: np.random.Generator) -> None:
        self.substitutes, self.formula = sampler.known.substitutes, sampler.formula
        self.amounts = _reduced(prototypes)
        present = self.amounts > 0
        self.changes = (rng.random(present.shape) < sampler.changed) & present
        one = choose(present.astype(np.float64), rng)
        self.changes[np.arange(len(one)), one] |= ~self.changes.any(1)
        self.settled = np.zeros(present.shape, np.int64)
        self.taken = np.zeros(present.shape, bool)

    def weights(self, rows: NDArray[np.int64], old: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return weights (n, 118) of the substitutes of elements (n,) in some rows (n,)."""
        same = np.eye(N_ELEMENTS + 1)
        likely = np.where(self.changes[rows, old, None], self.substitutes[old], same[old]) + _TINY
        likely[self.taken[rows]] = 0
        if self.formula.any():  # an element is exchanged for one that is as frequent
            likely *= self.amounts[rows, old, None] == self.formula
        settled = self.settled[rows, old]
        return np.where(settled[:, None] > 0, same[settled], likely)[:, 1:]

    def settle(self, rows: NDArray[np.int64], old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        """Fix the substitutes of elements (n,) in some rows (n,)."""
        self.settled[rows, old] = new
        self.taken[rows, new] = True


def _reduced(crystals: CrystalBatch) -> NDArray[np.int64]:
    """Return atoms per element (B, 119) of the reduced formulas."""
    counts = crystals.composition()
    reduced: NDArray[np.int64] = counts // np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
    return reduced

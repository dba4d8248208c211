"""Marginal sampler: tokens with their frequencies in known crystals of the space group, nearly independent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.search import grammar_of, spend
from benchmarks.baselines.training_set import TRAINING_SET, TrainingSet, choose, load_training_set
from benchmarks.harness.session import Session
from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.feasibility import Grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import N_LETTERS

_TINY = 1e-9  # weight of what is allowed and was never seen


@dataclass(frozen=True)
class MarginalSampler:
    """Samples letters, elements and lattices with their frequencies in known crystals of the space group.

    A letter (or STOP) depends on the letter before it, an element on the group alone; masks enforce the task's
    constraints. Coordinates are uniform. The lattice is that of a random known crystal of the group, scaled to the
    volume of the atoms. It does not learn, and samples until the budget is spent.

    Attributes:
        training_set: File of known crystals, or the name of one in the folder $CRYSTALGEN_DATA.
        smoothing: Weight, in crystals of the group, of the frequencies of letters at any position and of elements in
            any group.
        batch_size: Crystals per oracle query.
    """

    training_set: str = TRAINING_SET
    smoothing: float = 1.0
    batch_size: int = 128

    def train(self, session: Session) -> "TokenMarginals":
        """Spend the budget and return the sampler."""
        sampler = TokenMarginals(load_training_set(self.training_set), grammar_of(session.task), self.smoothing)
        spend(session, sampler, self.batch_size)
        return sampler


class TokenMarginals:
    """Samples from the marginals under a grammar."""

    def __init__(self, known: TrainingSet, grammar: Grammar, smoothing: float = 1.0) -> None:
        self.known, self.grammar = known, grammar
        anywhere = known.letters.sum(1, keepdims=True) / np.maximum(known.letters.sum((1, 2), keepdims=True), 1)
        self._letters = known.letters + smoothing * anywhere + _TINY  # (231, 28, 28)
        overall = known.elements.sum(0) / known.elements.sum()
        self._elements = (known.elements + smoothing * overall + _TINY)[:, 1:]  # (231, 118)

    def sample(self, space_groups: NDArray[np.int64], seed: int | np.random.Generator) -> CrystalBatch:
        """Return a crystal for each of the space groups (N,)."""
        rng, every = np.random.default_rng(seed), np.arange(len(space_groups))
        states = CrystalStates(len(every), Vocabulary(0))
        states.reset(every, self.grammar, space_groups)
        while len(rows := every[states.phase < Phase.A]):
            states.step(rows, self._symbols(states, rows, rng), rng.random(len(rows)))
        crystals = states.crystals(every)
        return self.known.fitted(crystals, self.known.lattices(space_groups, rng))

    def _symbols(self, states: CrystalStates, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Sample ids (n,) where letters or elements are to be decided, 0 elsewhere."""
        symbols, phase = np.zeros(len(rows), np.int64), states.phase[rows]
        at = rows[phase == Phase.LETTER]
        before = np.where(states.site[at] > 0, states.site_of(at, np.maximum(states.site[at] - 1, 0))[0], 0)
        weights = self._letters[states.G[at], before] * states.masks[at, :N_LETTERS]
        symbols[phase == Phase.LETTER] = choose(weights, rng)
        at = rows[phase == Phase.ELEMENT]
        weights = self._elements[states.G[at]] * states.masks[at, FIRST_ELEMENT:N_SYMBOLS]
        symbols[phase == Phase.ELEMENT] = FIRST_ELEMENT + choose(weights, rng)
        return symbols

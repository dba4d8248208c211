"""From the network's outputs to a distribution of crystals: one set of rules, for sampling and for scoring."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from agents.crystalformer.mixtures import LatticeMixture, VonMises
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.temperature import Temperature, Temperatures
from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import ConstraintOptions, Constraints, SpaceGroup, constraints
from crystal_env.grammar.feasibility import Grammar, compile_grammar
from crystal_env.vocabulary import Vocabulary
from crystal_env.wyckoff import N_ELEMENTS, N_GROUPS, N_LETTERS, tables


@dataclass(frozen=True)
class Distribution:
    """All that beside the network defines the distribution of crystals.

    Attributes:
        grammar: which letters and elements are allowed.
        temperature: one number, or one for each part: see `Temperatures`. It divides logits and concentrations, and
            multiplies the variances of the lattice; 0 takes the most likely letter, element and component every time,
            and its centre.
        top_p: letters, elements and components are sampled from the most likely ones that together have this
            probability at temperature 1.
        bins: numeric bins, a multiple of 24; 0 for densities.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    grammar: Grammar
    temperature: Temperature = 1.0
    top_p: float = 1.0
    bins: int = 0

    def __post_init__(self) -> None:
        check_distribution(self.temperature, self.top_p, self.bins)

    @cached_property
    def temperatures(self) -> Temperatures:
        """The temperature of each part."""
        return Temperatures.of(self.temperature)

    def letters(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return log probabilities (..., 28) of letters with given logits, -inf where they are not allowed."""
        return self.log_probs(logits, self.temperatures.letters, mask)

    def elements(self, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log probabilities (..., n) of elements with given logits, -inf where they are not allowed."""
        return self.log_probs(logits, self.temperatures.elements, mask)

    def log_probs(self, logits: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
        """Return log probabilities (..., n) of choices with logits (..., n), -inf where they are not allowed."""
        if mask is not None:  # where nothing is allowed, nothing is masked: the caller knows, and no NaN arises
            logits = logits.masked_fill(~mask & mask.any(-1, keepdim=True), -torch.inf)
        if self.top_p < 1:
            p, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
            outside = torch.zeros_like(p, dtype=torch.bool).scatter(-1, order, p.cumsum(-1) - p >= self.top_p)
            logits = logits.masked_fill(outside, -torch.inf)
        if temperature == 0:
            return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0).log()
        return F.log_softmax(logits / temperature, dim=-1)

    def coordinate(self, output: Tensor) -> VonMises:
        """Read the mixtures of coordinates from outputs (..., 3K)."""
        logits, locations, concentrations = output.chunk(3, dim=-1)
        T = self.temperatures
        concentrations = F.softplus(concentrations) / max(T.coordinate_concentrations, _MIN_TEMPERATURE)
        return VonMises(self.log_probs(logits, T.coordinate_weights), locations, concentrations)

    def lattice(self, output: Tensor) -> LatticeMixture:
        """Read the mixtures of lattices from outputs (..., 13K)."""
        K = output.shape[-1] // 13
        logits, means, scales = output.split([K, 6 * K, 6 * K], dim=-1)
        T = self.temperatures
        scales = (F.softplus(scales) + MIN_SCALE) * max(T.lattice_variances, _MIN_TEMPERATURE) ** 0.5
        log_weights = self.log_probs(logits, T.lattice_weights)
        return LatticeMixture(log_weights, means.unflatten(-1, (K, 6)), scales.unflatten(-1, (K, 6)))


def check_distribution(temperature: Any, top_p: Any, bins: Any) -> None:
    """Raise a ValueError that names the argument of `Distribution` that is out of range."""
    Temperatures.of(temperature)
    finite_number("top_p", top_p, above=0, most=1)
    Vocabulary(bins)  # checks the bins


MIN_SCALE = 1e-3
"""Smallest standard deviation of a lattice parameter, in Å per cube root of the number of atoms or in radians."""

_MIN_TEMPERATURE = 1e-9  # temperature below which numbers are as good as certain


def compile_constraints(groups: NDArray[np.int64], options: Mapping[str, Any]) -> Grammar:
    """Return the grammar of crystals of the given groups under the constraints of `crystal_env.grammar.constraints`.

    Raises:
        ValueError: if a constraint is malformed, or a group has no crystal that meets them; the message names it.
    """
    if not options:
        return any_crystal()
    return compile_grammar(constraints(space_group=np.unique(groups).tolist() or "mp20", **options))


def sample_groups(
    space_groups: SpaceGroup, size: int | None, streams: RandomStreams, options: Mapping[str, Any]
) -> NDArray[np.int64]:
    """Return the space groups (B,) of crystals: those given, or ``size`` that are sampled as the environment does.

    Raises:
        ValueError: if they are no space groups, or no crystal of them meets the constraints ``options``.
    """
    if size is None:
        groups = np.atleast_1d(np.asarray(space_groups if not isinstance(space_groups, str) else []))
        if isinstance(space_groups, str) or groups.ndim != 1 or (len(groups) and groups.dtype.kind not in "iu"):
            raise InputError(
                f"space_groups must be integers, one for each crystal, or size be given; got {space_groups!r}"
            )
        wrong = groups[(groups < 1) | (groups > N_GROUPS)]
        if len(wrong):
            raise InputError(f"space_groups must be 1 to {N_GROUPS}, got {wrong[0]}")
        return groups.astype(np.int64)
    integer("size", size, 0)
    wanted = check_constraints(space_groups, options)
    return compile_grammar(wanted).sample_groups(size, streams.for_space_groups())


def check_constraints(space_group: SpaceGroup, options: Mapping[str, Any]) -> Constraints:
    """Return constraints in normal form.

    Raises:
        ValueError: if one is malformed, or leaves the space group to the network.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"constraints must be a dictionary, got {options!r}")
    unknown = sorted(set(options) - set(ConstraintOptions.__annotations__))
    if unknown:
        raise InputError(f"constraints must be among {sorted(ConstraintOptions.__annotations__)}, got {unknown}")
    wanted = constraints(space_group=space_group, **options)
    if wanted.chooses_group:
        raise InputError("space_group must be given or sampled: the network does not choose it, got 'agent'")
    return wanted


@lru_cache(maxsize=1)
def any_crystal() -> Grammar:
    """Return the grammar without constraints, of all space groups."""
    return compile_grammar(constraints(space_group=[1.0] * N_GROUPS))


def decision_masks(crystals: CrystalBatch, grammar: Grammar) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which letters (B, n, 28) and elements (B, n, 119) could be chosen at each of n slots of given crystals.

    There is one slot more than the crystal of most sites has. From the first decision on that is not allowed, and
    after STOP, nothing is.
    """
    G, n = crystals.G, int(crystals.n_sites().max(initial=0)) + 1
    W, A = (np.pad(array, [(0, 0), (0, 1)])[:, :n] for array in (crystals.W, crystals.A))
    letters, elements = np.zeros((len(G), n, N_LETTERS), bool), np.zeros((len(G), n, N_ELEMENTS + 1), bool)
    rows = np.flatnonzero(grammar.probabilities[G] > 0)
    start, state = np.ones(len(G), np.int64), np.zeros(len(G), np.int64)
    for i in range(min(n, grammar.constraints.max_sites + 1)):
        slot = np.full(len(rows), i)
        letters[rows, i] = grammar.letters(G[rows], slot, start[rows], state[rows])
        rows = rows[letters[rows, i, W[rows, i]] & (W[rows, i] > 0)]
        slot = np.full(len(rows), i)
        elements[rows, i, 1:] = grammar.elements(G[rows], W[rows, i], slot, state[rows], crystals.A[rows])
        rows = rows[elements[rows, i, A[rows, i]]]
        state[rows] = grammar.advance(G[rows], W[rows, i], A[rows, i], np.full(len(rows), i), state[rows])
        start[rows] = tables().successor[G[rows], W[rows, i]]
    return letters, elements

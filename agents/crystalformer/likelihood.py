"""Log-likelihoods of crystals: exactly the density that the sampler samples from, or the one of the paper's code.

The space group is given: all is conditional on it. A log-likelihood has four parts, in nats: letters (STOP included),
elements, coordinates and lattice.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from agents.crystalformer.distribution import Distribution, any_crystal, decision_masks
from agents.crystalformer.mixtures import LatticeMixture, VonMises
from agents.crystalformer.network import Network, Outputs
from agents.crystalformer.tokens import Tokens
from crystal_env.crystal import CrystalBatch
from crystal_env.encoding import gamma_bins, lattice_bins
from crystal_env.errors import InputError
from crystal_env.wyckoff import N_ELEMENTS, N_GROUPS, N_LETTERS, N_SLOTS, tables

Likelihood = Literal["exact", "paper"]

N_DECISIONS = 2 * (N_SLOTS + 1) + 3 * N_SLOTS + 1
"""Maximum decisions of a crystal: letters and elements of 22 slots, coordinates of 21, and the lattice as one."""

_LOG_TWO_PI = float(np.log(2 * np.pi))
_CHUNK = 2_000  # tokens scored at once: what a core's cache holds
_CHUNK_CUDA = 200_000


class LogProb(NamedTuple):
    """Log-likelihoods of B crystals in nats, as a whole and by part, each (B,)."""

    total: Tensor
    letters: Tensor
    elements: Tensor
    coordinates: Tensor
    lattice: Tensor


class DecisionLogProb(NamedTuple):
    """Log-likelihoods of every decision of B crystals in n slots, in nats, 0 where there is no decision.

    Attributes:
        letters (B, n): STOP included.
        elements (B, n): of the sites.
        coordinates (B, n - 1, 3): of the free ones.
        lattice (B,): of all its free parameters together.
    """

    letters: Tensor
    elements: Tensor
    coordinates: Tensor
    lattice: Tensor

    def by_part(self) -> LogProb:
        """Return the sums over the decisions of each part, and of all."""
        parts = (self.letters.sum(1), self.elements.sum(1), self.coordinates.sum((1, 2)), self.lattice)
        return LogProb(torch.stack(parts).sum(0), *parts)

    def flattened(self) -> Tensor:
        """Return all decisions as one array (B, `N_DECISIONS`), whatever n is."""
        sites = [F.pad(part, (0, N_SLOTS + 1 - part.shape[1])) for part in (self.letters, self.elements)] + [
            F.pad(self.coordinates, (0, 0, 0, N_SLOTS - self.coordinates.shape[1])).flatten(1)
        ]
        return torch.cat([*sites, self.lattice[:, None]], dim=1)


def log_prob(
    model: Network, crystals: CrystalBatch, distribution: Distribution, likelihood: Likelihood = "exact"
) -> LogProb:
    """Return the log-likelihood of crystals; `CrystalFormer.log_prob` describes it.

    The crystals are scored in chunks of similar length. A gradient reaches the parameters unless it is switched off.
    """
    if likelihood == "exact" and not distribution.bins and not distribution.temperatures.have_densities:
        raise InputError("temperature must be above 0 to score densities: at 0 all numbers are certain")
    check_crystals(crystals)
    order = np.argsort(crystals.n_sites(), kind="stable")
    parts = [score(model, crystals[rows], distribution, likelihood) for rows in _chunks(model, crystals, order)]
    back = torch.from_numpy(np.argsort(order)).to(model.device)
    if not parts:
        return LogProb(*[torch.zeros(0, dtype=model.real_dtype, device=model.device)] * 5)
    return LogProb(*(torch.cat(part)[back] for part in zip(*parts, strict=True)))


def score(
    model: Network, crystals: CrystalBatch, distribution: Distribution, likelihood: Likelihood = "exact"
) -> LogProb:
    """Return the log-likelihood of crystals in a single pass of the network."""
    if likelihood == "exact":
        return score_decisions(model, crystals, distribution).by_part()
    tokens = Tokens.from_crystals(crystals, model.real_dtype, model.device)
    letters, *others = _paper(model(tokens), tokens)
    parts = (letters.masked_fill(_has_entries_after_a_pad(crystals, model), -torch.inf), *others)
    return LogProb(torch.stack(parts).sum(0), *parts)


def score_decisions(model: Network, crystals: CrystalBatch, distribution: Distribution) -> DecisionLogProb:
    """Return the exact log-likelihood of every decision of crystals in a single pass of the network."""
    tokens = Tokens.from_crystals(crystals, model.real_dtype, model.device)
    outputs = model(tokens)
    masks = decision_masks(crystals, distribution.grammar)
    letters, elements = _symbols(outputs, tokens, distribution, *(torch.from_numpy(m).to(model.device) for m in masks))
    stray = _has_entries_after_a_pad(crystals, model)
    letters[:, 0] = letters[:, 0].masked_fill(stray, -torch.inf)
    pad = (tokens.W > 0).sum(1)
    mixture = distribution.lattice(outputs.lattice[torch.arange(len(pad), device=pad.device), pad])
    lattice = lattice_log_prob(mixture, crystals, tokens.L, distribution.bins)
    return DecisionLogProb(letters, elements, _coordinates(outputs, tokens, distribution), lattice)


def _symbols(
    outputs: Outputs, tokens: Tokens, distribution: Distribution, letters: Tensor, elements: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the log probabilities (B, n) of letters and of elements, -inf where the masks do not allow them."""
    placed = (tokens.W > 0).cumprod(1).bool()  # sites up to the first pad
    decided = F.pad(placed[:, :-1], (1, 0), value=True)  # letters up to the first pad
    parts = []
    for log_probs, mask, chosen, counted in (
        (distribution.letters(outputs.letters, letters), letters, tokens.W, decided),
        (distribution.elements(outputs.elements, elements), elements, tokens.A, placed),
    ):
        allowed = mask.gather(-1, chosen[..., None])[..., 0]
        log_p = log_probs.gather(-1, chosen[..., None])[..., 0]
        parts.append(torch.where(counted, torch.where(allowed, log_p, -torch.inf), 0.0))
    return parts[0], parts[1]


def _coordinates(outputs: Outputs, tokens: Tokens, distribution: Distribution) -> Tensor:
    """Return the log probabilities (B, n - 1, 3) of the free coordinates, per unit of a fractional coordinate."""
    where = _table("free_coordinates", tokens).nonzero(as_tuple=True)
    log_p = coordinate_log_prob(
        distribution.coordinate(outputs.coordinates[where]), tokens.XYZ[where], distribution.bins
    )
    return log_p.new_zeros(tokens.XYZ[:, :-1].shape).index_put(where, log_p)


def coordinate_log_prob(mixture: VonMises, x: Tensor, bins: int) -> Tensor:
    """Return the log-likelihoods (N,) of coordinates (N,) in [0, 1): densities per unit of x, or of their bins."""
    if not bins:
        return mixture.log_density(x) + _LOG_TWO_PI  # per unit of x instead of per radian
    chosen = torch.round(x * bins).long() % bins
    index = chosen[:, None, None].expand(-1, mixture.locations.shape[-1], 1)
    return torch.logsumexp(mixture.log_weights + mixture.bins(bins).gather(-1, index)[..., 0], dim=-1)


def lattice_log_prob(mixture: LatticeMixture, crystals: CrystalBatch, L: Tensor, bins: int) -> Tensor:
    """Return the joint log-likelihoods (B,) of the free lattice parameters of crystals.

    Args:
        mixture: of B lattices.
        crystals: B crystals.
        L: (B, 6) their normalised lattices, as in `Tokens`.
        bins: bins of a parameter, 0 for densities.
    """
    free = torch.from_numpy(tables().free_lattice).to(L.device)[torch.from_numpy(crystals.G).to(L.device)]
    if not bins:
        return mixture.log_density(L, free)
    n, total = bins, mixture.log_weights
    bin_of = torch.from_numpy(lattice_bins(crystals.L, crystals.n_atoms(), n)).to(L.device)
    for parameter in range(6):
        rows = free[:, parameter].nonzero()[:, 0]
        part = LatticeMixture(*(array[rows] for array in mixture))
        allowed = None
        if parameter == 5:
            allowed = torch.from_numpy(gamma_bins(bin_of[rows, 3:5].numpy(force=True), n)).to(L.device)
        chosen = bin_of[rows, parameter, None, None].clamp(min=0).expand(-1, total.shape[-1], 1)
        total = total.index_add(0, rows, part.bins(parameter, n, allowed).gather(-1, chosen)[..., 0])
    outside = ((bin_of < 0) & free).any(-1) | total.isneginf().all(-1)
    total = total.masked_fill(outside[:, None], 0.0)  # no gradient comes from a sum of nothing but zeros
    return torch.logsumexp(total, dim=-1).masked_fill(outside, -torch.inf)


def _paper(outputs: Outputs, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four parts (B,) as the paper's code scores them.

    Dependent coordinates count, as densities per radian; each lattice parameter is a mixture of its own, without
    bounds; a crystal may fill all 21 slots, and then its lattice is read at the last one.
    """
    distribution = Distribution(any_crystal())
    n = min(tokens.W.shape[1], N_SLOTS)
    W, A, G = tokens.W[:, :n], tokens.A[:, :n], tokens.G
    following = torch.from_numpy(tables().next_letter).to(G.device)
    letters = following[G[:, None], F.pad(W[:, :-1], (1, 0))]
    elements = (torch.arange(N_ELEMENTS + 1, device=G.device) > 0).expand(*W.shape, -1)
    symbols = outputs._replace(letters=outputs.letters[:, :n], elements=outputs.elements[:, :n])
    log_w, log_a = (
        part.sum(1) for part in _symbols(symbols, tokens._replace(W=W, A=A), distribution, letters, elements)
    )

    where = _table("projection", tokens)[..., :3].ne(0).any(-1).nonzero(as_tuple=True)
    densities = distribution.coordinate(outputs.coordinates[where]).log_density(tokens.XYZ[where])
    log_xyz = torch.zeros_like(tokens.L[:, 0]).index_add(0, where[0], densities)

    pad = (W > 0).sum(1).clamp(max=N_SLOTS - 1)
    mixture = distribution.lattice(outputs.lattice[torch.arange(len(pad), device=pad.device), pad])
    each = torch.logsumexp(mixture.log_weights[..., None] + mixture.components(tokens.L), dim=-2)
    free = torch.from_numpy(tables().free_lattice).to(G.device)[G]
    return log_w, log_a, log_xyz, each.masked_fill(~free, 0.0).sum(-1)


def _table(name: str, tokens: Tokens) -> Tensor:
    """Look up a table of the grammar at all slots but the last, which is no site."""
    table = torch.from_numpy(getattr(tables(), name)).to(tokens.G.device)
    return table[tokens.G[:, None], tokens.W[:, :-1]]


def _has_entries_after_a_pad(crystals: CrystalBatch, model: Network) -> Tensor:
    after = np.logical_or.accumulate(crystals.W == 0, axis=1)
    stray = np.any(after & ((crystals.W > 0) | (crystals.A > 0) | crystals.XYZ.any(-1)), axis=1)
    return torch.from_numpy(stray).to(model.device)


def check_crystals(crystals: CrystalBatch) -> None:
    """Raise a ValueError that names what is wrong with a batch whose numbers are in no table, or not finite."""
    for name, array, least, most in (
        ("G", crystals.G[:, None], 1, N_GROUPS),
        ("W", crystals.W, 0, N_LETTERS - 1),
        ("A", crystals.A, 0, N_ELEMENTS),
    ):
        wrong = ((array < least) | (array > most)).any(1)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(f"crystals.{name} must be {least} to {most}, got {array[row].tolist()} in crystal {row}")
    finite = np.isfinite(crystals.XYZ).all((1, 2)) & np.isfinite(crystals.L).all(1)
    if not finite.all():
        raise InputError(f"crystals.XYZ and crystals.L must be finite, crystal {int((~finite).argmax())} has others")


def _chunks(model: Network, crystals: CrystalBatch, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut crystals, sorted by length, so that no chunk has too many tokens."""
    limit = _CHUNK if model.device.type == "cpu" else _CHUNK_CUDA
    sites, start = crystals.n_sites()[order], 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * (5 * sites[end] + 1) <= limit:
            end += 1
        yield order[start:end]
        start = end

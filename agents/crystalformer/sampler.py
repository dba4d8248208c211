"""Sampling crystals from the network: the distribution that `agents.crystalformer.likelihood` scores."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from agents.crystalformer.config import N_SPECIES
from agents.crystalformer.decoder import Decoder
from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import LogProb, coordinate_log_prob, lattice_log_prob
from agents.crystalformer.mixtures import LatticeMixture
from agents.crystalformer.network import Network
from agents.crystalformer.quantiles import categorical, truncated_normal, von_mises
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.tokens import normalised_lattice
from crystal_env.arguments import integer
from crystal_env.crystal import CrystalBatch
from crystal_env.encoding import denormalise, normalise_angle, normalise_length
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import N_LETTERS, N_SLOTS

_Rows = NDArray[np.int64]
_Reals = NDArray[np.float64]

_LETTERS, _ELEMENTS, _COORDINATES, _LATTICE = range(4)  # columns of the scores

# Columns of a crystal's uniform numbers: eight a site, for its letter, its element, and component and value of each of
# its coordinates; then the component and the six values of the lattice.
_LETTER_COLUMN, _ELEMENT_COLUMN, _COORDINATE_COLUMN, _SITE_COLUMNS = 0, 1, 2, 8
_LATTICE_COLUMN = _SITE_COLUMNS * N_SLOTS
N_UNIFORMS = _LATTICE_COLUMN + 7
"""Uniform numbers that a crystal is made of."""

_MIN_UNFINISHED = 0.9  # fraction of a batch's rows; below it, finished crystals are dropped


class Samples(NamedTuple):
    """B sampled crystals, with the log-likelihoods (B,) of their parts where these were requested.

    The log-likelihoods are what `agents.crystalformer.likelihood.score` computes for the crystals, out of the same
    passes that sampled them.
    """

    crystals: CrystalBatch
    log_prob: LogProb | None


@torch.inference_mode()
def sample_crystals(
    model: Network,
    groups: NDArray[np.int64],
    distribution: Distribution,
    streams: RandomStreams,
    batch_size: int,
    *,
    index: NDArray[np.int64] | None = None,
    progress: bool = False,
    scored: bool = False,
) -> Samples:
    """Return a crystal for each of the space groups (B,).

    Args:
        model: the network.
        groups: (B,) space groups.
        distribution: what else the crystals are sampled from.
        streams: their random numbers.
        batch_size: crystals of a pass of the network. They are the same with any other one, up to its arithmetic.
        index: (B,) ascending numbers of the crystals' streams, by default 0 to B - 1.
        progress: show a bar with the time left.
        scored: return log-likelihoods too.
    """
    integer("batch_size", batch_size, 1)
    if not len(groups):
        return Samples(CrystalBatch.empty(), LogProb(*torch.zeros(5, 0)) if scored else None)
    index = np.arange(len(groups)) if index is None else index
    was_training = model.training
    model.eval()
    try:
        parts = []
        with tqdm(total=len(groups), unit="crystal", desc="sample", disable=not progress) as bar:
            for start in range(0, len(groups), batch_size):
                rows = slice(start, start + batch_size)
                decoder = Decoder(model, Vocabulary(distribution.bins), distribution.grammar, groups[rows])
                uniforms = streams.uniforms(index[rows], N_UNIFORMS)
                parts.append(BatchSampler(decoder, distribution, uniforms, scored).run(bar))
    finally:
        model.train(was_training)
    crystals = CrystalBatch.concatenate([crystals for crystals, _ in parts])
    if not scored:
        return Samples(crystals, None)
    scores = torch.cat([scores for _, scores in parts]).to(model.device, model.real_dtype)
    return Samples(crystals, LogProb(scores.sum(1), *scores.unbind(1)))


class BatchSampler:
    """Crystals that are sampled together, one decision each at a time.

    Every choice is a quantile of the crystal's uniform number for that decision.

    Attributes:
        index (n,): which crystals the rows of the decoder are.
        uniforms (n, N_UNIFORMS): their random numbers, in (0, 1).
        scores (n, 4): log-likelihoods of letters, elements, coordinates and lattice so far.
    """

    def __init__(self, decoder: Decoder, distribution: Distribution, uniforms: _Reals, scored: bool = False) -> None:
        self.decoder, self.distribution, self.uniforms = decoder, distribution, uniforms
        self.index = np.arange(len(decoder.states))
        self.scores = torch.zeros(len(self.index), 4, dtype=torch.float64)
        self._is_scored = scored
        config = decoder.model.config
        self._coordinate = slice(0, 3 * config.coordinate_components)
        self._lattice = slice(N_SPECIES, N_SPECIES + 13 * config.lattice_components)

    def run(self, bar: tqdm) -> tuple[CrystalBatch, Tensor]:
        """Finish all crystals and return them, and their scores, in order."""
        finished, parts, scores = [self.index[:0]], [CrystalBatch.empty()], [self.scores[:0]]
        while len(self.index):
            rows = np.flatnonzero(self.decoder.states.phase < Phase.A)
            self.decoder.step(rows, *self.choose(rows))
            self._sample_lattices(np.flatnonzero(self.decoder.states.phase == Phase.A))
            done = self.decoder.states.phase == Phase.DONE
            if done.mean() > 1 - _MIN_UNFINISHED or done.all():
                finished.append(self.index[done])
                parts.append(self.decoder.states.crystals(np.flatnonzero(done)))
                scores.append(self.scores[torch.from_numpy(done)])
                bar.update(int(done.sum()))
                self._keep(np.flatnonzero(~done))
        order = np.argsort(np.concatenate(finished))
        return CrystalBatch.concatenate(parts)[order], torch.cat(scores)[torch.from_numpy(order)]

    def choose(self, rows: _Rows) -> tuple[NDArray[np.int64], _Reals | None]:
        """Sample a letter, element or coordinate for each of ``rows`` (n,).

        Returns:
            Ids (n,), and with densities normalised values (n,).
        """
        phase, tokens, values = self.decoder.states.phase[rows], np.zeros(len(rows), np.int64), np.zeros(len(rows))
        at = phase == Phase.LETTER
        tokens[at] = self.letters(rows[at])
        at = phase == Phase.ELEMENT
        tokens[at] = self._sample_elements(rows[at])
        at = phase >= Phase.X
        numbers = self._sample_coordinates(rows[at])
        if self.distribution.bins:
            tokens[at] = N_SYMBOLS + numbers
        else:
            values[at] = numbers
        return tokens, None if self.distribution.bins else values

    def letters(self, rows: _Rows) -> NDArray[np.int64]:
        """Sample the next letters (n,) of ``rows`` (n,), 0 = STOP."""
        logits, allowed = self.decoder.output[rows, :N_LETTERS], self.decoder.states.masks[rows, :N_LETTERS]
        log_probs = self.distribution.letters(logits, torch.from_numpy(allowed).to(logits.device))
        return self._sample_symbols(rows, _LETTERS, log_probs, self._of_site(rows, _LETTER_COLUMN))

    def _sample_elements(self, rows: _Rows) -> NDArray[np.int64]:
        """Sample the ids (n,) of the next elements of ``rows`` (n,)."""
        allowed = self.decoder.states.masks[rows, FIRST_ELEMENT:N_SYMBOLS]
        logits = self.decoder.output[rows, 1:N_SPECIES]
        log_probs = self.distribution.elements(logits, torch.from_numpy(allowed).to(logits.device))
        u = self._of_site(rows, _ELEMENT_COLUMN)
        return FIRST_ELEMENT + self._sample_symbols(rows, _ELEMENTS, log_probs, u)

    def _sample_symbols(self, rows: _Rows, part: int, log_probs: Tensor, u: _Reals) -> NDArray[np.int64]:
        chosen = categorical(log_probs, u)
        if self._is_scored:
            self._add(rows, part, log_probs.gather(-1, torch.from_numpy(chosen).to(log_probs.device)[:, None])[:, 0])
        return chosen

    def _sample_coordinates(self, rows: _Rows) -> _Reals | NDArray[np.int64]:
        """Sample the next coordinates (n,) of ``rows`` (n,), in [0, 1), or their bins."""
        output, n = self.decoder.output[rows, self._coordinate], self.distribution.bins
        column = _COORDINATE_COLUMN + 2 * (self.decoder.states.phase[rows] - Phase.X)
        mixture = self.distribution.coordinate(output)
        component = torch.from_numpy(categorical(mixture.log_weights, self._of_site(rows, column)))
        one = type(mixture)(*(array.gather(-1, component.to(output.device)[:, None]) for array in mixture))
        u, is_certain = self._of_site(rows, column + 1), self.distribution.temperatures.coordinate_concentrations == 0
        numbers: NDArray[Any]
        if n:
            log_probs = one.bins(n)[:, 0]
            numbers = log_probs.argmax(-1).cpu().numpy() if is_certain else categorical(log_probs, u)
        else:
            location, concentration = (array[:, 0].cpu().double().numpy() for array in one[1:])
            angle = location if is_certain else von_mises(location, concentration, u)
            numbers = (angle / (2 * np.pi) + 0.5) % 1.0
        if self._is_scored:
            x = torch.from_numpy(numbers / n if n else numbers).to(output)
            self._add(rows, _COORDINATES, coordinate_log_prob(mixture, x, n))
        return numbers

    def _sample_lattices(self, rows: _Rows) -> None:
        """Sample the lattices of ``rows`` (n,): a component, then each of the free numbers from it."""
        mixture = self.distribution.lattice(self.decoder.output[rows, self._lattice])
        component = self.lattice_components(rows, mixture.log_weights)
        states = self.decoder.states
        while len(which := np.flatnonzero(states.phase[rows] < Phase.DONE)):
            part = rows[which]
            mean, scale = self.lattice_gaussians(part, LatticeMixture(*(a[which] for a in mixture)), component[which])
            if self.distribution.bins:
                self.decoder.step(part, N_SYMBOLS + self._lattice_bins(part, mean, scale))
            else:
                self.decoder.step(part, np.zeros(len(part), np.int64), self.lattice_values(part, mean, scale))
        if self._is_scored:
            crystals = states.crystals(rows)
            L = torch.from_numpy(normalised_lattice(crystals)).to(mixture.means)
            self._add(rows, _LATTICE, lattice_log_prob(mixture, crystals, L, self.distribution.bins))

    def lattice_components(self, rows: _Rows, log_weights: Tensor) -> NDArray[np.int64]:
        """Sample the components (n,) of the lattices of ``rows`` (n,), given log weights (n, K)."""
        return categorical(log_weights, self.uniforms[rows, _LATTICE_COLUMN])

    def lattice_gaussians(
        self, rows: _Rows, mixture: LatticeMixture, component: NDArray[np.int64]
    ) -> tuple[_Reals, _Reals]:
        """Return means and standard deviations (n,) of the next parameters of ``rows`` (n,) in given components."""
        at = torch.arange(len(rows)), torch.from_numpy(component), torch.from_numpy(self._parameter(rows))
        mean, scale = (array.cpu()[at].double().numpy() for array in mixture[1:])
        return mean, scale

    def lattice_values(self, rows: _Rows, mean: _Reals, scale: _Reals) -> _Reals:
        """Sample the next parameters of ``rows`` (n,) from truncated Gaussians, as normalised values (n,)."""
        parameter = self._parameter(rows)
        bounds = np.tile([0.0, 1.0], (len(rows), 1))
        gamma = np.flatnonzero(parameter == Phase.GAMMA - Phase.A)
        bounds[gamma] = self.decoder.states.gamma_bounds(rows[gamma])
        is_length = parameter < 3
        low, high = (_to_number(bounds[:, i], parameter) for i in range(2))
        u = self.uniforms[rows, _LATTICE_COLUMN + 1 + parameter]
        is_certain = self.distribution.temperatures.lattice_variances == 0
        value = np.clip(mean, low, high) if is_certain else truncated_normal(mean, scale, low, high, u)
        value = np.where(is_length, value, np.degrees(value))
        normalised = np.where(is_length, normalise_length(np.maximum(value, 1e-9), 1), normalise_angle(value))
        return np.clip(normalised, bounds[:, 0], bounds[:, 1])

    def _lattice_bins(self, rows: _Rows, mean: _Reals, scale: _Reals) -> NDArray[np.int64]:
        """Sample the bins (n,) of the next parameters of ``rows`` (n,), which may differ by row."""
        n, bins, parameter = self.distribution.bins, np.zeros(len(rows), np.int64), self._parameter(rows)
        for value in np.unique(parameter):
            at = np.flatnonzero(parameter == value)
            means, scales = (torch.from_numpy(array[at])[:, None, None].expand(-1, 1, 6) for array in (mean, scale))
            one = LatticeMixture(torch.zeros(len(at), 1), means, scales.clamp(min=1e-9))
            allowed = torch.from_numpy(self.decoder.states.masks[rows[at], N_SYMBOLS : N_SYMBOLS + n])
            u = self.uniforms[rows[at], _LATTICE_COLUMN + 1 + value]
            bins[at] = categorical(one.bins(int(value), n, allowed)[:, 0], u)
        return bins

    def _parameter(self, rows: _Rows) -> NDArray[np.int64]:
        """Return which lattice parameter (n,), 0 to 5, is next."""
        parameter: NDArray[np.int64] = self.decoder.states.phase[rows] - Phase.A
        return parameter

    def _of_site(self, rows: _Rows, column: int | NDArray[np.int64]) -> _Reals:
        """Return uniform numbers (n,) of the sites under construction."""
        return self.uniforms[rows, _SITE_COLUMNS * self.decoder.states.site[rows] + column]

    def _add(self, rows: _Rows, part: int, log_probs: Tensor) -> None:
        self.scores[torch.from_numpy(rows), part] += log_probs.double().cpu()

    def _keep(self, rows: _Rows) -> None:
        kept = self.decoder.take(rows)
        self.index, self.uniforms, self.scores = self.index[kept], self.uniforms[kept], self.scores[kept]


def _to_number(normalised: _Reals, parameter: NDArray[np.int64]) -> _Reals:
    """Return lengths per cube root of the atoms, and angles in radians (n,), for normalised values (n,)."""
    value = denormalise(normalised, parameter + int(Phase.A), np.ones(len(normalised), np.int64))
    return np.where(parameter < 3, value, np.radians(value))

"""Drawing crystals from the network: the distribution that `agents.crystalformer.likelihood` scores."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp
from torch import Tensor
from tqdm import tqdm

from agents.crystalformer.config import N_SPECIES
from agents.crystalformer.decoder import Decoder
from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import LogProb, coordinate_log_prob, lattice_log_prob
from agents.crystalformer.mixtures import LatticeMixture
from agents.crystalformer.network import Network
from agents.crystalformer.tokens import normalised_lattice
from crystal_env.crystal import CrystalBatch
from crystal_env.encoding import denormalise, normalise_angle, normalise_length
from crystal_env.errors import InputError
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import N_LETTERS

_Rows = NDArray[np.int64]

_LETTERS, _ELEMENTS, _COORDINATES, _LATTICE = range(4)  # columns of the scores

_AT_WORK = 0.9  # share of a batch; if it is less, finished crystals are dropped


class Drawn(NamedTuple):
    """B crystals that were drawn, with the log-likelihoods (B,) of their parts where these were asked for.

    They are what `agents.crystalformer.likelihood.score` computes for the crystals, out of the passes that drew them.
    """

    crystals: CrystalBatch
    log_prob: LogProb | None


@torch.inference_mode()
def draw_crystals(
    model: Network,
    groups: NDArray[np.int64],
    distribution: Distribution,
    rng: np.random.Generator,
    chunk: int,
    progress: bool = False,
    scored: bool = False,
) -> Drawn:
    """Return a crystal (B,) for each of the space groups (B,), ``chunk`` of them at a time."""
    if isinstance(chunk, bool) or not isinstance(chunk, int | np.integer) or chunk < 1:
        raise InputError(f"batch_size must be a positive integer, got {chunk!r}")
    if not len(groups):
        return Drawn(CrystalBatch.empty(), LogProb(*torch.zeros(5, 0)) if scored else None)
    was_training = model.training
    model.eval()
    try:
        with tqdm(total=len(groups), unit="crystal", desc="sample", disable=not progress) as bar:
            parts = [groups[start : start + chunk] for start in range(0, len(groups), chunk)]
            drawn = []
            for part in parts:
                decoder = Decoder(model, Vocabulary(distribution.bins), distribution.grammar, part)
                drawn.append(Drawing(decoder, distribution, rng, scored).run(bar))
    finally:
        model.train(was_training)
    crystals = CrystalBatch.concatenate([crystals for crystals, _ in drawn])
    if not scored:
        return Drawn(crystals, None)
    scores = torch.cat([scores for _, scores in drawn]).to(model.device, model.real_dtype)
    return Drawn(crystals, LogProb(scores.sum(1), *scores.unbind(1)))


class Drawing:
    """Crystals that are drawn side by side, one decision each at a time.

    Attributes:
        working (n,): which crystals the rows of the decoder are.
        scores (n, 4): log-likelihoods of letters, elements, coordinates and lattice so far.
    """

    def __init__(
        self, decoder: Decoder, distribution: Distribution, rng: np.random.Generator, scored: bool = False
    ) -> None:
        self.decoder, model = decoder, decoder.model
        self.working = np.arange(len(decoder.states))
        self.scores = torch.zeros(len(self.working), 4, dtype=torch.float64)
        self._is_scored = scored
        self.distribution, self.rng = distribution, rng
        self._coordinate = slice(0, 3 * model.config.coordinate_components)
        self._lattice = slice(N_SPECIES, N_SPECIES + 13 * model.config.lattice_components)

    def run(self, bar: tqdm) -> tuple[CrystalBatch, Tensor]:
        """Finish all crystals and return them, and their scores, in order."""
        places, parts, scores = [self.working[:0]], [CrystalBatch.empty()], [self.scores[:0]]
        while len(self.working):
            rows = np.flatnonzero(self.decoder.states.phase < Phase.A)
            self.decoder.step(rows, *self.choose(rows))
            self._finish(np.flatnonzero(self.decoder.states.phase == Phase.A))
            done = self.decoder.states.phase == Phase.DONE
            if done.mean() > 1 - _AT_WORK or done.all():
                places.append(self.working[done])
                parts.append(self.decoder.states.crystals(np.flatnonzero(done)))
                scores.append(self.scores[torch.from_numpy(done)])
                bar.update(int(done.sum()))
                kept = self.decoder.take(np.flatnonzero(~done))
                self.working, self.scores = self.working[kept], self.scores[torch.from_numpy(kept)]
        order = np.argsort(np.concatenate(places))
        return CrystalBatch.concatenate(parts)[order], torch.cat(scores)[torch.from_numpy(order)]

    def choose(self, rows: _Rows) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Draw a letter, element or coordinate for each of ``rows`` (n,): ids (n,), and with densities units (n,)."""
        phase, masks, output = self.decoder.states.phase[rows], self.decoder.states.masks, self.decoder.output
        tokens, units = np.zeros(len(rows), np.int64), np.zeros(len(rows))
        at = phase == Phase.LETTER
        tokens[at] = self.letters(rows[at])
        at = phase == Phase.ELEMENT
        allowed = masks[rows[at], FIRST_ELEMENT:N_SYMBOLS]
        tokens[at] = FIRST_ELEMENT + self._choices(rows[at], _ELEMENTS, output[rows[at], 1:N_SPECIES], allowed)
        at = phase >= Phase.X
        numbers = self._coordinates(rows[at], output[rows[at], self._coordinate])
        if self.distribution.bins:
            tokens[at] = N_SYMBOLS + numbers
        else:
            units[at] = numbers
        return tokens, None if self.distribution.bins else units

    def letters(self, rows: _Rows) -> NDArray[np.int64]:
        """Draw the next letters (n,) of ``rows`` (n,), 0 = STOP."""
        allowed = self.decoder.states.masks[rows, :N_LETTERS]
        return self._choices(rows, _LETTERS, self.decoder.output[rows, :N_LETTERS], allowed)

    def _finish(self, rows: _Rows) -> None:
        """Draw the lattices of ``rows`` (n,): a component, then each of the free numbers from it."""
        mixture = self.distribution.lattice(self.decoder.output[rows, self._lattice])
        component = torch.from_numpy(self.draw(mixture.log_weights))
        means, widths = (array.cpu()[torch.arange(len(rows)), component].double() for array in mixture[1:])
        states = self.decoder.states
        while len(which := np.flatnonzero(states.phase[rows] < Phase.DONE)):
            part, parameter = rows[which], states.phase[rows[which]] - Phase.A
            at = torch.from_numpy(which), torch.from_numpy(parameter)
            mean, width = means[at].numpy(), widths[at].numpy()
            if self.distribution.bins:
                self.decoder.step(part, N_SYMBOLS + self._lattice_bins(part, parameter, mean, width))
            else:
                units = self.lattice_units(part, parameter, mean, width)
                self.decoder.step(part, np.zeros(len(part), np.int64), units)
        if self._is_scored:
            crystals = states.crystals(rows)
            L = torch.from_numpy(normalised_lattice(crystals)).to(mixture.means)
            self._add(rows, _LATTICE, lattice_log_prob(mixture, crystals, L, self.distribution.bins))

    def _choices(self, rows: _Rows, part: int, logits: Tensor, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        log_probs = self.distribution.log_probs(logits, torch.from_numpy(allowed).to(logits.device))
        chosen = self.draw(log_probs)
        if self._is_scored:
            self._add(rows, part, log_probs.gather(-1, torch.from_numpy(chosen).to(logits.device)[:, None])[:, 0])
        return chosen

    def _add(self, rows: _Rows, part: int, log_probs: Tensor) -> None:
        self.scores[torch.from_numpy(rows), part] += log_probs.double().cpu()

    def draw(self, log_probs: Tensor) -> NDArray[np.int64]:
        """Draw from distributions (n, k); what has no probability is never drawn."""
        cumulative = log_probs.double().exp().cumsum(-1).cpu().numpy()
        threshold = self.rng.random(len(cumulative)) * cumulative[:, -1]
        return (cumulative <= threshold[:, None]).sum(1)

    def _coordinates(self, rows: _Rows, output: Tensor) -> NDArray[np.float64] | NDArray[np.int64]:
        """Draw coordinates in [0, 1), or their bins, from mixtures (n, 3K)."""
        mixture, n = self.distribution.coordinate(output), self.distribution.bins
        component = torch.from_numpy(self.draw(mixture.log_weights)).to(output.device)[:, None]
        one = type(mixture)(*(array.gather(-1, component) for array in mixture))
        numbers: NDArray[Any]
        if n:
            log_probs = one.bins(n)[:, 0]
            numbers = log_probs.argmax(-1).cpu().numpy() if self._is_greedy else self.draw(log_probs)
        else:
            location, concentration = (array[:, 0].cpu().double().numpy() for array in one[1:])
            angle = location if self._is_greedy else self.rng.vonmises(location, concentration)
            numbers = (angle / (2 * np.pi) + 0.5) % 1.0
        if self._is_scored:
            x = torch.from_numpy(numbers / n if n else numbers).to(output)
            self._add(rows, _COORDINATES, coordinate_log_prob(mixture, x, n))
        return numbers

    @property
    def _is_greedy(self) -> bool:
        return self.distribution.temperature == 0

    def _lattice_bins(
        self, rows: _Rows, parameter: NDArray[np.int64], mean: NDArray[np.float64], width: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Draw bins (n,) of lattice parameters (n,), which may differ by row."""
        n, bins = self.distribution.bins, np.zeros(len(rows), np.int64)
        for value in np.unique(parameter):
            at = np.flatnonzero(parameter == value)
            means, widths = (torch.from_numpy(array[at])[:, None, None].expand(-1, 1, 6) for array in (mean, width))
            one = LatticeMixture(torch.zeros(len(at), 1), means, widths.clamp(min=1e-9))
            allowed = torch.from_numpy(self.decoder.states.masks[rows[at], N_SYMBOLS : N_SYMBOLS + n])
            bins[at] = self.draw(one.bins(int(value), n, allowed)[:, 0])
        return bins

    def lattice_units(
        self, rows: _Rows, parameter: NDArray[np.int64], mean: NDArray[np.float64], width: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Draw normalised values (n,) of lattice parameters (n,) from Gaussians that are cut off at their bounds."""
        bounds = np.tile([0.0, 1.0], (len(rows), 1))
        gamma = np.flatnonzero(parameter == Phase.GAMMA - Phase.A)
        bounds[gamma] = self.decoder.states.gamma_bounds(rows[gamma])
        is_length = parameter < 3
        low, high = (_to_number(bounds[:, i], parameter) for i in range(2))
        value = np.clip(mean, low, high) if self._is_greedy else _truncated_normal(mean, width, low, high, self.rng)
        value = np.where(is_length, value, np.degrees(value))
        unit = np.where(is_length, normalise_length(np.maximum(value, 1e-9), 1), normalise_angle(value))
        return np.clip(unit, bounds[:, 0], bounds[:, 1])


def _to_number(unit: NDArray[np.float64], parameter: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return normalised lengths and angles in radians (n,) for normalised values (n,)."""
    value = denormalise(unit, parameter + int(Phase.A), np.ones(len(unit), np.int64))
    return np.where(parameter < 3, value, np.radians(value))


def _truncated_normal(
    mean: NDArray[np.float64],
    width: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw from Gaussians that are cut off below and above, by inversion, exact in both tails."""
    sign = np.where(low > mean, -1.0, 1.0)  # the upper tail is mirrored into the lower one
    first, last = sign * (low - mean) / width, sign * (high - mean) / width
    log_first, log_last = log_ndtr(np.minimum(first, last)), log_ndtr(np.maximum(first, last))
    share = rng.random(len(mean))
    z = ndtri_exp(np.logaddexp(np.log1p(-share) + log_first, np.log(share) + log_last))
    return np.clip(mean + sign * z * width, low, high)

"""Rates of CrystalFormer: sampling, training and scoring, compared with slower ways and the machine's limit.

Run ``python -m benchmarks.speed.model``. The network has the paper's size and new weights. Letters are sampled, then
replaced by those of real crystals (``mp20_val.csv.gz`` in the data folder), so that lengths and space groups are those
of MP-20; all else is the network's. Rates are medians of several rounds.
"""

import cProfile
import pstats
import resource
from functools import partial

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.decoder import Decoder, token_position
from agents.crystalformer.distribution import Distribution, any_crystal
from agents.crystalformer.likelihood import log_prob, score
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import N_UNIFORMS, BatchSampler
from agents.crystalformer.tokens import Tokens
from agents.training.micro_batches import micro_batches
from benchmarks.speed.timing import seconds
from crystal_env import CrystalBatch, load_crystals
from crystal_env.dataset import data_folder
from crystal_env.vocabulary import Vocabulary
from crystal_env.wyckoff import N_SLOTS

_DISTRIBUTION = Distribution(any_crystal())
_BATCH = 128  # crystals that `CrystalFormer.sample` samples in parallel


class Recomputing(Decoder):
    """Runs the network on the whole prefix for every new token: no cache."""

    def _feed(
        self,
        row: NDArray[np.int64],
        position: NDArray[np.int64],
        symbol: NDArray[np.int64],
        coordinate: NDArray[np.float64],
    ) -> None:
        if not len(row):
            return
        rows = np.unique(row)
        np.maximum.at(self._length, row, position + 1)
        states = self.states.take(rows)
        hidden = self.model.hidden(Tokens.from_states(states, self.model.real_dtype, self.model.device))
        index = torch.from_numpy(rows)
        self.hidden[index] = hidden[torch.arange(len(rows)), torch.from_numpy(token_position(states))]
        self.output[index] = self.model.read(self.hidden[index])


class Imposed(BatchSampler):
    """Samples crystals with the groups and letters of given ones."""

    def __init__(self, model: CrystalFormer, crystals: CrystalBatch, decoder: type[Decoder]) -> None:
        made = decoder(model, Vocabulary(_DISTRIBUTION.bins), _DISTRIBUTION.grammar, crystals.G)
        super().__init__(made, _DISTRIBUTION, RandomStreams(0).uniforms(np.arange(len(crystals)), N_UNIFORMS))
        self.crystals = crystals

    def letters(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample letters and return those of the given crystals."""
        super().letters(rows)
        return self.crystals.W[self.index[rows], self.decoder.states.site[rows]]


@torch.inference_mode()
def sample(model: CrystalFormer, crystals: CrystalBatch, decoder: type[Decoder] = Decoder) -> None:
    """Sample crystals like the given ones."""
    with tqdm(disable=True) as bar:
        for start in range(0, len(crystals), _BATCH):
            Imposed(model, crystals[start : start + _BATCH], decoder).run(bar)


@torch.inference_mode()
def full_length_forward(model: CrystalFormer, crystals: CrystalBatch) -> None:
    """Run the network once on all 105 tokens; the published code does so 105 times for a batch of crystals."""
    model(_padded(Tokens.from_crystals(crystals)))


def train(model: CrystalFormer, crystals: CrystalBatch, max_tokens: int = 2_000) -> None:
    """Compute the gradient of a batch, split into parts of similar length."""
    model.zero_grad()
    for part in micro_batches(crystals.n_sites(), max_tokens):
        (-score(model, crystals[part], _DISTRIBUTION).total.mean()).backward()


def train_padded(model: CrystalFormer, crystals: CrystalBatch) -> None:
    """Compute the gradient of a batch, all crystals padded to 105 tokens."""
    model.zero_grad()
    full = CrystalBatch.empty(1)
    full.G[:], full.W[:], full.A[:] = 1, 1, 1
    for start in range(0, len(crystals), 16):
        batch = CrystalBatch.concatenate([crystals[start : start + 16], full])  # pads the others
        (-score(model, batch, _DISTRIBUTION).total[:-1].mean()).backward()


def _padded(tokens: Tokens) -> Tokens:
    missing = N_SLOTS + 1 - tokens.W.shape[1]
    pad = torch.nn.functional.pad
    return tokens._replace(
        W=pad(tokens.W, (0, missing)), A=pad(tokens.A, (0, missing)), XYZ=pad(tokens.XYZ, (0, 0, 0, missing))
    )


def flops_per_crystal(model: CrystalFormer, crystals: CrystalBatch) -> float:
    """Return the operations of one pass over every token of a crystal, weights and attention."""
    c, tokens = model.config, 5 * crystals.n_sites() + 1
    weights = sum(p.numel() for p in model.blocks.parameters() if p.dim() > 1)  # type: ignore[attr-defined]
    attention = 2 * c.n_layers * c.n_heads * c.key_size * (tokens + 1) / 2
    return float((2 * tokens * (weights + attention)).mean())


def matmul_rate(dtype: torch.dtype, rounds: int) -> float:
    """Return the rate of a product of two 2048 x 2048 matrices in operations per second."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    return 2 * 2048**3 / seconds(lambda: a @ b, rounds)


def _row(name: str, size: int, time: float, flops: float, peak: float) -> None:
    rate = size / time
    print(f"{name:<52}{size:>6}{rate:>12.4g}{rate * flops / peak:>18.1%}", flush=True)


def main(rounds: int = 3, threads: int = 2, slow: bool = True, profile: bool = False) -> None:
    """Print rates in crystals per second and fractions of the machine's matrix-multiply rate.

    Args:
        rounds: Rounds of every measurement; the median is printed.
        threads: Threads of PyTorch.
        slow: Measure also what takes minutes: sampling without a cache, and at full length.
        profile: Show instead where sampling spends its time.
    """
    torch.set_num_threads(threads)
    model = CrystalFormer(CrystalFormerConfig()).eval()
    crystals = load_crystals(data_folder() / "mp20_val.csv.gz").crystals
    crystals = crystals[np.random.default_rng(0).permutation(len(crystals))[:1000]]
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(sample, model, crystals[:512])
        pstats.Stats(profiler).sort_stats("tottime").print_stats(16)
        return
    flops = flops_per_crystal(model, crystals)
    peak, peak16 = matmul_rate(torch.float32, 5), matmul_rate(torch.bfloat16, 5)
    sites = crystals.n_sites().mean()
    print(f"{model.n_parameters:,} parameters, {sites:.2f} sites and {flops / 1e9:.3f} GFLOP a crystal")
    print(f"{threads} threads: matrix multiply {peak / 1e9:.0f} GFLOP/s in float32, {peak16 / 1e9:.0f} in bfloat16\n")
    print(f"{'':<52}{'batch':>6}{'crystals/s':>12}{'of matmul rate':>18}")
    for size in (100, 1000):
        _row("sample", size, seconds(partial(sample, model, crystals[:size]), rounds), flops, peak)
    with torch.inference_mode():
        _row("log_prob", 1000, seconds(lambda: log_prob(model, crystals, _DISTRIBUTION), rounds), flops, peak)
    trained = model.train()
    _row("train", 256, seconds(lambda: train(trained, crystals[:256]), rounds), 3 * flops, peak)
    _row(
        "train, padded to 105 tokens",
        64,
        seconds(lambda: train_padded(trained, crystals[:64]), rounds),
        3 * flops,
        peak,
    )
    model.eval()
    half = CrystalFormer(CrystalFormerConfig()).bfloat16().eval()
    _row("sample in bfloat16", 1000, seconds(lambda: sample(half, crystals), 1), flops, peak16)
    print(f"largest change of a log-probability by bfloat16: {_change(model, half, crystals):.2g} nats")
    if slow:
        _row("sample, no cache", 100, seconds(lambda: sample(model, crystals[:100], Recomputing), 1), flops, peak)
        once = seconds(lambda: full_length_forward(model, crystals[:100]), 1)
        _row("sample, 105 passes of full length (one measured)", 100, 105 * once, flops, peak)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


@torch.inference_mode()
def _change(model: CrystalFormer, half: CrystalFormer, crystals: CrystalBatch) -> float:
    totals = [log_prob(m, crystals, _DISTRIBUTION).total for m in (model, half)]
    return float((totals[0] - totals[1]).abs().max())


if __name__ == "__main__":
    tyro.cli(main)

"""The key/value cache of unfinished crystals, and the new tokens that continue them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.crystalformer.config import CrystalFormerConfig

_BLOCK = 16  # attention covers a multiple of so many tokens: whole vector registers


class KeyValueCache:
    """Keys and values of the tokens of unfinished crystals.

    Where the residual stream is not wider than a head, its normalised state serves as the values of all heads, and the
    value and output matrices are multiplied into one. Such a shared-value cache saves about half of the memory and a
    fifth of the arithmetic.

    Attributes:
        keys: by layer (B, H, S, K), for up to S tokens of B crystals.
        values: by layer (B, H, S, K), or (B, S, D) where values are shared.
        output: by layer weight and bias of the projection after the attention.
    """

    def __init__(self, config: CrystalFormerConfig, size: int, output: list[tuple[Tensor, Tensor]]) -> None:
        self.output, like = output, output[0][0]
        keys = (size, config.n_heads, 0, config.key_size)
        values = (size, 0, config.model_size) if shares_values(config) else keys
        self.keys = [like.new_zeros(keys) for _ in range(config.n_layers)]
        self.values = [like.new_zeros(values) for _ in range(config.n_layers)]

    @property
    def capacity(self) -> int:
        """Tokens of a crystal that fit."""
        return self.keys[0].shape[2]

    def grow(self, tokens: int, size: int) -> None:
        """Raise the capacity to at least that many tokens, of the first ``size`` crystals."""
        missing = -(-tokens // _BLOCK) * _BLOCK - self.capacity
        if missing > 0:
            for caches in (self.keys, self.values):
                for layer, cached in enumerate(caches):  # one after the other, so that little is held twice
                    caches[layer] = F.pad(cached[:size], (0, 0, 0, missing))

    def move(self, rows: Tensor, to: Tensor, tokens: int) -> None:
        """Copy the first tokens of crystals ``rows`` (n,) over those of others (n,)."""
        for keys, values in zip(self.keys, self.values, strict=True):
            keys[to, :, :tokens] = keys[rows, :, :tokens]
            values[to, ..., :tokens, :] = values[rows, ..., :tokens, :]


def shares_values(config: CrystalFormerConfig) -> bool:
    """Return whether all heads share the residual stream as their values: it is not wider than a head."""
    return config.model_size <= config.key_size


class NewTokens(NamedTuple):
    """N tokens that continue B crystals of a cache.

    Attributes:
        row (N,): row of the cache.
        slot (N,): 0, 1 ... among the new tokens of the row.
        position (N,): in the sequence, five a site.
        G (N,): space group.
        symbol (N,): letter or element of a token that is one, else 0.
        coordinate (N,): fractional coordinate of a token that is one, else 0.
        size: number B of crystals.
        width: most new tokens T of a row.
        longest: tokens of the longest crystal, the new ones included.
    """

    row: Tensor
    slot: Tensor
    position: Tensor
    G: Tensor
    symbol: Tensor
    coordinate: Tensor
    size: int
    width: int
    longest: int


class CacheIndices(NamedTuple):
    """Where the heads of N new tokens are in flattened arrays, the same in all layers.

    Attributes:
        keys (N H,): rows of a cache (B H S, K).
        shared_values (N,): rows of a cache (B S, D).
        queries (N H,): rows of queries (B H T, K).
        mask (B, 1, T, S): 0 where a new token attends, -inf elsewhere.
        rotary (2, N, 1, K): cosines and sines of the positions.
    """

    keys: Tensor
    shared_values: Tensor
    queries: Tensor
    mask: Tensor
    rotary: Tensor

    @classmethod
    def of(cls, new: NewTokens, cache: KeyValueCache, rotary: Tensor) -> "CacheIndices":
        """Return the indices of new tokens in a cache; ``rotary`` (2, positions, K) is that of the network."""
        head = torch.arange(cache.keys[0].shape[1], device=new.row.device)
        heads = new.row[:, None] * len(head) + head
        last = torch.zeros(new.size, new.width, dtype=torch.long, device=new.row.device)
        last[new.row, new.slot] = new.position
        seen = min(-(-new.longest // _BLOCK) * _BLOCK, cache.capacity)
        hidden = torch.arange(seen, device=new.row.device) > last[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=rotary.dtype, device=rotary.device).masked_fill_(hidden, -torch.inf)
        return cls(
            (heads * cache.capacity + new.position[:, None]).flatten(),
            new.row * cache.capacity + new.position,
            (heads * new.width + new.slot[:, None]).flatten(),
            mask[:, None],
            rotary[:, new.position, None],
        )

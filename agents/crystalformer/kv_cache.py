"""What the network has computed for unfinished crystals, and what they go on with."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.crystalformer.config import CrystalFormerConfig

_BLOCK = 16  # tokens that attention looks at are a multiple of it: whole vector registers


class KeyValueCache:
    """Keys and values of the tokens that unfinished crystals consist of so far.

    Where the residual stream is not wider than a head, its normalised state takes the place of the values: every head
    mixes it alike, and what is left of the value and output matrices is one product of both. That saves about half of
    the memory and a fifth of the arithmetic.

    Attributes:
        keys: by layer (B, H, S, K), with room for S tokens of B crystals.
        values: by layer (B, H, S, K), or (B, S, D) where `is_narrow`.
        output: by layer weight and bias of what follows the mixing of the values.
    """

    def __init__(self, config: CrystalFormerConfig, size: int, output: list[tuple[Tensor, Tensor]]) -> None:
        self.output, like = output, output[0][0]
        keys = (size, config.n_heads, 0, config.key_size)
        values = (size, 0, config.model_size) if is_narrow(config) else keys
        self.keys = [like.new_zeros(keys) for _ in range(config.n_layers)]
        self.values = [like.new_zeros(values) for _ in range(config.n_layers)]

    @property
    def room(self) -> int:
        """Tokens of a crystal that there is room for."""
        return self.keys[0].shape[2]

    def grow(self, tokens: int, size: int) -> None:
        """Make room for at least that many tokens, of the first ``size`` crystals."""
        missing = -(-tokens // _BLOCK) * _BLOCK - self.room
        if missing > 0:
            for caches in (self.keys, self.values):
                for layer, cached in enumerate(caches):  # one after the other, so that little is held twice
                    caches[layer] = F.pad(cached[:size], (0, 0, 0, missing))

    def move(self, rows: Tensor, to: Tensor, tokens: int) -> None:
        """Copy the first tokens of crystals ``rows`` (n,) to the places of others (n,)."""
        for keys, values in zip(self.keys, self.values, strict=True):
            keys[to, :, :tokens] = keys[rows, :, :tokens]
            values[to, ..., :tokens, :] = values[rows, ..., :tokens, :]


def is_narrow(config: CrystalFormerConfig) -> bool:
    """Return whether a head is at least as wide as the residual stream."""
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


class Places(NamedTuple):
    """Where the heads of N new tokens are, the same in all layers.

    Attributes:
        in_keys (N H,): rows of a cache (B H S, K).
        in_stream (N,): rows of a cache (B S, D).
        in_queries (N H,): rows of queries (B H T, K).
        mask (B, 1, T, S): 0 where a new token looks, -inf elsewhere; S tokens are looked at.
        rotary (2, N, 1, K): cosines and sines of the positions.
    """

    in_keys: Tensor
    in_stream: Tensor
    in_queries: Tensor
    mask: Tensor
    rotary: Tensor

    @classmethod
    def of(cls, new: NewTokens, cache: KeyValueCache, rotary: Tensor) -> "Places":
        """Work out the places of new tokens in a cache; ``rotary`` (2, positions, K) is that of the network."""
        head = torch.arange(cache.keys[0].shape[1], device=new.row.device)
        heads = new.row[:, None] * len(head) + head
        last = torch.zeros(new.size, new.width, dtype=torch.long, device=new.row.device)
        last[new.row, new.slot] = new.position
        seen = min(-(-new.longest // _BLOCK) * _BLOCK, cache.room)
        hidden = torch.arange(seen, device=new.row.device) > last[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=rotary.dtype, device=rotary.device).masked_fill_(hidden, -torch.inf)
        return cls(
            (heads * cache.room + new.position[:, None]).flatten(),
            new.row * cache.room + new.position,
            (heads * new.width + new.slot[:, None]).flatten(),
            mask[:, None],
            rotary[:, new.position, None],
        )

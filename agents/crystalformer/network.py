"""CrystalFormer: the transformer of the paper, in PyTorch.

A crystal is five tokens a site, its Wyckoff letter, element and three coordinates, then one letter token 0 that says
STOP. There is no start token: the space group enters every token, and the first letter has a small network of its own.
The output at each token describes the next decision, that at STOP the lattice as well.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.crystalformer.config import N_SPECIES, CrystalFormerConfig
from agents.crystalformer.kv_cache import CacheIndices, KeyValueCache, NewTokens, shares_values
from agents.crystalformer.tokens import Tokens
from crystal_env.wyckoff import N_GROUPS, N_LETTERS, N_SLOTS, tables

MAX_TOKENS = 5 * N_SLOTS + 1
_FOURIER_PHASES = 2  # sine and cosine
_ROTARY_BASE = 10_000
_INITIAL_SCALE = 0.02  # standard deviation of new weights


class Outputs(NamedTuple):
    """Raw outputs of the network at the decisions of B crystals in n slots, without masks.

    Attributes:
        letters (B, n, 28): logits of the letter of each slot.
        elements (B, n, 119): logits of its element, 0 = pad.
        coordinates (B, n - 1, 3, 3 Kx): von Mises mixtures of its coordinates: logits, locations, concentrations.
        lattice (B, n, 13 Kl): Gaussian mixture of the lattice, if the slot is the pad: logits, means, scales.
    """

    letters: Tensor
    elements: Tensor
    coordinates: Tensor
    lattice: Tensor


class Attention(nn.Module):
    """Causal self-attention with rotary positions; the size of a head is independent of the model size."""

    def __init__(self, config: CrystalFormerConfig) -> None:
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.attention_dropout
        inner = config.n_heads * config.key_size
        self.qkv = nn.Linear(config.model_size, 3 * inner)
        self.out = nn.Linear(inner, config.model_size)

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        """Let tokens (B, T, D) attend to themselves and to those before; ``rotary`` is (2, T, K)."""
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, K) each
        q, k = rotate(q, rotary), rotate(k, rotary)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)  # (B, H, T, K)
        return self.out(y.transpose(1, 2).reshape(B, T, -1))  # (B, T, H K) -> (B, T, D)

    def extend(
        self, x: Tensor, keys: Tensor, values: Tensor, output: tuple[Tensor, Tensor], indices: CacheIndices
    ) -> Tensor:
        """Write new tokens (N, D) into the cache, and let them attend to themselves and to those before.

        Args:
            x: (N, D) inputs, tokens of all rows in one list.
            keys: (B, H, S, K).
            values: (B, H, S, K), or (B, S, D): see `KeyValueCache`.
            output: weight and bias, likewise.
            indices: where the tokens are in the cache.
        """
        is_shared = values.dim() == 3
        B, _, T, S = indices.mask.shape
        projected = F.linear(x, *self._queries_and_keys()) if is_shared else self.qkv(x)
        q, k, *v = projected.view(len(x), -1, self.n_heads, keys.shape[-1]).unbind(1)  # (N, H, K) each
        keys.view(-1, keys.shape[-1]).index_copy_(0, indices.keys, rotate(k, indices.rotary).flatten(0, 1))
        if is_shared:
            values.view(-1, values.shape[-1]).index_copy_(0, indices.shared_values, x)
        else:
            values.view(-1, values.shape[-1]).index_copy_(0, indices.keys, v[0].flatten(0, 1))
        queries = q.new_zeros(B * self.n_heads * T, keys.shape[-1])
        queries.index_copy_(0, indices.queries, rotate(q, indices.rotary).flatten(0, 1) * keys.shape[-1] ** -0.5)
        scores = queries.view(B, self.n_heads, T, -1) @ keys[:B, :, :S].transpose(-1, -2)  # (B, H, T, S)
        weights = scores.add_(indices.mask).softmax(-1)
        # values shared by the heads are (B, S, D), so that y is (B, H T, D), others (B, H, S, K): y is (B, H, T, K)
        y = weights.flatten(1, 2) @ values[:B, :S] if is_shared else weights @ values[:B, :, :S]
        y = y.reshape(B * self.n_heads * T, -1)[indices.queries].view(len(x), -1)  # (N, H D) or (N, H K)
        return F.linear(y, *output)

    def output(self, shared_values: bool) -> tuple[Tensor, Tensor]:
        """Return weight (D, ...) and bias (D,) of the projection after the attention, as a cache needs them."""
        return self._values_and_out() if shared_values else (self.out.weight, self.out.bias)

    def _queries_and_keys(self) -> tuple[Tensor, Tensor]:
        """Return weight (2 H K, D) and bias (2 H K,) of queries and keys alone."""
        size = 2 * len(self.qkv.bias) // 3
        return self.qkv.weight[:size], self.qkv.bias[:size]

    def _values_and_out(self) -> tuple[Tensor, Tensor]:
        """Return weight (D, H D) and bias (D,) of the value and output layers as one."""
        size = 2 * len(self.qkv.bias) // 3
        value = self.qkv.weight[size:].unflatten(0, (self.n_heads, -1))  # (H, K, D)
        out = self.out.weight.unflatten(1, (self.n_heads, -1))  # (D, H, K)
        bias = self.out.bias + self.out.weight @ self.qkv.bias[size:]  # attention weights add up to one
        return torch.einsum("dhk,hke->dhe", out, value).flatten(1), bias


class Block(nn.Module):
    """Attention and a feed-forward layer, each on the normalised residual stream."""

    def __init__(self, config: CrystalFormerConfig) -> None:
        super().__init__()
        D = config.model_size
        self.attention_norm = nn.LayerNorm(D)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(D)
        self.feed_forward = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU("tanh"), nn.Linear(4 * D, D))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, rotary: Tensor) -> Tensor:
        """Return the residual stream (B, T, D) after the block."""
        h = h + self.drop(self.attention(self.attention_norm(h), rotary))
        return h + self.drop(self.feed_forward(self.feed_forward_norm(h)))

    def extend(
        self, h: Tensor, keys: Tensor, values: Tensor, output: tuple[Tensor, Tensor], indices: CacheIndices
    ) -> Tensor:
        """Return the residual stream (N, D) of new tokens after the block."""
        h = h + self.attention.extend(self.attention_norm(h), keys, values, output, indices)
        return h + self.feed_forward(self.feed_forward_norm(h))


class Network(nn.Module):
    """The network. `forward` scores whole crystals, `extend` continues unfinished ones.

    Args:
        config: the sizes, by default those of the paper.
        seed: of the weights.
    """

    rotary: Tensor
    multiplicity: Tensor

    def __init__(self, config: CrystalFormerConfig | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config or CrystalFormerConfig()
        with torch.random.fork_rng(devices=()):  # the layers' own random weights are not used
            self._build(self.config)
        self._initialise(torch.Generator().manual_seed(seed))

    def _build(self, config: CrystalFormerConfig) -> None:
        E, D, Fourier = config.embed_size, config.model_size, _FOURIER_PHASES * config.n_frequencies
        self.group_embedding = nn.Embedding(N_GROUPS + 1, E, padding_idx=0)
        self.letter_embedding = nn.Embedding(N_LETTERS, E)
        self.element_embedding = nn.Embedding(N_SPECIES, E)
        self.first_letter: nn.Module
        if config.first_letter_size:
            hidden = config.first_letter_size
            self.first_letter = nn.Sequential(nn.Linear(E, hidden), nn.GELU("tanh"), nn.Linear(hidden, N_LETTERS))
        else:
            self.first_letter = nn.Embedding(N_GROUPS + 1, N_LETTERS, padding_idx=0)
        self.letter_input = nn.Linear(2 * E + 1, D)  # the multiplicity enters as a number
        self.element_input = nn.Linear(2 * E, D)
        self.coordinate_inputs = nn.ModuleList(nn.Linear(E + Fourier, D) for _ in range(3))
        self.blocks: Iterable[Block] = nn.ModuleList(Block(config) for _ in range(config.n_layers))  # type: ignore[assignment]
        self.final_norm = nn.LayerNorm(D)
        self.head = nn.Linear(D, config.output_size)
        self.register_buffer("rotary", rotary_table(config.key_size), persistent=False)
        self.register_buffer("multiplicity", torch.from_numpy(tables().multiplicity), persistent=False)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Initialise the weights: normal, smaller by sqrt(2 n_layers) where they write into the residual stream."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(float("norm" in name and name.endswith("weight")))
            elif not parameter.is_meta:
                writes = name.endswith(("attention.out.weight", "feed_forward.2.weight"))
                parameter.normal_(0.0, _INITIAL_SCALE / (2 * self.config.n_layers) ** (writes / 2), generator=generator)
        self.group_embedding.weight[0] = 0

    @property
    def n_parameters(self) -> int:
        """Number of parameters, the unused row of group 0 not counted."""
        unused = self.config.embed_size + (0 if self.config.first_letter_size else N_LETTERS)
        return sum(parameter.numel() for parameter in self.parameters()) - unused

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.head.weight.device

    @property
    def real_dtype(self) -> torch.dtype:
        """The precision of outputs and densities: that of the parameters, at least float32."""
        return torch.promote_types(self.head.weight.dtype, torch.float32)

    def forward(self, tokens: Tokens) -> Outputs:
        """Return the outputs at every decision of given crystals (teacher forcing).

        Of the last of the n slots only the letter is a token, so that one slot more than there are sites suffices.
        """
        B, n = tokens.W.shape
        out = F.pad(self.read(self.hidden(tokens)), (0, 0, 0, 4)).view(B, n, 5, -1)
        letters = torch.cat([self.first_letters(tokens.G)[:, None], out[:, :-1, 4, :N_LETTERS]], dim=1)
        split = N_SPECIES + 13 * self.config.lattice_components
        coordinates = out[:, :-1, 1:4, : 3 * self.config.coordinate_components]
        return Outputs(letters, out[:, :, 0, :N_SPECIES], coordinates, out[:, :, 0, N_SPECIES:split])

    def hidden(self, tokens: Tokens) -> Tensor:
        """Return the normalised residual stream (B, 5n - 4, D) after the last layer."""
        h = self._embedded(tokens)
        rotary = self.rotary[:, : h.shape[1]].to(h.dtype)
        for block in self.blocks:
            h = block(h, rotary)
        return self.final_norm(h)

    def read(self, hidden: Tensor) -> Tensor:
        """Return the outputs (..., O) of a normalised residual stream (..., D)."""
        return self.head(hidden).to(self.real_dtype)

    def first_letters(self, G: Tensor) -> Tensor:
        """Return the logits (B, 28) of the first letters, given groups (B,)."""
        logits = self.first_letter(self.group_embedding(G) if self.config.first_letter_size else G)
        return logits.to(self.real_dtype)

    def new_cache(self, size: int) -> KeyValueCache:
        """Return a cache for unfinished crystals (B,), good for as long as the weights stay as they are."""
        shared = shares_values(self.config)
        return KeyValueCache(self.config, size, [block.attention.output(shared) for block in self.blocks])

    def extend(self, cache: KeyValueCache, new: NewTokens) -> Tensor:
        """Write new tokens (N,) into the cache and return their normalised residual stream (N, D)."""
        h, indices = self._embedded_new(new), CacheIndices.of(new, cache, self.rotary.to(self.head.weight.dtype))
        layers = zip(self.blocks, cache.keys, cache.values, cache.output, strict=True)
        for block, keys, values, output in layers:
            h = block.extend(h, keys, values, output, indices)
        return self.final_norm(h)

    def _embedded(self, tokens: Tokens) -> Tensor:
        G = tokens.G[:, None].expand_as(tokens.W)
        kinds = [self._letter(G, tokens.W), self._element(G, tokens.A)]
        kinds += [self._coordinate(axis, G, tokens.XYZ[:, :, axis]) for axis in range(3)]
        return torch.stack(kinds, dim=2).flatten(1, 2)[:, :-4]  # (B, 5n - 4, D)

    def _embedded_new(self, new: NewTokens) -> Tensor:
        kind = new.position % 5
        h = self.head.weight.new_empty(len(kind), self.config.model_size)
        for s in range(5):
            rows = (kind == s).nonzero()[:, 0]
            G, symbol = new.G[rows], new.symbol[rows]
            if s < 2:
                h[rows] = self._letter(G, symbol) if s == 0 else self._element(G, symbol)
            else:
                h[rows] = self._coordinate(s - 2, G, new.coordinate[rows])
        return h

    def _letter(self, G: Tensor, W: Tensor) -> Tensor:
        multiplicity = self.multiplicity[G, W, None].to(self.head.weight.dtype)
        return self.letter_input(torch.cat([self.group_embedding(G), self.letter_embedding(W), multiplicity], dim=-1))

    def _element(self, G: Tensor, A: Tensor) -> Tensor:
        return self.element_input(torch.cat([self.group_embedding(G), self.element_embedding(A)], dim=-1))

    def _coordinate(self, axis: int, G: Tensor, x: Tensor) -> Tensor:
        frequency = torch.arange(1, self.config.n_frequencies + 1, device=x.device)
        angle = 2 * torch.pi * x[..., None] * frequency
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(self.head.weight.dtype)
        return self.coordinate_inputs[axis](torch.cat([self.group_embedding(G), waves], dim=-1))


def rotary_table(key_size: int) -> Tensor:
    """Return cosines and sines (2, MAX_TOKENS, key_size) of the rotary positions in float64, halves alike."""
    frequency = _ROTARY_BASE ** (-torch.arange(0, key_size, 2, dtype=torch.float64) / key_size)
    angle = torch.arange(MAX_TOKENS, dtype=torch.float64)[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn the pairs (j, j + K/2) of the last axis of ``x`` by the angles of ``rotary`` (2, ..., K)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * rotary[0] + turned * rotary[1]

"""What a plain network sees of the environment's observation."""

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from crystal_env.errors import InputError
from crystal_env.vocabulary import Phase
from crystal_env.wyckoff import N_GROUPS


class TokenFeatures(BaseFeaturesExtractor):
    """Embeds space group, phase and every token of a discrete observation and concatenates the embeddings.

    Args:
        observation_space: of ``CrystalGen-v0`` or one of its variants in discrete mode.
        size: length of an embedding.
        max_tokens: number of leading tokens that are embedded.

    Raises:
        ValueError: if the space is not the one-dimensional box of tokens.
    """

    def __init__(self, observation_space: spaces.Box, size: int = 16, max_tokens: int = 107) -> None:
        if not isinstance(observation_space, spaces.Box) or observation_space.dtype.kind != "i":
            raise InputError(f"observation_space must be the box of integers of CrystalGen-v0, got {observation_space}")
        n_tokens = min(max_tokens, observation_space.shape[0] - 2)
        super().__init__(observation_space, features_dim=size * (n_tokens + 2))
        self._n_tokens = n_tokens
        self.group = nn.Embedding(N_GROUPS + 1, size)
        self.phase = nn.Embedding(len(Phase), size)
        self.token = nn.Embedding(int(observation_space.high[2:].max()) + 1, size, padding_idx=0)

    def forward(self, observations: Tensor) -> Tensor:
        """Return features (B, size * (n_tokens + 2)) of observations (B, T)."""
        ids = observations.long()
        parts = [self.group(ids[:, :1]), self.phase(ids[:, 1:2]), self.token(ids[:, 2 : 2 + self._n_tokens])]
        return torch.cat(parts, dim=1).flatten(1)  # (B, n_tokens + 2, size) -> (B, features)

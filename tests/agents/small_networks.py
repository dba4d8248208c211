"""Small networks for tests, with separate and with shared values in the cache."""

import numpy as np
import torch

from agents import CrystalFormer, CrystalFormerConfig
from crystal_env.wyckoff import N_GROUPS

TINY = CrystalFormerConfig(
    n_layers=2,
    n_heads=3,
    key_size=8,
    model_size=16,
    embed_size=8,
    first_letter_size=12,
    n_frequencies=3,
    coordinate_components=4,
    lattice_components=2,
)
NARROW = {"key_size": 16, "first_letter_size": 0, "n_layers": 1, "coordinate_components": 60}
TABLE = CrystalFormerConfig(
    **(TINY.to_dict() | NARROW)
)  # a residual stream no wider than a head, a table, more outputs
GROUPS = np.random.default_rng(0).permutation(np.concatenate([np.arange(1, N_GROUPS + 1), np.repeat([1, 2, 5, 8], 5)]))


def lively(config: CrystalFormerConfig, dtype: torch.dtype = torch.float64) -> CrystalFormer:
    """A network whose every input matters: new ones are almost constant."""
    torch.set_default_dtype(torch.float64)
    try:
        model = CrystalFormer(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        scale = 1 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.to(dtype)

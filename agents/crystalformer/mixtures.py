"""The densities of numbers: mixtures of von Mises distributions for coordinates, of Gaussians for the lattice.

A coordinate x in [0, 1) is an angle 2 pi (x - 1/2); the lattice is six numbers, lengths in Å per cube root of the
number of atoms and angles in radians. Where a number is bounded, each component is a truncated Gaussian, so that a
component sampled by its weight and then its numbers have exactly the density that is scored.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crystal_env import encoding
from crystal_env.encoding import ANGLE_BOUNDS, LENGTH_BOUNDS, gamma_cosines
from crystal_env.vocabulary import Phase

_LOG_TWO_PI = 1.8378770664093453


class VonMises(NamedTuple):
    """Mixtures of K von Mises distributions: log weights, locations and concentrations (..., K)."""

    log_weights: Tensor
    locations: Tensor
    concentrations: Tensor

    def components(self, x: Tensor) -> Tensor:
        """Return the log densities (..., K) of coordinates (...) in each component, per radian."""
        normaliser = _LOG_TWO_PI + torch.log(torch.special.i0e(self.concentrations))
        return _exponent(x[..., None], self.locations, self.concentrations) - normaliser

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log densities (...) of coordinates (...), per radian."""
        return torch.logsumexp(self.log_weights + self.components(x), dim=-1)

    def bins(self, n: int) -> Tensor:
        """Return log probabilities (..., K, n) of the bins x = b / n in each component.

        They are proportional to the density at the bin, for each component.
        """
        x = torch.arange(n, device=self.locations.device, dtype=self.locations.dtype) / n
        return F.log_softmax(_exponent(x, self.locations[..., None], self.concentrations[..., None]), dim=-1)


class LatticeMixture(NamedTuple):
    """Mixtures of K Gaussians: log weights (..., K), means and standard deviations (..., K, 6)."""

    log_weights: Tensor
    means: Tensor
    scales: Tensor

    def components(self, L: Tensor) -> Tensor:
        """Return the log densities (..., K, 6) of lattices (..., 6), not truncated."""
        z = (L[..., None, :] - self.means) / self.scales
        return -0.5 * z.square() - self.scales.log() - 0.5 * _LOG_TWO_PI

    def log_density(self, L: Tensor, free: Tensor) -> Tensor:
        """Return the joint log densities (...) of the free parameters (..., 6) of lattices (..., 6).

        Each number is limited to `lattice_bounds`; outside them the density is 0.
        """
        bounds = lattice_bounds(L)
        low, high = ((bounds[..., None, :, i] - self.means) / self.scales for i in range(2))
        density = (self.components(L) - log_normal_mass(low, high)).masked_fill(~free[..., None, :], 0.0)
        slack = 16 * torch.finfo(L.dtype).eps * bounds[..., 1]  # a sample next to a bound may be rounded past it
        inside = ((bounds[..., 0] - slack <= L) & (bounds[..., 1] + slack >= L)) | ~free
        joint = torch.logsumexp(self.log_weights + density.sum(-1), dim=-1)
        return joint.masked_fill(~inside.all(-1), -torch.inf)

    def bins(self, parameter: int, n: int, allowed: Tensor | None = None) -> Tensor:
        """Return log probabilities (..., K, n) of the bins of one lattice parameter 0...5 in each component.

        They are proportional to the density at the bin and to the width of the bin, for each component.

        Args:
            parameter: a, b, c, alpha, beta or gamma.
            n: number of bins.
            allowed: (..., n) bins that may be chosen, by default all.
        """
        values = bin_values(parameter, n).to(self.means)
        z = (values - self.means[..., parameter, None]) / self.scales[..., parameter, None]
        exponent = -0.5 * z.square() + (values.log() if parameter < 3 else 0.0)
        if allowed is not None:
            exponent = exponent.masked_fill(~allowed[..., None, :], -torch.inf)
        return F.log_softmax(exponent, dim=-1)


def log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """Return the log of a standard normal variable's probability to lie between two values, exact in both tails."""
    upper = low > 0  # in the upper tail, by symmetry, the lower one
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(log_low - log_high))


def lattice_bounds(L: Tensor) -> Tensor:
    """Return the bounds (..., 6, 2) of normalised lattices (..., 6), those of gamma given alpha and beta.

    They are those of `crystal_env.encoding`, in Å and radians, and matter for free parameters only.
    """
    lengths = L.new_tensor(LENGTH_BOUNDS).expand(*L.shape[:-1], 3, 2)
    angles = torch.deg2rad(L.new_tensor(ANGLE_BOUNDS))
    least, most = angles.tolist()
    alpha, beta = L[..., 3].clamp(least, most), L[..., 4].clamp(least, most)
    cosines = gamma_cosines(alpha.cos() * beta.cos(), alpha.sin() * beta.sin())
    gamma = torch.stack(cosines, dim=-1).clamp(-1, 1).arccos().clamp(least, most)
    return torch.cat([lengths, torch.stack([angles.expand_as(gamma), angles.expand_as(gamma), gamma], dim=-2)], dim=-2)


@lru_cache(maxsize=24)
def bin_values(parameter: int, n: int) -> Tensor:
    """Return the values (n,) that the bins of a lattice parameter stand for, in normalised Å or radians."""
    values = encoding.bin_values(np.arange(n), Phase.A + parameter, 1, n)
    return torch.from_numpy(values if parameter < 3 else np.radians(values))


def _exponent(x: Tensor, locations: Tensor, concentrations: Tensor) -> Tensor:
    """Return concentration * (cos(angle - location) - 1), as a sine that keeps its digits in a narrow peak."""
    half_deviation = (torch.pi * (2 * x - 1) - locations) / 2
    return -2 * concentrations * half_deviation.sin().square()

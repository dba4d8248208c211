"""Quantile functions: what a distribution makes of uniform random numbers, one for each of n samples.

Every sample is a function of one number in (0, 1), so that a crystal's random numbers alone decide what it becomes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp
from torch import Tensor

_Reals = NDArray[np.float64]

_REACH = 9.0  # standard deviations beyond which a Gaussian's mass is below the spacing of doubles near 1
_PANELS = 16
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2  # on [0, 1]
_NEWTON_STEPS = 3


def categorical(log_probs: Tensor, u: _Reals) -> NDArray[np.int64]:
    """Return choices (n,) from distributions (n, k) of log probabilities; what has no probability is never chosen."""
    cumulative = log_probs.double().exp().cumsum(-1).cpu().numpy()
    return (cumulative <= (u * cumulative[:, -1])[:, None]).sum(1)


def von_mises(location: _Reals, concentration: _Reals, u: _Reals) -> _Reals:
    """Return angles (n,) in radians from von Mises distributions, within pi of their locations.

    The mass of exp(-2 k sin²(t / 2)) from 0 to t is integrated by Gauss-Legendre quadrature on panels. Inside the panel
    that holds the quantile, an exponential through the densities at its ends gives a first t, and Newton's method the
    exact one.
    """

    def density(t: _Reals) -> _Reals:
        return np.exp(-2 * concentration.reshape(-1, *[1] * (t.ndim - 1)) * np.sin(t / 2) ** 2)

    reach = 2 * np.arcsin(np.minimum(1.0, _REACH / 2 / np.sqrt(np.maximum(concentration, 1e-12))))
    width = reach / _PANELS
    edges = width[:, None] * np.arange(_PANELS)  # (n, panels), left ones
    masses = width[:, None] * (density(edges[..., None] + width[:, None, None] * _NODES) @ _WEIGHTS)
    below = np.pad(np.cumsum(masses, axis=1), [(0, 0), (1, 0)])
    target = np.abs(2 * u - 1) * below[:, -1]
    panel = np.clip((below <= target[:, None]).sum(1) - 1, 0, _PANELS - 1)
    every = np.arange(len(u))
    left, mass, missing = edges[every, panel], masses[every, panel], target - below[every, panel]
    slope = np.log(density(left + width) / density(left))
    slope = np.where(slope > -1e-6, -1e-6, slope)
    t = left + width * np.log1p(missing / mass * np.expm1(slope)) / slope
    for _ in range(_NEWTON_STEPS):
        length = t - left
        reached = length * (density(left[:, None] + length[:, None] * _NODES) @ _WEIGHTS)
        t = np.clip(t + (missing - reached) / density(t), left, left + width)
    return location + np.where(u < 0.5, -1.0, 1.0) * t


def truncated_normal(mean: _Reals, scale: _Reals, low: _Reals, high: _Reals, u: _Reals) -> _Reals:
    """Return numbers (n,) from Gaussians between ``low`` and ``high``, exact in both tails.

    Where the bounds are above the mean, a larger ``u`` gives a smaller number.
    """
    sign = np.where(low > mean, -1.0, 1.0)  # the upper tail is mirrored into the lower one
    first, last = sign * (low - mean) / scale, sign * (high - mean) / scale
    log_first, log_last = log_ndtr(np.minimum(first, last)), log_ndtr(np.maximum(first, last))
    z = ndtri_exp(np.logaddexp(np.log1p(-u) + log_first, np.log(u) + log_last))
    return np.clip(mean + sign * z * scale, low, high)

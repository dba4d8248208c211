"""How many independent samples a Markov chain amounts to."""

import numpy as np
from numpy.typing import NDArray


def autocorrelation_time(values: NDArray[np.float64], window: float = 5.0) -> float:
    """Return the integrated autocorrelation time, in steps, of series (T, C) of C chains.

    It is 1 + 2 sum of the autocorrelations, averaged over the chains, up to the first lag of ``window`` times itself
    (Sokal, "Monte Carlo Methods in Statistical Mechanics", 1996); 1 for independent values.
    """
    steps = len(values)
    centred = values - values.mean()
    padded = np.fft.rfft(centred, 2 * steps, axis=0)
    covariance = np.fft.irfft(padded * padded.conj(), axis=0)[:steps].mean(1) / np.arange(steps, 0, -1)
    if covariance[0] <= 0:
        return 1.0
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    enough = np.flatnonzero(np.arange(steps) >= window * times)
    return max(1.0, float(times[enough[0] if len(enough) else -1]))

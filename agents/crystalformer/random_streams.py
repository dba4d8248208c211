"""Random numbers that belong to crystals, whatever these are batched with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crystal_env.errors import InputError

Seed = int | Sequence[int] | np.random.Generator | None

_BLOCK = 4  # numbers that Philox makes of one value of its counter
_LEAST = 2.0**-54  # takes the place of 0, half of the spacing of the numbers
_SPACE_GROUPS = 1 << 255  # value of the counter that no crystal's numbers reach


class RandomStreams:
    """An independent stream of uniform random numbers for each crystal of a request, or for each Markov chain.

    A counter-based generator (Philox; Salmon et al., SC 2011, https://doi.org/10.1145/2063384.2063405) makes any part
    of any stream on its own, so that what a crystal becomes depends only on the seed and on its index in the request.

    Args:
        seed: an integer or several, a generator, which is advanced by one key, or None for another key each time.

    Raises:
        ValueError: if the seed is something else, or negative.

    Example:
        >>> every = RandomStreams(0).uniforms(np.arange(100), width=8)
        >>> bool((RandomStreams(0).uniforms(np.array([7, 42]), width=8) == every[[7, 42]]).all())
        True
    """

    def __init__(self, seed: Seed = None) -> None:
        self._key = check_seed(seed).integers(1 << 64, size=2, dtype=np.uint64)

    def uniforms(self, index: NDArray[np.int64], width: int) -> NDArray[np.float64]:
        """Return the first numbers (n, width) in (0, 1) of the streams ``index`` (n,), which are close to each other.

        Streams of another ``width`` have other numbers.
        """
        if not len(index):
            return np.zeros((0, width))
        first, blocks = int(index.min()), -(-width // _BLOCK)
        generator = self._generator(first * blocks)
        numbers = generator.random((int(index.max()) + 1 - first, blocks * _BLOCK))
        return np.maximum(numbers[index - first, :width], _LEAST)

    def for_space_groups(self) -> np.random.Generator:
        """Return the generator of the request's space groups, whose i-th number is that of crystal i."""
        return self._generator(_SPACE_GROUPS)

    def _generator(self, counter: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(counter=counter, key=self._key))


def check_seed(seed: Seed) -> np.random.Generator:
    """Return the generator of a seed.

    Raises:
        ValueError: if it is neither integers of at least 0 nor a generator nor None.
    """
    entries = seed if isinstance(seed, list | tuple) else [seed]
    if not isinstance(seed, np.random.Generator | None) and any(
        isinstance(entry, bool) or not isinstance(entry, int | np.integer) or entry < 0 for entry in entries
    ):
        raise InputError(f"seed must be an integer of at least 0, a numpy Generator or None, got {seed!r}")
    return np.random.default_rng(seed)

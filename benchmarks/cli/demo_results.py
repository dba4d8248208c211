"""What the samples of the demo come to: numbers of each model, and which crystals are best or doubtful."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.intervals import rate
from benchmarks.metrics.sample import STABLE, SampleMetrics
from benchmarks.metrics.summary import summarise

DOUBTFUL_DEPTH = 0.05
"""Depth in eV/atom below the hull beyond which a crystal is doubtful: it is more likely that the hull lacks a phase or
the potential errs than that it is a discovery."""


class ModelSample(NamedTuple):
    """A model's samples.

    Attributes:
        metrics: of B crystals.
        kl_divergence: of letters and elements from the base model at the same temperature, in nats.
        is_novelty_known: whether there is a reference of novelty; without one all crystals pass as novel.
    """

    metrics: SampleMetrics
    kl_divergence: float
    is_novelty_known: bool

    @property
    def name(self) -> str:
        """Name of the model and its temperature."""
        return self.metrics.samples.name

    @property
    def success(self) -> str:
        """Name of what is counted: S.U.N., or without a reference of novelty what is left of it."""
        return "S.U.N." if self.is_novelty_known else "stable and unique"

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """Which crystals (B,) lie more than `DOUBTFUL_DEPTH` below the hull."""
        return self.metrics.e_above_hull < -DOUBTFUL_DEPTH

    @property
    def plausible_successes(self) -> NDArray[np.bool_]:
        """Which crystals (B,) are counted when doubtful ones are left out."""
        return self.metrics.sun(STABLE, among=~self.doubtful)

    def numbers(self) -> dict[str, Any]:
        """Return rates, energies and variety, JSON-plain; none on novelty where it is not known."""
        numbers, total = summarise(self.metrics), self.metrics.samples.n_attempts
        rates = numbers["rates"]
        numbers["rates"] = {
            "success": rates["sun_0.1"],
            "plausible_success": rate(self.plausible_successes.sum(), total),
            **{name: rates[name] for name in rates if self.is_novelty_known or not name.startswith(("sun", "novel"))},
        }
        return numbers | {"doubtful": int(self.doubtful.sum()), "kl_divergence": self.kl_divergence}

    def best(self, size: int, novel: bool = False) -> NDArray[np.int64]:
        """Return the rows of the stable compounds lowest above the hull, none of them doubtful, one of each formula.

        Args:
            size: most compounds.
            novel: leave out structures that are known.
        """
        metrics, crystals = self.metrics, self.metrics.samples.crystals
        plausible = metrics.first_of_each(metrics.stable() & ~self.doubtful)
        chosen = self.plausible_successes if novel else plausible
        best: dict[str, int] = {}
        for row in np.argsort(metrics.e_above_hull, kind="stable").tolist():
            if chosen[row] and len(set(crystals[row].A.tolist())) > 1:
                best.setdefault(crystals[row].formula, row)
            if len(best) == size:
                break
        return np.array(list(best.values()), np.int64)

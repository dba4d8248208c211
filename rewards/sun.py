"""S.U.N. as a smooth reward: stable, unique and novel, for the first time."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import finite_number, integer
from crystal_env.crystal import CrystalBatch, as_batch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult, Scorer, resolve_reward, without_failure
from rewards.ehull import EnergyAboveHull, beyond_depth
from rewards.novelty import Novelty

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from crystal_env.crystal import Crystal
    from rewards.hull.convex_hull import ConvexHull
    from rewards.potentials import Potential
    from rewards.screen import Screen

_NEGLIGIBLE = 1e-3  # stability below which no structures are compared, for it would cost more than it changes
_UNSTABLE = 10.0  # eV/atom, the energy above the hull of a crystal that cannot be scored, as `EnergyAboveHull` gives


class SUN:
    """A smooth stability, times novelty, times first-seen: the product form of stable, unique, novel (S.U.N.).

    The total, between 0 and 1, is ``s(E) * n * f`` for an energy E above the hull in eV/atom:

    - ``s(E) = 1 / (1 + exp((E - threshold) / width))``, a logistic step, ½ at the threshold;
    - n is 1 for a structure that is not in the reference and ``known`` for one that is, by `Novelty`'s comparison;
      where s is below 0.001 structures are not compared, and a formula of the reference counts as known;
    - f is 1 for the first crystal of a `Crystal.key` (group, letters, elements) and ``repeated`` for later ones.

    Crystals count in their order, inside a batch too, so the result does not depend on how they are divided into
    batches. A crystal that cannot be scored, or lies more than ``max_depth`` below the hull, gets 0 and a reason, is
    not remembered, and its E is given as 10 eV/atom.

    The terms are those of the energy, with ``stability`` (s), ``novel`` and ``first_seen`` (1 or 0), and ``success``, 1
    where E is at most the threshold and the crystal is novel and seen for the first time.

    The memory is part of copies and pickles, and of `state_dict`; environments that are made from copies of the reward
    have a memory each. A cache belongs inside, ``SUN(energy=Cached(EnergyAboveHull()))``, never around.

    Args:
        potential: name of a potential, or the potential, as `EnergyAboveHull` takes.
        hull: name of a shipped hull, a file, or the hull, as `EnergyAboveHull` takes.
        reference: the crystals that are known, as `Novelty` takes: crystals, a file, or ``"mp20"``. With None every
            crystal is novel.
        energy: the reward whose term ``e_above_hull`` is E, such as a `RayPool`, a `Cached` or a metered reward; by
            default ``EnergyAboveHull(potential, hull)``. Where it is given, ``potential`` and ``hull`` are not used.
        threshold: energy above the hull in eV/atom at which the stability is ½, and up to which a crystal succeeds.
        width: width of the step in eV/atom: the stability is 0.95 three widths below the threshold, 0.05 above.
        known: weight of a crystal whose structure is in the reference.
        repeated: weight of a crystal whose key was scored before.
        max_depth: largest depth below the hull in eV/atom that is accepted, None for any; see `EnergyAboveHull`.
        screen: limits that a crystal must meet before the potential runs; a given ``energy`` has its own.
        size: keys remembered; beyond, those not seen for longest are forgotten.
        n_jobs: processes that compare structures, None for one per core.

    Raises:
        ValueError: if a weight is not within 0 and 1, ``width``, ``max_depth``, ``size`` or ``n_jobs`` is not positive,
            ``threshold`` is not finite, ``screen`` is given with ``energy``, ``energy`` is not a reward, or as
            `EnergyAboveHull` and `Novelty` do.

    Example:
        >>> from crystal_env.crystal import Crystal
        >>> reward = SUN(reference=None)
        >>> rock_salt = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")
        >>> reward([rock_salt, rock_salt]).total.round(2)
        array([0.88, 0.  ])
    """

    floor: ClassVar[float] = 0.0
    """The lowest total."""

    def __init__(
        self,
        potential: "str | Potential" = "chgnet",
        hull: "str | Path | ConvexHull" = "mp20-chgnet",
        reference: "CrystalBatch | str | Path | None" = "mp20",
        *,
        energy: Reward | str | None = None,
        threshold: float = 0.1,
        width: float = 0.05,
        known: float = 0.3,
        repeated: float = 0.0,
        max_depth: float | None = 0.2,
        screen: "Screen | None" = None,
        size: int = 1_000_000,
        n_jobs: int | None = 1,
    ) -> None:
        self.threshold, self.width = finite_number("threshold", threshold), finite_number("width", width, above=0)
        self.known = finite_number("known", known, least=0, most=1)
        self.repeated = finite_number("repeated", repeated, least=0, most=1)
        self.max_depth = None if max_depth is None else finite_number("max_depth", max_depth, above=0)
        self.size = integer("size", size, least=1)
        self.n_jobs = None if n_jobs is None else integer("n_jobs", n_jobs, least=1)
        if energy is None:
            energy = EnergyAboveHull(potential, hull, threshold=self.threshold, screen=screen, max_depth=self.max_depth)
        elif screen is not None:
            raise InputError(f"screen must be None where energy is given, which has its own limits, got {screen!r}")
        self.scorer = Scorer(resolve_reward(energy), self.floor)
        self.novelty = None if reference is None else Novelty(reference, n_jobs=self.n_jobs)
        self._seen: dict[str, None] = {}  # the key seen last is the last one

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals, and remember them; see the class for the terms.

        Raises:
            ValueError: if the energy has no term ``e_above_hull``.
        """
        crystals = as_batch(crystals)
        energy = self.scorer(crystals)
        if "e_above_hull" not in energy.terms and energy.scored.any():
            raise InputError(f"energy must be a reward with the term e_above_hull, it has {sorted(energy.terms)}")
        e_above_hull = energy.terms.get("e_above_hull", np.full(len(crystals), _UNSTABLE))
        failures = energy.failures.copy()
        rows = without_failure(failures)
        failures[rows] = beyond_depth(e_above_hull[rows], self.max_depth)
        rows = without_failure(failures)
        stability, (scored, novel, first_seen) = np.zeros(len(crystals)), np.zeros((3, len(crystals)), bool)
        stability[rows], scored[rows] = self.stability(e_above_hull[rows]), True
        novel[rows] = self._novel(crystals[rows], stability[rows])
        first_seen[rows] = self._first(crystals[rows])
        weight = np.where(novel, 1.0, self.known) * np.where(first_seen, 1.0, self.repeated)
        terms = energy.terms | {
            "e_above_hull": np.where(scored, e_above_hull, _UNSTABLE),
            "stability": stability,
            "novel": novel.astype(np.float64),
            "first_seen": first_seen.astype(np.float64),
            "success": (novel & first_seen & (e_above_hull <= self.threshold)).astype(np.float64),
        }
        return RewardResult(stability * weight, terms, failures)

    def stability(self, e_above_hull: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the stability (B,), from 1 to 0, of energies above the hull (B,) in eV/atom."""
        with np.errstate(over="ignore"):  # the step is then 0 or 1
            steps = (e_above_hull - self.threshold) / self.width
        return np.exp(-np.logaddexp(0.0, steps))

    def state_dict(self) -> dict[str, Any]:
        """Return the memory, of texts only, to be saved with an agent."""
        return {"seen": list(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the memory of `state_dict`.

        Raises:
            ValueError: if it is not such a memory.
        """
        if state.keys() != {"seen"}:
            raise InputError(f"state must be that of a SUN reward, with the key 'seen' alone, got {list(state)}")
        self._seen = {}
        for key in state["seen"]:
            self._remember(key)

    def _novel(self, crystals: CrystalBatch, stability: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether crystals (B,) of stabilities (B,) are not in the reference; see the class."""
        if self.novelty is None or not len(crystals):
            return np.ones(len(crystals), bool)
        reference = self.novelty.reference
        known = reference.has_formula(crystals)
        compared = np.flatnonzero(known & (stability >= _NEGLIGIBLE))
        known[compared] = reference.contains(crystals[compared], n_jobs=self.n_jobs)
        return ~known

    def _first(self, crystals: CrystalBatch) -> NDArray[np.bool_]:
        """Return whether the keys of crystals (B,) are new, one after the other, and remember them."""
        return np.array([self._remember(crystal.key()) for crystal in crystals], bool)

    def _remember(self, key: str) -> bool:
        """Return whether a key is new, and make it the one seen last."""
        new = key not in self._seen
        self._seen.pop(key, None)
        self._seen[key] = None
        if len(self._seen) > self.size:
            del self._seen[next(iter(self._seen))]
        return new

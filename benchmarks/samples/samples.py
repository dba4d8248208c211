"""The attempts of a generator in one order: crystals, structures outside the representation, and failures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.files import atomic_write
from rewards.matching import Structures

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

_ARRAYS = ("G", "W", "A", "XYZ", "L")
MISSING = "missing"
"""Reason of an attempt that was expected and never made."""


class Failure(NamedTuple):
    """An attempt that gave no structure, and the reason."""

    reason: str


class Outside(NamedTuple):
    """A structure outside the representation, such as one of more than 20 inequivalent sites, and the reason."""

    structure: "Structure"
    reason: str


Item: TypeAlias = Crystal | Outside | Failure
"""What one attempt gave."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What N attempts of a generator gave: a sequence of B crystals and structures, and N - B failures.

    Attributes:
        name: name of the sample.
        crystals: the n crystals, in order.
        structures: the B - n structures outside the representation, in order.
        represented (B,): which samples are crystals.
        rows (B,): the attempts that the samples are of, ascending.
        requested (N,): requested space groups, 0 where any will do or none is known.
        places: where each of the N attempts stands in its file, such as ``"row 3"``.
        failures: attempt -> why it gave no structure.
        outside: attempt -> why its structure is outside the representation.
        log_prob (B,): log-likelihoods in nats, NaN where they are not known.
    """

    name: str
    crystals: CrystalBatch
    structures: "tuple[Structure, ...]"
    represented: NDArray[np.bool_]
    rows: NDArray[np.int64]
    requested: NDArray[np.int64]
    places: tuple[str, ...]
    failures: dict[int, str]
    outside: dict[int, str]
    log_prob: NDArray[np.float64]

    @classmethod
    def from_items(
        cls,
        items: Sequence[Item],
        name: str = "samples",
        requested: NDArray[np.int64] | None = None,
        places: Sequence[str] | None = None,
    ) -> "Samples":
        """Return the samples of N attempts.

        Args:
            items: what each attempt gave.
            name: name of the sample.
            requested: (N,) requested space groups, by default 0.
            places: where the attempts stand, by default ``"row 0"`` and so on.
        """
        kept = [(row, item) for row, item in enumerate(items) if not isinstance(item, Failure)]
        outside = {row: item for row, item in kept if isinstance(item, Outside)}
        return cls(
            name,
            CrystalBatch.from_crystals([item for _, item in kept if isinstance(item, Crystal)]),
            tuple(item.structure for item in outside.values()),
            np.array([isinstance(item, Crystal) for _, item in kept], bool),
            np.array([row for row, _ in kept], np.int64),
            np.zeros(len(items), np.int64) if requested is None else np.asarray(requested, np.int64),
            tuple(places or _places(len(items))),
            {row: item.reason for row, item in enumerate(items) if isinstance(item, Failure)},
            {row: item.reason for row, item in outside.items()},
            np.full(len(kept), np.nan),
        )

    @classmethod
    def from_crystals(
        cls,
        crystals: CrystalBatch,
        name: str = "crystals",
        requested: NDArray[np.int64] | None = None,
        log_prob: NDArray[np.float64] | None = None,
    ) -> "Samples":
        """Return the samples of N attempts that each gave a crystal."""
        n = len(crystals)
        return cls(
            name,
            crystals,
            (),
            np.ones(n, bool),
            np.arange(n),
            np.zeros(n, np.int64) if requested is None else np.asarray(requested, np.int64),
            _places(n),
            {},
            {},
            np.full(n, np.nan) if log_prob is None else np.asarray(log_prob, np.float64),
        )

    @classmethod
    def concatenate(cls, parts: "Sequence[Samples]") -> "Samples":
        """Return all attempts of several samples, at least one, one after the other."""
        starts = np.cumsum([0, *(part.n_attempts for part in parts)]).tolist()
        shifted = list(zip(parts, starts, strict=False))
        return cls(
            parts[0].name,
            CrystalBatch.concatenate([part.crystals for part in parts]),
            tuple(structure for part in parts for structure in part.structures),
            np.concatenate([part.represented for part in parts]),
            np.concatenate([part.rows + start for part, start in shifted]),
            np.concatenate([part.requested for part in parts]),
            tuple(place for part in parts for place in part.places),
            {row + start: reason for part, start in shifted for row, reason in part.failures.items()},
            {row + start: reason for part, start in shifted for row, reason in part.outside.items()},
            np.concatenate([part.log_prob for part in parts]),
        )

    def __len__(self) -> int:
        """Return the number of samples B; see `n_attempts` for that of the attempts."""
        return len(self.rows)

    def __getitem__(self, position: int) -> "Crystal | Structure":
        at = int(self._among_kind[position])
        return self.crystals[at] if self.represented[position] else self.structures[at]

    def __iter__(self) -> "Iterator[Crystal | Structure]":
        return (self[position] for position in range(len(self)))

    @property
    def n_attempts(self) -> int:
        """The number of attempts N, failures included."""
        return len(self.places)

    @cached_property
    def _among_kind(self) -> NDArray[np.int64]:
        """The position (B,) of each sample among the crystals, or among the structures."""
        return np.where(self.represented, np.cumsum(self.represented), np.cumsum(~self.represented)) - 1

    @property
    def space_groups(self) -> NDArray[np.int64]:
        """The space groups (B,) of the crystals, 0 for other structures."""
        groups = np.zeros(len(self), np.int64)
        groups[self.represented] = self.crystals.G
        return groups

    def merge(self, of_crystals: NDArray[Any], of_structures: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
        """Return values (B, ...) in the order of the samples, from those of the crystals and of the structures."""
        values = np.zeros((len(self), *of_crystals.shape[1:]), of_crystals.dtype)
        values[self.represented] = of_crystals
        if len(self.structures):
            values[~self.represented] = of_structures
        return values

    def comparable(self) -> Structures:
        """Return the samples (B,) in a form that `rewards.matching` compares."""
        return self.to_structures() if self.structures else self.crystals

    def to_structures(self) -> "list[Structure]":
        """Return the samples (B,) as pymatgen structures, crystals in their primitive cells."""
        cells = iter(self.crystals.to_structures(primitive=True))
        others = iter(self.structures)
        return [next(cells) if crystal else next(others) for crystal in self.represented]

    def to_atoms(self) -> "list[Atoms]":
        """Return the samples (B,) as ASE atoms, crystals in their primitive cells."""
        cells = iter(self.crystals.to_atoms())
        others = iter(self.structures)
        return [next(cells) if crystal else next(others).to_ase_atoms(msonable=False) for crystal in self.represented]

    def take(self, positions: NDArray[Any]) -> "Samples":
        """Return the samples at positions (k,), or of a mask (B,), in ascending order, as the only attempts."""
        chosen = np.zeros(len(self), bool)
        chosen[positions] = True
        rows = self.rows[chosen].tolist()
        return replace(
            self._keep(chosen),
            rows=np.arange(len(rows)),
            requested=self.requested[rows],
            places=tuple(self.places[row] for row in rows),
            failures={},
            outside={new: self.outside[row] for new, row in enumerate(rows) if row in self.outside},
        )

    def first(self, n_attempts: int | None) -> "Samples":
        """Return the first attempts, all of them by default."""
        n = self.n_attempts if n_attempts is None else n_attempts
        return replace(
            self._keep(self.rows < n),
            requested=self.requested[:n],
            places=self.places[:n],
            failures={row: reason for row, reason in self.failures.items() if row < n},
            outside={row: reason for row, reason in self.outside.items() if row < n},
        )

    def padded(self, n_attempts: int) -> "Samples":
        """Return the samples with attempts that fail as `MISSING` at the end, until there are so many."""
        n = self.n_attempts
        more = range(n, max(n, n_attempts))
        return replace(
            self,
            requested=np.append(self.requested, np.zeros(len(more), np.int64)),
            places=(*self.places, *(f"row {row}" for row in more)),
            failures=self.failures | dict.fromkeys(more, MISSING),
        )

    def reject(self, reasons: Mapping[int, str]) -> "Samples":
        """Return the samples with some as failures: position (of the B samples) -> why."""
        kept = np.array([position not in reasons for position in range(len(self))], bool)
        failures = self.failures | {int(self.rows[position]): reason for position, reason in reasons.items()}
        outside = {row: reason for row, reason in self.outside.items() if row not in failures}
        return replace(self._keep(kept), failures=dict(sorted(failures.items())), outside=outside)

    def save(self, path: Path) -> None:
        """Write the samples into an npz file, of which `CrystalBatch.load` reads the crystals.

        Structures outside the representation are stored as pymatgen's JSON.
        """
        n = self.n_attempts
        arrays: dict[str, NDArray[Any]] = {name: getattr(self.crystals, name) for name in _ARRAYS}
        arrays |= {name: getattr(self, name) for name in ("represented", "rows", "requested", "log_prob")}
        for name, reasons in (("failures", self.failures), ("outside", self.outside)):
            arrays[name] = np.array([reasons.get(row, "") for row in range(n)], np.str_)
        arrays["places"] = np.array(self.places, np.str_)
        arrays["structures"] = np.array([json.dumps(one.as_dict()) for one in self.structures], np.str_)
        arrays["name"] = np.array(self.name)
        atomic_write(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "Samples":
        """Read what `save` wrote.

        Raises:
            KeyError: if the file holds something else.
        """
        from pymatgen.core import Structure

        with path.open("rb") as archive, np.load(archive, allow_pickle=False) as file:
            failures = file["failures"].tolist()
            rows, n = file["rows"].astype(np.int64), len(failures)
            known = set(file.files)
            return cls(
                str(file["name"]) if "name" in known else path.stem,
                CrystalBatch(*(file[name] for name in _ARRAYS)),
                tuple(Structure.from_dict(json.loads(text)) for text in _texts(file, "structures")),
                file["represented"] if "represented" in known else np.ones(len(rows), bool),
                rows,
                file["requested"].astype(np.int64),
                tuple(_texts(file, "places")) or _places(n),
                {row: reason for row, reason in enumerate(failures) if reason},
                {row: reason for row, reason in enumerate(_texts(file, "outside")) if reason},
                file["log_prob"] if "log_prob" in known else np.full(len(rows), np.nan),
            )

    def _keep(self, chosen: NDArray[np.bool_]) -> "Samples":
        """Return the samples of a mask (B,); what is known of attempts stays as it is."""
        others = chosen[~self.represented]
        return replace(
            self,
            crystals=self.crystals[chosen[self.represented]],
            structures=tuple(one for one, kept in zip(self.structures, others, strict=True) if kept),
            represented=self.represented[chosen],
            rows=self.rows[chosen],
            log_prob=self.log_prob[chosen],
        )


def _places(n: int) -> tuple[str, ...]:
    return tuple(f"row {row}" for row in range(n))


def _texts(file: Mapping[str, NDArray[Any]], name: str) -> list[str]:
    return [str(text) for text in file[name].tolist()] if name in file else []

"""A folder of results, as the page needs it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.harness.migrate import migration_hint
from benchmarks.harness.provenance import SCHEMA
from benchmarks.metrics.sample import STABLE
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError


@dataclass(frozen=True)
class Results:
    """The results of an agent on a task.

    Attributes:
        folder: their folder.
        values: the content of ``results.json``.
        table: a row for each attempt of each seed: the columns of ``samples.csv.gz`` and ``seed``; empty without them.
        trace: a row for each crystal that the oracle scored: ``seed``, ``call`` from 1 on, ``total`` and ``failed``;
            empty where there are none, or where a task has several cases.
    """

    folder: Path
    values: dict[str, Any]
    table: pd.DataFrame
    trace: pd.DataFrame

    @property
    def task(self) -> dict[str, Any]:
        """The definition of the task."""
        return dict(self.values["task"])

    @property
    def seeds(self) -> list[dict[str, Any]]:
        """The numbers of each seed."""
        return list(self.values["seeds"])

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a column of the table as numbers (N,), NaN where there is none."""
        if name not in self.table:
            return np.full(len(self.table), np.nan)
        return pd.to_numeric(self.table[name], errors="coerce").to_numpy(np.float64)

    def terms(self) -> list[str]:
        """Return the names of the reward's terms."""
        return [name.removeprefix("term:") for name in self.table if name.startswith("term:")]

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows (n,) of the table that have a crystal."""
        return np.flatnonzero(self.table["crystal"].notna()) if "crystal" in self.table else np.zeros(0, np.int64)

    @cached_property
    def crystals(self) -> CrystalBatch:
        """The crystals of these rows (n,)."""
        return CrystalBatch.from_crystals([Crystal.from_string(self.table["crystal"].iloc[row]) for row in self.rows])

    @cached_property
    def has_energies(self) -> bool:
        """Whether any crystal has an energy above the hull."""
        return bool(np.isfinite(self.column("e_above_hull")).any())

    @cached_property
    def counted(self) -> tuple[str, NDArray[np.bool_]]:
        """The label of the crystals that count in the task's score, and which attempts (N,) they are.

        Structures are counted once in a sample, as the score does it.
        """
        score = self.values["score"]["name"]
        if score == "sun_successes":
            return "S.U.N. and successful", self._sun(self._success())
        if self.has_energies:
            return "S.U.N.", self._sun(np.ones(len(self.table), bool))
        if score == "valid_unique":
            valid = self.column("structurally_valid") * self.column("compositionally_valid") > 0
            return "valid and unique", self._first(valid)
        if score == "unique_successes":
            return "successful and unique", self._first(self._success())
        return "successful", self._success()

    def _success(self) -> NDArray[np.bool_]:
        scored = np.isfinite(self.column("total"))
        if "reward_failure" in self.table:
            scored &= self.table["reward_failure"].isna().to_numpy()
        if "term:success" in self.table:
            return scored & (self.column("term:success") > 0)
        return scored & (self.column("total") >= self.task["threshold"])

    def _sun(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        stable = self.column("e_above_hull") <= STABLE  # NaN is not
        return self._first(stable & among) & (self.column("novel") > 0)

    def _first(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the first row of each structure among chosen rows (N,), in each sample."""
        if "label" not in self.table:
            return chosen
        keys = [self.table[name] for name in ("seed", "case", "label") if name in self.table]
        again = pd.concat(keys, axis=1)[chosen].duplicated().to_numpy()
        first = chosen.copy()
        first[np.flatnonzero(chosen)[again]] = False
        return first


def read(folder: Path) -> Results:
    """Read a folder of results; only ``results.json`` must be there.

    Raises:
        ValueError: if it is not, or of another schema.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise InputError(f"folder must have a results.json, {folder} has none")
    values = json.loads(path.read_text())
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{path} must be of the schema {SCHEMA!r}, got {found!r}{migration_hint(found, folder)}")
    places = {int(entry["seed"]): folder / f"seed-{entry['seed']}" for entry in values["seeds"]}
    tables = [_table(place / "samples.csv.gz", seed) for seed, place in places.items()]
    traces = [_trace(place / "trace.npz", seed) for seed, place in places.items()]
    return Results(folder, values, _together(tables), _together(traces))


def _table(path: Path, seed: int) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    # the formula NaN is sodium and nitrogen
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)
    return table.assign(seed=seed)


def _trace(path: Path, seed: int) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    with np.load(path, allow_pickle=False) as file:
        total = file["total"]
        failed = file["failure"] != "" if "failure" in file.files else np.zeros(len(total), bool)
        return pd.DataFrame({"seed": seed, "call": np.arange(1, len(total) + 1), "total": total, "failed": failed})


def _together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()

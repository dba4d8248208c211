"""Migration of results to the current format: keys become identifiers; no number is computed again.

``crystalgen benchmark migrate FOLDERS...`` migrates ``results.json``, ``seed.json`` and ``samples.csv.gz`` of
``crystalgen benchmark run`` below folders, in place. Statistics over seeds are those of `benchmarks.metrics.intervals`.
Migrating again changes nothing. Commands in the provenance and settings of agents stay as they were run.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.harness.integrity_checks import Check
from benchmarks.harness.provenance import SCHEMA
from benchmarks.metrics.intervals import over_seeds
from benchmarks.metrics.reference import DEFAULT_FILES
from benchmarks.tasks import TASKS, Task
from crystal_env.errors import InputError
from crystal_env.files import atomic_write

OLD_SCHEMA = "crystalgen-results/1"

_SCORES = {
    "AUC top-10": "mean_top_10",
    "valid and unique": "valid_unique",
    "unique successes": "unique_successes",
    "S.U.N.": "sun",
    "S.U.N. successes": "sun_successes",
    "mean S.U.N. of groups": "mean_sun_of_groups",
    "match rate": "match_rate",
    "S.U.N. structures found": "sun_structures_found",
    "hypervolume": "hypervolume",
}
_RATES = {
    "structurally valid": "structurally_valid",
    "compositionally valid": "compositionally_valid",
    "in P1": "in_p1",
    "space group found again": "space_group_recovered",
    "stable (≤ 0.1 eV/atom)": "stable_0.1",
    "stable (≤ 0 eV/atom)": "stable_0.0",
    "unique among the stable": "unique_stable_0.1",
    "S.U.N. (≤ 0.1 eV/atom)": "sun_0.1",
    "S.U.N. (≤ 0 eV/atom)": "sun_0.0",
    "S.U.N. (≤ 0.1, none deeper than 0.2 below)": "sun_0.1_without_outliers",
}
_ENERGIES = {
    "mean e_above_hull": "e_above_hull_mean",
    "median e_above_hull": "e_above_hull_median",
    "mean e_above_hull, unscored 10": "e_above_hull_mean_unscored_10",
    "below hull by more than 0.2 eV/atom": "below_hull_outliers_count",
}
_KINDS = {"formulas": "formula", "prototypes": "template", "space groups": "space_group", "elements": "element"}
_VARIETY = {  # templates were called prototypes
    name.format(many): key.format(one)
    for many, one in _KINDS.items()
    for name, key in (
        ("{}", "{}s"),
        ("largest share of {}", "largest_{}_fraction"),
        ("entropy of {}", "{}_entropy"),
    )
}
_EFFICIENCY = {f"auc top-{k}": f"mean_top_{k}" for k in (1, 10, 100)}
_EFFICIENCY |= {f"calls to {k}": f"calls_to_{k}" for k in (1, 10, 100)} | {"burden": "calls_per_success"}
_CURVE = {f"top-{k}": f"top_{k}" for k in (1, 10, 100)}
_DETAILS = {
    "best total": "best_total",
    "simple regret, eV": "simple_regret",
    "rank of the match": "match_rank",
    "S.U.N.": "sun",
    "of": "total",
    "in MP-20": "in_mp20",
}
_CHECKS = {
    "rewards differ": "rewards_differ",
    "holes": "below_hull_outliers",
    "short distances": "short_distances",
    "densities": "implausible_densities",
    "one formula": "one_formula",
    "one prototype": "one_template",
    "one space group": "one_space_group",
    "lanthanide exchange": "lanthanide_exchange",
    "requested groups": "requested_groups",
    "second judge": "cross_check",
    "not at rest": "not_local_minimum",
    "forces": "large_forces",
    "rediscovery of validation data": "rediscovery",
    "asked before": "previously_queried",
}
_TEXTS = {  # of checks
    "energies are not asked for": "the task has no energies",
    "the oracle was not asked": "the oracle was not queried",
    "nothing was asked": "no queries",
    "there is no second judge": "no cross-check potential",
    "are stable for it too": "are stable by it",
    "computed again": "recomputed",
    ", or what is due to chance": ", or chance",
    "keep their group": "keep their space group",
}
_SECONDS = {"drawing": "sampling"}
_AGENTS = {"RandomPlay": "RandomPolicy"}
_COLUMNS = {
    "structural": "structurally_valid",
    "compositional": "compositionally_valid",
    "found": "space_group_recovered",
}
_DIELECTRIC = {
    "merit ≥ 100 eV": "figure_of_merit_100",
    "stable": "stable_0.1",
    "both": "stable_figure_of_merit_100",
    "both, distinct": "unique_stable_figure_of_merit_100",
    "both, distinct, novel": "sun_figure_of_merit_100",
    "distinct structures": "unique",
    "mean merit (eV)": "figure_of_merit_mean",
    "median band gap (eV)": "band_gap_median",
    "median dielectric constant": "dielectric_constant_median",
    "median e_above_hull (eV/atom)": "e_above_hull_median",
    "distinct formulas": "formulas",
}
_LOG = {
    "rollout/failed_share": "rollout/failure_rate",
    **{f"rollout/{name}_share": f"rollout/{name}_rate" for name in ("valid", "success", "unique", "unique_success")},
    "variety/prototypes": "variety/templates",
    "variety/largest_formula_share": "variety/largest_formula_fraction",
    "train/clip_share": "train/clip_fraction",
}
_MP20 = {  # SHA-256 of the files -> number of crystals
    "080d7371b616ace0c9378b47fd7f94df225ac6710e8e16d33220e16c38954014": 27_136,
    "0e0a75f235394577679d96eb3db5300accb7433cf9622621acc4e040faff2131": 7_431,
}


def migration_hint(schema: Any, folder: Path) -> str:
    """Return what an error about results of another schema says beside it: how to migrate old ones."""
    if schema != OLD_SCHEMA:
        return ""
    return f"; `crystalgen benchmark migrate {folder}` brings results of an earlier version into the current format"


def migrate(folders: Sequence[Path]) -> list[Path]:
    """Migrate all results below folders in place, and return the files that were changed.

    Raises:
        ValueError: if there is no such folder.
    """
    changed = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"folders must be folders of results, there is no {folder}")
        files = sorted(folder.rglob("*.json"))
        changed += [path for path in files if _migrated(path, _MIGRATIONS.get(path.name, migrate_history))]
        changed += [path for path in sorted(folder.rglob("samples.csv.gz")) if _migrated_table(path)]
    return changed


def migrate_results(values: Any) -> Any:
    """Return the content of a ``results.json``, also of `benchmarks.paper.compare_runs`, in the current format."""
    if not isinstance(values, dict):
        return values
    if "schema" not in values:
        return {name: migrate_summary(entry) for name, entry in values.items()}
    if values["schema"] != OLD_SCHEMA:
        return values
    task = _task(values["task"])
    agent = {name: _renamed_agent(value) for name, value in values["agent"].items()}
    seeds = [migrate_seed(entry) for entry in values["seeds"]]
    hashes = values.get("provenance", {}).get("hashes", {})
    reference = {name: digest for name, digest in hashes.items() if name in DEFAULT_FILES}
    counts = [_MP20.get(digest) for digest in reference.values()]
    known = {"files": reference, "crystals": None if None in counts else sum(filter(None, counts))}
    return {
        "schema": SCHEMA,
        "task": task,
        "agent": agent,
        "score": {"name": task["score"], **over_seeds(values["score"]["per_seed"])},
        **({"reference": known} if reference else {}),
        "seeds": seeds,
        "flags": sorted(_CHECKS.get(name, name) for name in values["flags"]),
        **{name: value for name, value in values.items() if name == "provenance"},
    }


def migrate_seed(entry: Any) -> Any:
    """Return the numbers of a seed in the current format."""
    if not isinstance(entry, dict) or "attempts without a crystal" not in entry:
        return entry
    nested: dict[str, Callable[[Any], Any]] = {
        "details": lambda details: [_renamed_deeply(one) for one in details],
        "summary": migrate_summary,
        "efficiency": lambda numbers: _renamed(numbers, _EFFICIENCY),
        "curve": lambda numbers: _renamed(numbers, _CURVE),
        "checks": lambda checks: [_check(one) for one in checks],
        "seconds": lambda seconds: _renamed(seconds, _SECONDS),
    }
    names = {"attempts without a crystal": "failures"}
    return {names.get(name, name): nested[name](value) if name in nested else value for name, value in entry.items()}


def migrate_history(values: Any) -> Any:
    """Return the settings and the history of a training run with the current names of its log."""
    if not isinstance(values, dict) or not isinstance(values.get("history"), list):
        return values
    return values | {"history": [_renamed(entry, _LOG) for entry in values["history"]]}


def migrate_summary(summary: Any) -> Any:
    """Return a summary of samples in the current format."""
    shares = summary.get("shares") if isinstance(summary, dict) else None
    if not isinstance(shares, dict):
        return summary
    if all(isinstance(entry, list) for entry in shares.values()):
        return _dielectric(summary)
    rates = {
        _RATES.get(name, name): {
            "count": entry["count"],
            "total": entry["of"],
            "rate": entry["share"],
            "interval": entry["interval"],
        }
        for name, entry in shares.items()
    }
    rest = {name: value for name, value in summary.items() if name != "shares"}
    for name, names in (("intervals", _ENERGIES), ("variety", _VARIETY)):
        if name in rest:
            rest[name] = _renamed(rest[name], names)
    if "divergence" in rest:
        divergence = rest.pop("divergence")
        rest["kl_divergence"] = {"nats": divergence["nats"], "standard_error": divergence["standard error"]}
    return {"rates": rates, **_renamed(rest, _ENERGIES)}


def _dielectric(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary of dielectric materials, whose rates are lists of count, total and interval."""
    rates = {
        _DIELECTRIC[name]: {"count": count, "total": total, "rate": count / total, "interval": [low, high]}
        for name, (count, total, low, high) in summary["shares"].items()
    }
    rest = {name: value for name, value in summary.items() if name != "shares"}
    return {"rates": rates, **_renamed(rest, _DIELECTRIC)}


def _card(values: Any) -> Any:
    """Return the content of the ``card.json`` of a model in the current format."""
    if not isinstance(values, dict) or "samples" not in values:
        return values
    values = _renamed(values, {"training_share_in_P1": "training_fraction_in_p1"})
    return values | {"samples": {name: migrate_summary(one) for name, one in values["samples"].items()}}


_MIGRATIONS: dict[str, Callable[[Any], Any]] = {
    "results.json": migrate_results,
    "seed.json": migrate_seed,
    "card.json": _card,
}


def _migrated(path: Path, migration: Callable[[Any], Any]) -> bool:
    """Migrate a file, if it is of an old format; return whether it was."""
    text = path.read_text()
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} must be JSON: {error}") from error
    migrated = migration(values)
    if migrated == values:
        return False
    indent = len(text) - len(text[1:].lstrip()) - 2 if text.startswith("{\n") else None
    atomic_write(path, json.dumps(migrated, indent=indent, ensure_ascii=text.isascii()) + "\n")
    return True


def _migrated_table(path: Path) -> bool:
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or not set(_COLUMNS) & set(rows[0]):
        return False
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([[_COLUMNS.get(name, name) for name in rows[0]], *rows[1:]])
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as file:
        file.write(text.getvalue().encode())
    atomic_write(path, packed.getvalue())
    return True


def _task(values: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a task with its digest; one that was not of its definition stays as it is."""
    old = {name: value for name, value in values.items() if name not in ("name", "digest")}
    plain = {name: value for name, value in old.items() if name != "summary"}
    genuine = values["digest"] == sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    new = {("stability" if name == "judge" else name): value for name, value in old.items()}
    new["score"] = _SCORES.get(new["score"], new["score"])
    new["summary"] = next((task.summary for task in TASKS if task.id == new["id"]), new["summary"])
    digest = values["digest"]
    if genuine and {field.name for field in fields(Task)} == set(new):
        digest = replace(TASKS[0], **new).digest
        new = json.loads(json.dumps(asdict(replace(TASKS[0], **new))))
    return {**new, "name": values.get("name"), "digest": digest}


def _check(check: dict[str, Any]) -> dict[str, Any]:
    texts = {}
    for name in ("limit", "detail"):
        text = check[name] or ""
        for old, new in _TEXTS.items():
            text = text.replace(old, new)
        texts[name] = text
    return asdict(Check(**{**check, **texts, "name": _CHECKS.get(check["name"], check["name"])}))


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _renamed_deeply(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {_DETAILS.get(name, name): _renamed_deeply(value) for name, value in values.items()}


def _renamed_agent(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    module, colon, name = value.rpartition(":")
    return f"{module}{colon}{_AGENTS.get(name, name)}"

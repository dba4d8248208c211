"""A folder of results as ``crystalgen benchmark run`` writes it, and its page."""

import csv
import gzip
import json

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from benchmarks.metrics.intervals import over_seeds
from benchmarks.report import report
from crystal_env import Crystal

ALKALIS, HALOGENS = ("Li", "Na", "K", "Rb"), ("F", "Cl", "Br", "N")
ROCK_SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90"
CAESIUM_CHLORIDE = "221-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90"


def rows_of(seed, energetic):
    """Return attempts: two dozen crystals of two groups, some twice, and one attempt without a crystal."""
    rng, rows, first = np.random.default_rng(seed), [], {}
    for row in range(48):
        text = (ROCK_SALT, CAESIUM_CHLORIDE)[row % 2].format(
            rng.choice(ALKALIS), rng.choice(HALOGENS), a=(5.6, 3.5)[row % 2]
        )
        crystal = Crystal.from_string(text)
        energy = rng.normal(0.1, 0.15)
        rows.append(
            {
                "row": row,
                "case": 0,
                "formula": crystal.formula,
                "space_group": crystal.G,
                "requested_space_group": crystal.G,
                "crystal": str(crystal),
                "cif": crystal.to_structure().to(fmt="cif"),
                "total": -energy,
                "e_above_hull": energy if energetic and row % 7 else "",
                "structurally_valid": 1,
                "compositionally_valid": row % 3 // 2,
                "novel": int(rng.random() < 0.7),
                "label": first.setdefault(text, row),
            }
        )
    rows.append({"row": 48, "case": 0, "requested_space_group": 221})
    return rows


def entry_of(seed):
    rate = {"count": 12 + seed, "total": 49, "rate": (12 + seed) / 49, "interval": [0.1, 0.4]}
    calls = [10, 20, 30]
    curve = {"calls": calls, **{f"top_{k}": [-0.3, -0.1 - seed / 100, 0.05 * seed] for k in (1, 10, 100)}}
    return {
        "seed": seed,
        "score": 0.2 + seed / 100,
        "calls": 30,
        "budget": 30,
        "seconds": {"training": 100.0, "sampling": 2.0, "evaluation": 3.0},
        "details": [{}],
        "failures": {"an invalid action": 1},
        "summary": {
            "rates": {"valid": rate, "sun_0.1": rate},
            "e_above_hull_mean": 0.12,
            "intervals": {"e_above_hull_mean": [0.1, 0.14]},
            "variety": {"formulas": 16.0},
        },
        "efficiency": {"mean_top_10": 0.5, "calls_to_1": None},
        "curve": curve | {"mean": [-1.0, -0.5, -0.2]},
        "checks": [
            {
                "name": "below_hull_outliers",
                "passed": seed != 1,
                "value": 0.1,
                "limit": "at most 1%",
                "detail": f"{seed} crystals",
            },
            {"name": "large_forces", "passed": None, "value": None, "limit": "", "detail": "nothing was relaxed"},
        ],
    }


def check(name, passed, value, limit, detail):
    return {"name": name, "passed": passed, "value": value, "limit": limit, "detail": detail}


def write_results(folder, seeds=(0, 1, 2), energetic=True, name="An agent", **task):
    """Write a folder as ``crystalgen benchmark run`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [entry_of(seed) for seed in seeds]
    scores = [entry["score"] for entry in entries]
    results = {
        "schema": "crystalgen-results/2",
        "task": {
            "id": "CrystalGen-Stability-v1",
            "summary": "stable crystals",
            "reward": "rewards:EnergyAboveHull" if energetic else "rewards:Validity",
            "score": "sun",
            "threshold": -0.1,
            "range": [-1.0, 0.2],
            "size": 49,
            "cases": [{}],
            "digest": "0123456789abcdef",
            **task,
        },
        "agent": {"name": name, "source": "module:Agent", "settings": {"tau": 0.1}},
        "score": {
            "name": task.get("score", "sun"),
            **over_seeds(scores),
        },
        "reference": {"files": {"known.csv": "abc"}, "crystals": 1234},
        "seeds": entries,
        "flags": ["below_hull_outliers"] if 1 in seeds else [],
        "provenance": {"hashes": {"hull": "abc"}, "versions": {"numpy": "2"}, "hardware": {"cores": 2}, "seconds": 300},
    }
    (folder / "results.json").write_text(json.dumps(results))
    for seed in seeds:
        place = folder / f"seed-{seed}"
        place.mkdir(exist_ok=True)
        rows = rows_of(seed, energetic)
        with gzip.open(place / "samples.csv.gz", "wt", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), restval="")
            table.writeheader()
            table.writerows(rows)
        np.savez(place / "trace.npz", total=np.linspace(-1, 0.1, 30), failure=np.array(["", "broken"] * 15))
    return folder


@pytest.fixture(scope="session", name="rows_of")
def _rows_of():
    return rows_of


@pytest.fixture(scope="session", name="write_results")
def _write_results():
    return write_results


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="session")
def page(folder):
    return report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "PLOTLY")

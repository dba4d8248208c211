"""Known crystals for the baselines."""

import csv
import gzip

import pytest

from benchmarks.baselines.training_set import load_training_set


@pytest.fixture(scope="session")
def training_set(data_folder, tmp_path_factory):
    """A file of 400 known crystals, 60 of them cubic perovskites or other crystals of their group."""
    with gzip.open(data_folder / "mp20_train.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    cubic = [row for row in rows if row["spacegroup"] == "221"][:60]
    path = tmp_path_factory.mktemp("known") / "known.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(cubic + rows[:: len(rows) // 340])
    return str(path)


@pytest.fixture(scope="session")
def known(training_set):
    return load_training_set(training_set)

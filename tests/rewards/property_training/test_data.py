"""Tables of structures and targets: joined, filtered, and split."""

import csv

import numpy as np
import pytest

from crystal_env.crystal import Crystal
from rewards.property_training.data import load_property_data, split


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Rock salts whose target is their lattice parameter, one without a target and one out of range."""
    path = tmp_path_factory.mktemp("data") / "salts.csv"
    lengths = np.linspace(4.0, 7.0, 24)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif", "a", "twice"])
        for i, a in enumerate(lengths):
            salt = Crystal.from_string(f"225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90")
            target = "" if i == 3 else 1000 if i == 5 else f"{a:.4f}"
            writer.writerow([f"salt-{i}", salt.to_structure().to(fmt="cif"), target, 2 * a])
    return path


def test_rows_without_a_target_or_out_of_range_are_left_out(table):
    data = load_property_data([table], ["a", "twice"], low=0, high=100)
    assert data.targets.shape == (22, 2)
    assert data.left_out == {"no structure": 0, "no target": 1, "outside the range": 1}
    np.testing.assert_allclose(data.crystals.L[:, 0], data.targets[:, 0], atol=1e-3)
    np.testing.assert_allclose(data.targets[:, 1], 2 * data.targets[:, 0], atol=1e-3)
    assert "salt-3" not in data.names


def test_targets_of_another_file_are_joined_by_name(table, tmp_path):
    other = tmp_path / "targets.csv"
    other.write_text("material_id,gap\nsalt-7,7.5\nsalt-1,1.5\nnowhere,3\n")
    data = load_property_data([table], ["gap"], other)
    assert data.names == ["salt-1", "salt-7"]
    assert data.targets.tolist() == [[1.5], [7.5]]
    with pytest.raises(ValueError, match=r"targets.csv needs a column 'length'"):
        load_property_data([table], ["length"], other)


def test_split_is_a_partition_in_the_given_proportions():
    parts = split(100, (8, 1, 1), seed=3)
    assert [len(part) for part in parts] == [80, 10, 10]
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert split(100, (8, 1, 1), seed=4)[2].tolist() != parts[2].tolist()
    with pytest.raises(ValueError, match="3 structures are too few"):
        split(3, (8, 1, 1), seed=0)

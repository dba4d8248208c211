"""Errors, tables and the parity plot of a trained model, by hand."""

import csv

import numpy as np
import pytest
from matplotlib.image import imread

from rewards.property_training.data import PropertyData
from rewards.property_training.report import errors_by_part, parity_plot, write_predictions

TARGETS = np.array([[1.0], [2.0], [6.0], [3.0], [4.0], [8.0]])
PREDICTIONS = TARGETS + np.array([[0.5], [-0.5], [0.0], [1.0], [-1.0], [2.0]])
PARTS = (np.array([0, 1, 2]), np.array([3]), np.array([4, 5]))
NAMES = np.array(["train"] * 3 + ["validation"] + ["test"] * 2, object)


def test_errors_are_those_of_the_parts():
    errors = errors_by_part(TARGETS, PREDICTIONS, PARTS)
    assert errors["train_mae"] == pytest.approx(1 / 3)
    assert errors["validation_mae"] == 1.0
    assert (errors["test_mae"], errors["test_bias"]) == (1.5, 0.5)
    assert errors["test_r2"] == pytest.approx(1 - (1 + 4) / (4 + 4))
    assert errors["test_mae_of_training_median"] == pytest.approx((abs(4 - 2) + abs(8 - 2)) / 2)
    assert "test_mae" not in errors_by_part(TARGETS, PREDICTIONS, (*PARTS[:2], np.zeros(0, int)))


def test_predictions_are_a_table_with_a_row_for_each_crystal(tmp_path, crystals):
    data = PropertyData(crystals, TARGETS[:5], [f"row-{i}" for i in range(5)], {})
    write_predictions(tmp_path / "table.csv", data, PREDICTIONS[:5], NAMES[:5], ("gap",))
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["formula"] for row in rows] == [crystal.formula for crystal in crystals]
    assert [row["part"] for row in rows] == NAMES[:5].tolist()
    assert [float(row["predicted_gap"]) for row in rows] == PREDICTIONS[:5, 0].tolist()


@pytest.mark.parametrize("outputs", [1, 6])
def test_the_parity_plot_is_a_picture(tmp_path, outputs):
    targets, predictions = np.repeat(TARGETS, outputs, 1), np.repeat(PREDICTIONS, outputs, 1)
    parity_plot(tmp_path / "parity.png", targets, predictions, NAMES, ("gap",) * outputs)
    picture = imread(tmp_path / "parity.png")
    assert picture.shape[:2] == (645, 675)
    assert picture.std() > 0.05

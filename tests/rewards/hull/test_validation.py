import numpy as np
import pytest

from rewards.hull.validation import compare


def test_numbers_are_those_counted_by_hand():
    energies = np.array([0.0, 0.05, 0.2, 0.15, np.nan, 0.3])
    labels = np.array([0.0, 0.15, 0.2, 0.05, 0.1, np.nan])
    result = compare(energies, labels)
    assert result.n == 4
    assert result.mean_error == pytest.approx(0.05)
    assert result.median_error == pytest.approx(0.05)
    assert result.bias == pytest.approx(0.0)
    assert (result.agreement, result.false_stable, result.false_unstable) == (0.5, 1, 1)


def test_nothing_to_compare_and_different_shapes_are_value_errors():
    with pytest.raises(ValueError, match="no crystal"):
        compare(np.array([np.nan]), np.array([0.1]))
    with pytest.raises(ValueError, match=r"labels must have shape \(1,\), got \(2,\)"):
        compare(np.zeros(1), np.zeros(2))

"""Rows and results are the same numbers, there and back."""

import numpy as np

from crystal_env.reward import RewardResult
from rewards.combinators.rows import Row, join_rows, rows_of


def test_rows_of_a_result_join_to_it_again():
    failures = np.array([None, "iron", None], object)
    result = RewardResult(np.array([1.0, -10.0, 0.1 + 0.2]), {"gap": np.array([2.0, 0.0, 1 / 3])}, failures)
    rows = rows_of(result)
    assert rows[1] == Row(-10.0, {"gap": 0.0}, "iron")
    assert all(type(number) is float for row in rows for number in (row.total, *row.terms.values()))
    joined = join_rows(rows, -10.0)
    assert joined.total.tolist() == result.total.tolist()
    assert joined.terms["gap"].tolist() == result.terms["gap"].tolist()
    assert joined.failures.tolist() == failures.tolist()


def test_missing_terms_are_the_floor_and_success_zero():
    rows = [Row(1.0, {"gap": 2.0, "success": 1.0}), Row(-3.0, {}, "broken"), Row(2.0, {"mass": 5.0})]
    terms = join_rows(rows, -3.0, ["volume"]).terms
    assert list(terms) == ["volume", "gap", "success", "mass"]
    assert {name: values.tolist() for name, values in terms.items()} == {
        "volume": [-3, -3, -3], "gap": [2, -3, -3], "success": [1, 0, 0], "mass": [-3, -3, 5]
    }  # fmt: skip


def test_no_rows_are_an_empty_result_with_the_terms_known():
    result = join_rows([], 0.0, ["gap"])
    assert result.total.shape == result.failures.shape == result.terms["gap"].shape == (0,)
    assert rows_of(RewardResult(np.zeros(2), {}, np.full(2, None, object))) == [Row(0.0, {}), Row(0.0, {})]

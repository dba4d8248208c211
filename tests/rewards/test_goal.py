import numpy as np
import pytest

from rewards.goal import Goal

VALUES = np.array([-1.0, 2.0, 2.5, 4.0])


@pytest.mark.parametrize(
    ("goal", "rewards", "reached"),
    [
        (Goal(), [-1, 2, 2.5, 4], [1, 1, 1, 1]),
        (Goal("maximise", 2.5), [-1, 2, 2.5, 4], [0, 0, 1, 1]),
        (Goal("minimise", 2.0), [1, -2, -2.5, -4], [1, 1, 0, 0]),
        (Goal("mse", 2.0, 0.5), [-9, 0, -0.25, -4], [0, 1, 1, 0]),
        (Goal("mae", 2.0), [-3, 0, -0.5, -2], [0, 1, 0, 0]),
        (Goal("success", 2.0, 0.5), [0, 1, 1, 0], [0, 1, 1, 0]),
        (Goal("mse", 0.0), [-1, -4, -6.25, -16], [0, 0, 0, 0]),
    ],
)
def test_rewards_and_success_follow_the_formulas(goal, rewards, reached):
    np.testing.assert_allclose(goal.reward(VALUES), rewards)
    np.testing.assert_array_equal(goal.reached(VALUES), np.array(reached, bool))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "max"}, r"goal must be one of .*got 'max'"),
        ({"kind": "mse"}, "target must be given with goal 'mse'"),
        ({"kind": "mae", "target": np.inf}, "target must be a finite number"),
        ({"tolerance": -1}, "tolerance must be a finite number of at least 0, got -1"),
    ],
)
def test_impossible_goals_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Goal(**arguments)

from dataclasses import replace

import pytest

from benchmarks.tasks import Task, find_task


def test_digest_is_of_the_definition_and_not_of_its_words():
    task = find_task("validity")
    assert task.digest == replace(task, summary="other words").digest
    assert len({task.digest, task.resized(budget=7).digest, task.resized(size=7).digest}) == 3


def test_case_takes_over_its_constraints():
    task = find_task("structure-prediction")
    assert len({case["formula"] for case in task.cases}) == len(task.cases) == 8
    assert task.case(1).constraints == {"formula": task.cases[1]["formula"]}
    with pytest.raises(ValueError, match="case must be 0 to 7"):
        task.case(8)


def test_resized_task_needs_positive_numbers():
    with pytest.raises(ValueError, match="budget must be positive, got 0"):
        Task("CrystalGen-X-v1", 0, "", "rewards:Validity", "sun").resized(budget=0)

import copy
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards.density import Density
from rewards.remote.ray_pool import RayPool
from rewards.remote.ray_session import session

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def _stop_ray():
    yield
    ray.shutdown()


def make_sizes(folder: Path, pause: float = 0.0):
    """A reward from the cell: a carbon kills its process once, gold always, silver hangs, copper raises, iron fails.

    It is defined in a function, so that workers get it by value: they cannot import this file.
    """

    def sizes(crystals: CrystalBatch) -> RewardResult:
        time.sleep(pause)
        has = {z: (z == crystals.A).any(1) for z in (6, 26, 29, 47, 79)}
        mark = folder / "carbon"
        if has[79].any() or (has[6].any() and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if has[47].any():
            time.sleep(60)
        if has[29].any():
            raise RuntimeError("copper")
        failures = np.where(has[26], "iron", np.full(len(crystals), None, object))
        length = crystals.L[:, 0]
        return RewardResult(length, {"twice": 2 * length, "pid": np.full(len(length), float(os.getpid()))}, failures)

    return sizes


def cubic(element: str, a: float) -> Crystal:
    return Crystal.from_string(f"221-a-{element}-0-0-0-X-{a:.4f}-{a:.4f}-{a:.4f}-90-90-90")


def many(count: int, **others: int) -> CrystalBatch:
    """Sodium crystals of growing size, with other elements at given places."""
    elements = {place: element for element, place in others.items()}
    return CrystalBatch.from_crystals(cubic(elements.get(i, "Na"), 3 + 0.01 * i) for i in range(count))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two workers that stay for several tests."""
    folder = tmp_path_factory.mktemp("pool")
    (folder / "carbon").touch()
    with RayPool(make_sizes(folder), workers=2, chunk_size=4, floor=-3.0) as pool:
        yield pool


def test_workers_give_what_the_reward_gives_in_order(pool):
    crystals = many(50, Fe=7, Cu=30)
    result = pool(crystals)
    scored = np.arange(50) != 30
    assert result.total[scored].tolist() == crystals.L[scored, 0].tolist()
    assert result.terms["twice"][scored].tolist() == (2 * crystals.L[scored, 0]).tolist()
    assert (result.total[30], result.failures[30]) == (-3.0, "RuntimeError: copper")
    assert result.failures[7] == "iron"
    assert [i for i, failure in enumerate(result.failures) if failure is not None] == [7, 30]
    assert pool.deaths == 0


def test_all_workers_work_and_stay(pool):
    end = time.monotonic() + 20
    while len(pool.pids()) < 2 and time.monotonic() < end:  # the first to start may do all of a short call
        pool(many(8))
    before = pool.pids()
    assert set(pool(many(8)).terms["pid"]) == set(before)
    assert pool.pids() == before
    assert len({*before, os.getpid()}) == 3


def test_killed_worker_is_replaced_and_everything_scored(tmp_path):
    crystals = many(40)
    with RayPool(make_sizes(tmp_path, pause=0.1), workers=2, chunk_size=2) as pool:
        first = pool(crystals[:4])
        victim = int(first.terms["pid"][0])  # one that is surely at work, however slowly the other starts
        assert victim in pool.pids()
        killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
        killer.start()
        result = pool(crystals)
        killer.join()
        assert pool.deaths == 1
        assert victim not in pool.pids()
    assert result.total.tolist() == crystals.L[:, 0].tolist()
    assert list(result.failures) == [None] * 40


def test_crystal_that_kills_its_workers_gets_the_floor(tmp_path):
    crystals = many(12, C=2, Au=5)
    # one chunk in flight: of two, the finished one is blamed where the worker dies before its result has left
    with RayPool(make_sizes(tmp_path), workers=1, chunk_size=4, max_in_flight=1, restarts=2, floor=-3.0) as pool:
        result = pool(crystals)
        assert pool.deaths == 4  # carbon takes one worker, gold three
    others = np.arange(12) != 5
    assert result.total[others].tolist() == crystals.L[others, 0].tolist()
    assert list(result.failures[others]) == [None] * 11
    assert result.total[5] == result.terms["twice"][5] == -3.0
    assert result.failures[5].startswith("3 workers died over it, the last one of: ActorDiedError")


def test_crystal_that_takes_too_long_gets_the_floor(tmp_path):
    crystals = many(4, Ag=1)
    with RayPool(make_sizes(tmp_path), workers=1, chunk_size=2, restarts=1, timeout=1.5) as pool:
        result = pool(crystals)
        assert pool.deaths == 2
    assert result.failures[1] == "2 workers died over it, the last one of: no result within 1.5 s"
    assert result.total[[0, 2, 3]].tolist() == crystals.L[[0, 2, 3], 0].tolist()


def test_no_more_than_the_allowed_chunks_are_in_flight(pool, monkeypatch):
    most = []
    collect = RayPool._collect

    def watched(self, queue, rows):
        most.append(max(len(worker.tasks) for worker in self._workers))
        collect(self, queue, rows)

    monkeypatch.setattr(RayPool, "_collect", watched)
    pool(many(60))
    assert max(most) == pool.max_in_flight == 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pool: pickle.loads(ray.cloudpickle.dumps(pool))])
def test_copy_has_workers_of_its_own(pool, duplicate):
    pool(many(4))
    before = pool.pids()
    other = duplicate(pool)
    assert other.pids() == []
    assert pool.pids() == before != []
    assert other(many(4)).total.tolist() == many(4).L[:, 0].tolist()
    assert not set(before) & set(other.pids())
    other.close()


def test_closed_pool_starts_again(pool):
    before = pool.pids()
    pool.close()
    assert pool.pids() == []
    assert pool(many(3)).total.tolist() == many(3).L[:, 0].tolist()
    assert not set(before) & set(pool.pids())


def test_pool_resumes_after_ray_was_stopped(pool, monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    ray.shutdown()
    assert session(ray) is None
    assert pool(many(3)).total.tolist() == many(3).L[:, 0].tolist()
    assert session(ray) == (os.getpid(), ray.get_runtime_context().get_node_id())
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


def test_torch_has_one_thread_in_a_worker():
    def threads(crystals):
        import torch

        return np.full(len(crystals), float(torch.get_num_threads()))

    with RayPool(threads, workers=1, num_cpus=2) as pool:
        assert pool(many(1)).total.tolist() == [1.0]


def test_the_floor_is_that_of_the_reward_where_it_is_lower():
    assert RayPool(Density(clip=20.0)).floor == -20.0
    assert RayPool(Density(clip=2.0), floor=-3.0).floor == -3.0


def test_nothing_is_started_for_no_crystals():
    pool = RayPool("rewards:Validity")
    assert len(pool([]).total) == 0
    assert pool.pids() == []


def test_worker_that_does_not_fit_is_a_value_error(pool):
    pool(many(1))
    with pytest.raises(ValueError, match=r"num_gpus=64, Ray has"):
        RayPool("rewards:Validity", num_gpus=64)(many(1))


def test_missing_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"crystalgen\[ray\]"):
        RayPool("rewards:Validity")


def test_wrong_arguments_are_value_errors():
    for name in ("workers", "chunk_size", "max_in_flight"):
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got 0"):
            RayPool("rewards:Validity", **{name: 0})
    with pytest.raises(ValueError, match="timeout must be a finite number above 0, got 0"):
        RayPool("rewards:Validity", timeout=0)

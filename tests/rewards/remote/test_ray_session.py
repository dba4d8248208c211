"""Ray is found, started once, and the environment of the process left as it was."""

import os
import sys

import pytest

from rewards.remote.ray_session import import_ray, session, start_ray

ray = pytest.importorskip("ray")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'RayPool needs Ray: pip install "crystalgen\[ray\]"'):
        import_ray()


def test_a_session_is_known_by_process_and_node(monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.shutdown()
    assert session(ray) is None
    try:
        start_ray(import_ray(), 1)
        first = session(ray)
        assert first is not None
        assert first[0] == os.getpid()
        assert session(ray) == first
        assert ray.cluster_resources()["CPU"] >= 1
        assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    finally:
        ray.shutdown()
    assert session(ray) is None

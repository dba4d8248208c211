"""A missing Ray names the extra; the session itself is tested with the pool, which starts one."""

import sys

import pytest

from rewards.remote.ray_session import import_ray


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'RayPool needs Ray: pip install "crystalgen\[ray\]"'):
        import_ray()

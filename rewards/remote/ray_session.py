"""Connection of `RayPool` to Ray."""

import logging
import os
from types import ModuleType

from crystal_env.errors import MissingPackageError


def import_ray() -> ModuleType:
    """Return the package ``ray``.

    Raises:
        ImportError: if it is missing; the message names the extra to install.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError('RayPool needs Ray: pip install "crystalgen[ray]"') from error
    return ray


def session(ray: ModuleType) -> tuple[int, str] | None:
    """Return an identifier of this process's connection to a cluster, None without a connection."""
    return (os.getpid(), ray.get_runtime_context().get_node_id()) if ray.is_initialized() else None


def start_ray(ray: ModuleType, cores: int | None) -> None:
    """Connect to the cluster at ``$RAY_ADDRESS``, or start Ray on this machine, quietly."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    if cores is not None:
        cores = max(cores, os.cpu_count() or 1)
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = before or "0"
    try:
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
    finally:
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]

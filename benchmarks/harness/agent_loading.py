"""Agents of the benchmark, by name."""

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.session import Session
from crystal_env.errors import InputError


def load_agent(source: str, kwargs: Mapping[str, Any]) -> Any:
    """Return an agent from ``"module:attribute"``, made with its settings if it is a class, or the path of a file.

    Raises:
        ValueError: if there is no such file or attribute, or the settings do not fit.
    """
    if Path(source).exists():
        return Path(source)
    module, colon, attribute = source.partition(":")
    if not (module and colon and attribute):
        raise InputError(f"agent must be 'module:attribute' or a file of crystals that exists, got {source!r}")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(f"agent {source!r} cannot be imported: {error}") from error
    if not isinstance(target, type):
        return target
    try:
        inspect.signature(target).bind(**kwargs)
    except TypeError as error:
        raise InputError(f"agent_kwargs {dict(kwargs)} do not fit {source}: {error}") from error
    return target(**kwargs)


def trained_agent(agent: Any, session: Session, kwargs: Mapping[str, Any]) -> Any:
    """Return the policy or sampler of an agent, after it has learned from a session if it learns.

    Raises:
        ValueError: if the agent can neither learn nor be sampled.
    """
    if hasattr(agent, "train") and not hasattr(agent, "predict"):
        return agent.train(session)
    if isinstance(agent, Path) or any(hasattr(agent, name) for name in ("act", "sample", "predict", "to_structures")):
        return agent
    if callable(agent):
        return agent(session, **kwargs)
    raise InputError(
        "agent must have train(session), act(observations, masks) or sample(space_groups, seed), be a function of a "
        f"session, a stable-baselines3 model or a file, got {agent!r:.80}"
    )


def settings_of(agent: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an agent's settings, JSON-plain."""
    settings = asdict(agent) if is_dataclass(agent) and not isinstance(agent, type) else dict(kwargs)
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain

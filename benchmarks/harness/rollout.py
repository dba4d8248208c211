"""Rollouts: the samples of an agent that are scored, one attempt for each of the requested space groups."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.samples.readers import read_samples
from benchmarks.samples.samples import Failure, Item, Samples
from benchmarks.tasks import Task, env_kwargs
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.vocabulary import N_SYMBOLS

_EVALUATION = 1_000_003  # keeps the seeds of sampling apart from those of training


def sample_agent(agent: Any, task: Task, seed: int, name: str | None = None, n_jobs: int | None = None) -> Samples:
    """Return the samples of an agent that are scored.

    Every attempt counts: one that ends with an invalid action, or with a crystal that is not of the requested space
    group or does not meet the task's constraints, is a failure. So is a structure outside the representation if the
    task has constraints, which are defined in the representation.

    Args:
        agent: an object with ``act(observations, masks)`` or ``sample(space_groups, seed)``, a stable-baselines3 model,
            a `CrystalBatch`, or a file of crystals of any format of `benchmarks.samples.readers.read_samples`.
        task: the task, of one case.
        seed: seed of the requested space groups and of the agent's sampling.
        name: name on the progress bar; None shows none.
        n_jobs: processes that read a file, None for one a core.

    Raises:
        ValueError: if the agent is none of these, or returns something of the wrong shape.
    """
    seed += _EVALUATION
    if isinstance(agent, str | Path | CrystalBatch):
        samples = read_samples(agent, n_jobs, progress=name is not None).first(task.size).padded(task.size)
        return meet_constraints(replace(samples, requested=np.zeros(task.size, np.int64)), task)
    if _is_crystalformer_agent(agent):
        from benchmarks.harness.model_agent import ModelSampler

        agent = ModelSampler(agent.model, task, getattr(agent.adapter, "bins", 0), agent.config.temperature)
    elif hasattr(agent, "predict") and hasattr(agent, "policy"):
        agent = _StockPolicy(agent)
    if hasattr(agent, "sample"):
        return _sampled(agent, task, seed)
    if hasattr(agent, "act"):
        return _rolled_out(agent, task, seed, name)
    raise InputError(
        "the agent must have act(observations, masks) or sample(space_groups, seed), or be a stable-baselines3 model, "
        f"a CrystalBatch or the path of a file, got {agent!r:.80}"
    )


def keeps(crystals: CrystalBatch, task: Task) -> NDArray[np.bool_]:
    """Return whether letters and elements of crystals (B,) are allowed by a task's constraints."""
    from agents.crystalformer.distribution import decision_masks

    grammar = compile_grammar(constraints(**task.constraints))
    letters, elements = decision_masks(crystals, grammar)
    n, W, A = crystals.n_sites(), crystals.W[:, : letters.shape[1]], crystals.A[:, : letters.shape[1]]
    W, A = (np.pad(array, [(0, 0), (0, letters.shape[1] - array.shape[1])]) for array in (W, A))
    place = np.arange(letters.shape[1])
    letter_fits = np.take_along_axis(letters, W[..., None].astype(np.int64), 2)[..., 0] | (place > n[:, None])
    element_fits = np.take_along_axis(elements, A[..., None].astype(np.int64), 2)[..., 0] | (place >= n[:, None])
    fits: NDArray[np.bool_] = (letter_fits & element_fits).all(1) & (n > 0)
    return fits


def meet_constraints(samples: Samples, task: Task) -> Samples:
    """Return samples with those as failures that are not of the requested space group or break a task's constraints."""
    requested = samples.requested[samples.rows]
    allowed = samples.merge(keeps(samples.crystals, task), np.full(len(samples.structures), not task.constraints))
    groups = samples.space_groups
    reasons = {}
    for position in range(len(samples)):
        if requested[position] > 0 and groups[position] not in (0, requested[position]):
            reasons[position] = f"space group {groups[position]}, requested was {requested[position]}"
        elif not allowed[position] and samples.represented[position]:
            reasons[position] = "the crystal does not meet the task's constraints"
        elif not allowed[position]:
            reasons[position] = "outside the representation, in which the task's constraints are defined"
    return samples.reject(reasons)


def _make(task: Task, kwargs: Mapping[str, Any]) -> VectorEnv:
    """Return an environment with a copy for each attempt, without a reward."""
    kwargs = {**kwargs, **env_kwargs(task), "reward": None, "autoreset_mode": AutoresetMode.SAME_STEP}
    return gym.make_vec("CrystalGen-v0", num_envs=task.size, **kwargs)


def _sampled(agent: Any, task: Task, seed: int) -> Samples:
    """Let a sampler sample whole crystals in the requested space groups."""
    requested = _make(task, {}).reset(seed=seed)[0][:, 0].astype(np.int64)
    crystals = agent.sample(requested, seed=seed)
    if not isinstance(crystals, CrystalBatch) or len(crystals) != task.size:
        raise InputError(f"sample of {type(agent).__name__} must return {task.size} crystals, got {crystals!r:.80}")
    samples = meet_constraints(Samples.from_crystals(crystals, requested=requested), task)
    if hasattr(agent, "log_prob"):
        samples = replace(samples, log_prob=np.asarray(agent.log_prob(samples.crystals), np.float64))
    return samples


def _rolled_out(policy: Any, task: Task, seed: int, name: str | None) -> Samples:
    """Roll out one episode in each copy; those that have ended idle with invalid actions."""
    env = _make(task, getattr(policy, "env_kwargs", {}))
    if hasattr(policy, "seed"):
        policy.seed(seed)
    observations, info = env.reset(seed=seed)
    requested = observations[:, 0].astype(np.int64)
    items: list[Item] = [Failure("the episode did not end")] * task.size
    active = np.ones(task.size, bool)
    idle = np.zeros_like(env.action_space.sample())
    with tqdm(total=task.size, desc=name, unit="crystal", disable=name is None) as bar:
        while active.any():
            actions = idle.copy()
            actions[active] = np.asarray(policy.act(observations[active], info["action_mask"][active] > 0))
            observations, _, terminated, _, info = env.step(actions)
            for row in np.flatnonzero(terminated & active):
                final = info["final_info"]
                invalid = final["invalid_action"][row]
                items[row] = Failure(f"action {actions[row]} is invalid") if invalid else final["crystal"][row]
                bar.update()
            active &= ~terminated
    return Samples.from_items(items, requested=requested)


def _is_crystalformer_agent(agent: Any) -> bool:
    from agents.klppo.klppo import KLPPO

    return isinstance(agent, KLPPO)


class _StockPolicy:
    """Acts as a stable-baselines3 model predicts, by sampling from its policy."""

    def __init__(self, model: Any) -> None:
        import inspect

        n = getattr(model.action_space, "n", None)
        self.model = model
        self.env_kwargs = {"bins": int(n) - N_SYMBOLS} if n else {"action_mode": "continuous"}
        self._masked = "action_masks" in inspect.signature(model.predict).parameters
        self._seed = 0

    def seed(self, seed: int) -> None:
        self._seed = seed

    def act(self, observations: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[Any]:
        from benchmarks.harness.seeding import global_generators

        kwargs = {"action_masks": masks} if self._masked else {}
        self._seed += 1
        with global_generators(self._seed):
            actions: NDArray[Any] = self.model.predict(observations, deterministic=False, **kwargs)[0]
        return actions

"""From an agent to the crystals that it is judged by: one for each attempt, in the space groups that were requested."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.tasks import Task, env_kwargs
from benchmarks.tasks.oracle import write_npz
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.vocabulary import N_SYMBOLS

_ARRAYS = ("G", "W", "A", "XYZ", "L")
_EVALUATION = 1_000_003  # keeps the seeds of drawing apart from those of training


class Drawn(NamedTuple):
    """What N attempts gave.

    Attributes:
        crystals: the n crystals that count.
        rows (n,): which attempts they are of.
        requested (N,): space groups that were asked for, 0 where any will do.
        failures (N,): None, or why an attempt gave nothing.
        log_prob (n,): log-likelihoods, NaN where the agent does not tell.
    """

    crystals: CrystalBatch
    rows: NDArray[np.int64]
    requested: NDArray[np.int64]
    failures: NDArray[np.object_]
    log_prob: NDArray[np.float64]

    def save(self, path: Path) -> None:
        """Write it into an npz file, which `CrystalBatch.load` can read too."""
        failures = np.array([failure or "" for failure in self.failures], np.str_)
        arrays = {name: getattr(self.crystals, name) for name in _ARRAYS}
        write_npz(path, rows=self.rows, requested=self.requested, failures=failures, log_prob=self.log_prob, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            failures = np.array([failure or None for failure in file["failures"].tolist()] + [None], object)[:-1]
            crystals = CrystalBatch(*(file[name] for name in _ARRAYS))
            return cls(crystals, file["rows"], file["requested"], failures, file["log_prob"])


def draw(player: Any, task: Task, seed: int, name: str | None = None) -> Drawn:
    """Let a player draw the crystals by which it is judged.

    Every attempt counts: one that ends with an action that is not allowed, or with a crystal that is not of the
    requested space group or does not meet the task's constraints, gives a failure.

    Args:
        player: an object with ``act(observations, masks)`` or ``sample(space_groups, seed)``, a model of
            stable-baselines3, a `CrystalBatch`, or a file of crystals.
        task: the task, of one case.
        seed: of the requested space groups and of what the player draws.
        name: what the progress bar is called; None shows none.

    Raises:
        ValueError: if it is none of these, or what it returns has the wrong shape.
    """
    seed += _EVALUATION
    if isinstance(player, str | Path):
        return _of_file(Path(player), task)
    if isinstance(player, CrystalBatch):
        return _of_crystals(player, task)
    if _is_crystalformer_agent(player):
        from benchmarks.harness.model_agent import ModelSampler

        player = ModelSampler(player.model, task, getattr(player.adapter, "bins", 0))
    elif hasattr(player, "predict") and hasattr(player, "policy"):
        player = _StockPlayer(player)
    if hasattr(player, "sample"):
        requested = _make(task, {}).reset(seed=seed)[0][:, 0].astype(np.int64)
        crystals = player.sample(requested, seed=seed)
        if not isinstance(crystals, CrystalBatch) or len(crystals) != task.size:
            raise InputError(
                f"sample of {type(player).__name__} must return {task.size} crystals, got {crystals!r:.80}"
            )
        return _checked(crystals, requested, player, task)
    if hasattr(player, "act"):
        return _play(player, task, seed, name)
    raise InputError(
        "the player must have act(observations, masks) or sample(space_groups, seed), or be a model of "
        f"stable-baselines3, a CrystalBatch or the path of a file, got {player!r:.80}"
    )


def keeps(crystals: CrystalBatch, task: Task) -> NDArray[np.bool_]:
    """Return whether letters and elements of crystals (B,) are what a task's constraints allow."""
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


def _make(task: Task, kwargs: Mapping[str, Any]) -> VectorEnv:
    """Return an environment with a copy for each attempt, without a reward."""
    kwargs = {**kwargs, **env_kwargs(task), "reward": None, "autoreset_mode": AutoresetMode.SAME_STEP}
    return gym.make_vec("CrystalGen-v0", num_envs=task.size, **kwargs)


def _play(player: Any, task: Task, seed: int, name: str | None) -> Drawn:
    """Play one episode in each copy; those that have ended idle with what is not allowed."""
    env = _make(task, getattr(player, "env_kwargs", {}))
    if hasattr(player, "seed"):
        player.seed(seed)
    observations, info = env.reset(seed=seed)
    requested = observations[:, 0].astype(np.int64)
    crystals: list[Crystal | None] = [None] * task.size
    failures = np.full(task.size, None, object)
    active = np.ones(task.size, bool)
    idle = np.zeros_like(env.action_space.sample())
    with tqdm(total=task.size, desc=name, unit="crystal", disable=name is None) as bar:
        while active.any():
            actions = idle.copy()
            actions[active] = np.asarray(player.act(observations[active], info["action_mask"][active] > 0))
            observations, _, terminated, _, info = env.step(actions)
            for row in np.flatnonzero(terminated & active):
                final = info["final_info"]
                if final["invalid_action"][row]:
                    failures[row] = f"action {actions[row]} is not allowed"
                else:
                    crystals[row] = final["crystal"][row]
                bar.update()
            active &= ~terminated
    rows = np.array([row for row, crystal in enumerate(crystals) if crystal is not None], np.int64)
    finished = CrystalBatch.from_crystals([crystal for crystal in crystals if crystal is not None])
    log_prob = np.full(len(rows), np.nan)
    return Drawn(finished, rows, requested, failures, log_prob)


def _checked(crystals: CrystalBatch, requested: NDArray[np.int64], player: Any, task: Task) -> Drawn:
    """Sort out crystals that are not what was asked for."""
    failures = np.full(len(crystals), None, object)
    for row in np.flatnonzero(~keeps(crystals, task)):
        failures[row] = "the crystal does not meet the task's constraints"
    for row in np.flatnonzero((requested > 0) & (requested != crystals.G)):
        failures[row] = f"space group {crystals.G[row]}, requested was {requested[row]}"
    rows = np.array([row for row, failure in enumerate(failures) if failure is None], np.int64)
    log_prob = np.full(len(rows), np.nan)
    if hasattr(player, "log_prob"):
        log_prob = np.asarray(player.log_prob(crystals[rows]), np.float64)
    return Drawn(crystals[rows], rows, requested, failures, log_prob)


def _of_crystals(crystals: CrystalBatch, task: Task) -> Drawn:
    """Take the first crystals of a file; what is missing are failures."""
    crystals = crystals[: task.size]
    drawn = _checked(crystals, np.zeros(len(crystals), np.int64), None, task)
    missing = task.size - len(crystals)
    failures = np.append(drawn.failures, np.full(missing, "missing", object))
    return drawn._replace(requested=np.zeros(task.size, np.int64), failures=failures)


def _of_file(path: Path, task: Task) -> Drawn:
    """Take the first entries of a file; what is no crystal is a failure, and says why."""
    from crystal_env.dataset import load_crystals

    if path.suffix == ".npz":
        return _of_crystals(CrystalBatch.load(path), task)
    tokens = load_crystals(path)
    failures = np.full(task.size, "missing", object)
    failures[tokens.index[tokens.index < task.size]] = None
    for row, reason in tokens.skipped.items():
        if row < task.size:
            failures[row] = str(reason)
    index = tokens.index[tokens.index < task.size]
    drawn = _checked(tokens.crystals[: len(index)], np.zeros(len(index), np.int64), None, task)
    failures[index] = drawn.failures
    return drawn._replace(rows=index[drawn.rows], requested=np.zeros(task.size, np.int64), failures=failures)


def _is_crystalformer_agent(player: Any) -> bool:
    from agents.klppo.klppo import KLPPO

    return isinstance(player, KLPPO)


class _StockPlayer:
    """Acts as a stable-baselines3 model predicts, drawing from its policy."""

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

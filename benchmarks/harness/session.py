"""The interface that an agent of the benchmark learns from: a task's environments around its metered oracle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv
from tqdm import tqdm

from benchmarks.tasks import Oracle, Task, env_kwargs
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, RewardResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stable_baselines3.common.callbacks import BaseCallback

    from crystal_env.crystal import Crystal

_PATIENCE = 20


class Session:
    """One training run on a task: everything that an agent learns, it learns through this.

    Args:
        task: the task, of one case.
        seed: seed of everything random in the agent.
        folder: folder for the agent's own files, such as checkpoints.
        answers: an SQLite file that keeps the oracle's answers.
        name: name on the progress bar; None shows none.

    Attributes:
        task: the task.
        seed: the seed.
        folder: the agent's folder.
        oracle: the metered reward; ``oracle.left`` says how many calls are left.
    """

    def __init__(
        self,
        task: Task,
        seed: int = 0,
        folder: Path | None = None,
        answers: Path | None = None,
        name: str | None = None,
    ) -> None:
        if len(task.cases) > 1:
            raise InputError(f"task must be of one case, such as task.case(0); {task.id} has {len(task.cases)}")
        self.task, self.seed, self.folder = task, int(seed), folder or Path()
        self._bar = tqdm(total=task.budget, desc=name, unit="call", disable=name is None)
        self.oracle = Oracle(task, path=answers, on_query=self._show)

    def make(self, **kwargs: Any) -> gym.Env:
        """Return the task's environment; see `crystal_env.CrystalGenEnv`.

        Args:
            kwargs: such as ``bins=48`` or ``action_mode="continuous"``.

        Raises:
            ValueError: if they would change the task.
        """
        return gym.make("CrystalGen-v0", reward=self.oracle, **self._checked(kwargs))

    def make_vec(self, num_envs: int = 64, shaped: Reward | None = None, **kwargs: Any) -> VectorEnv:
        """Return the task's environment in ``num_envs`` copies, natively batched, with autoreset mode SAME_STEP.

        Args:
            num_envs: number of copies.
            shaped: the reward to learn from in place of the oracle's, which must get all its answers from ``oracle``.
            kwargs: such as ``bins=48``.

        Raises:
            ValueError: if the arguments would change the task.
        """
        kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP, **self._checked(kwargs)}
        if shaped is not None:
            kwargs["invalid_reward"] = None
        return gym.make_vec("CrystalGen-v0", num_envs=num_envs, reward=shaped or self.oracle, **kwargs)

    def score(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Return the oracle's rewards of crystals (B,)."""
        return self.oracle(crystals)

    def callback(self) -> "BaseCallback":
        """Return a callback of stable-baselines3 that ends learning when the budget is spent.

        It also ends it after twenty times as many queries: an agent that repeats the same few crystals forever spends
        nothing.
        """
        return _budget_callback(self.oracle, _PATIENCE * self.task.budget)

    def progress(self, text: str | None) -> None:
        """Show a text beside the number of calls, such as the phase of the agent's training."""
        self._bar.set_postfix_str(text or "")

    def close(self) -> None:
        """End the progress bar."""
        self._bar.close()

    def _show(self, calls: int) -> None:
        self._bar.update(calls - self._bar.n)

    def _checked(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        fixed = env_kwargs(self.task) | {"reward": None, "reward_kwargs": None}
        if changed := sorted(set(kwargs) & set(fixed)):
            raise InputError(f"{changed} are fixed by {self.task.id}, the agent cannot change them")
        return kwargs | env_kwargs(self.task)


def _budget_callback(oracle: Oracle, max_queries: int) -> "BaseCallback":
    """Return a callback that ends learning with the oracle's budget, or after that many queries."""
    from stable_baselines3.common.callbacks import BaseCallback  # many agents do without

    class BudgetCallback(BaseCallback):
        def _on_step(self) -> bool:
            return not oracle.spent and oracle.queried < max_queries

    return BudgetCallback()

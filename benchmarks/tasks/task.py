"""The definition of a task: environment, oracle budget and score, frozen."""

import json
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from crystal_env.errors import InputError

Tier = Literal[0, 1, 2]


@dataclass(frozen=True)
class Task:
    """A benchmark task, JSON-plain; a task with any other value needs a new version in its id.

    Attributes:
        id: name of the registered environment, with a version.
        tier: 0 needs no model, 1 the embedded CHGNet, 2 weights that the user supplies and better a GPU.
        summary: the goal, in a sentence.
        reward: ``"module:attribute"`` of the oracle's reward.
        score: the score that ranks agents, a name in `benchmarks.harness.scores`; higher is better.
        reward_kwargs: arguments of the reward. A string that starts with ``$`` is the name of an environment variable.
        floor: the total of a crystal that cannot be scored, and of one beyond the budget.
        constraints: constraints on crystals, as arguments of the environment.
        budget: oracle calls, different crystals by their canonical keys.
        size: number of samples of an agent for the score.
        threshold: lowest total of a success.
        range: totals that are 0 and 1 in ``mean_top_k``.
        key: identity of crystals for the oracle: ``"canonical"``, the same crystal in any setting, or
            ``"composition"``.
        cases: constraints of sub-problems, each with a budget and a sample of its own.
        stability: whether samples are evaluated by their energy above the hull of CHGNet.
    """

    id: str
    tier: Tier
    summary: str
    reward: str
    score: str
    reward_kwargs: dict[str, Any] = field(default_factory=dict)
    floor: float = -10.0
    constraints: dict[str, Any] = field(default_factory=dict)
    budget: int = 10_000
    size: int = 1000
    threshold: float = 0.0
    range: tuple[float, float] = (0.0, 1.0)
    key: Literal["canonical", "composition"] = "canonical"
    cases: tuple[dict[str, Any], ...] = ({},)
    stability: bool = True

    @property
    def name(self) -> str:
        """The short name, such as ``"bulk-modulus"`` of ``"CrystalGen-BulkModulus-v1"``."""
        words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in self.id.split("-")[1])
        return words.removeprefix("-")

    @property
    def options(self) -> dict[str, Any]:
        """The constraints beside the space group, as arguments of a CrystalFormer's ``sample``."""
        return {name: value for name, value in self.constraints.items() if name != "space_group"}

    @property
    def digest(self) -> str:
        """The SHA-256 of the definition: results are compared only if it is the same."""
        plain = {name: value for name, value in asdict(self).items() if name != "summary"}
        return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def case(self, number: int) -> "Task":
        """Return the task of one sub-problem.

        Raises:
            ValueError: if there is no such case.
        """
        if not 0 <= number < len(self.cases):
            raise InputError(f"case must be 0 to {len(self.cases) - 1} in {self.id}, got {number}")
        return replace(self, constraints={**self.constraints, **self.cases[number]}, cases=({},))

    def resized(self, budget: int | None = None, size: int | None = None) -> "Task":
        """Return the task with another budget or sample: another task, by its digest.

        Raises:
            ValueError: if a number is not positive.
        """
        for name, value in (("budget", budget), ("size", size)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be positive, got {value}")
        return replace(self, budget=budget or self.budget, size=size or self.size)

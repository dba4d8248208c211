"""The benchmark: tasks, metrics, baselines and reports, and the figures of the paper.

`samples` holds what generators gave, `metrics` their numbers, `tasks` the definitions, `harness` the protocol,
`evaluation` the metrics of any file, `report` the pages. `baselines` and `libraries` are agents, `cli` the command
``crystalgen``; `paper`, `model_card`, `speed` and `verify` make the published figures, cards, timings and checks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.evaluation.evaluate import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    """Import what is asked for with its first use."""
    if name != "evaluate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from benchmarks.evaluation.evaluate import evaluate

    return evaluate

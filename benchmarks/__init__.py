"""Tasks, metrics, baselines and reports of the benchmark, and the figures of the paper."""

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

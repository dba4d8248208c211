"""Results in a few lines of text."""

from typing import Any

from benchmarks.metrics.intervals import interval_name
from benchmarks.metrics.labels import CHECKS, label
from benchmarks.metrics.reference import reference_text


def summary(results: dict[str, Any]) -> str:
    """Return the score over seeds, the oracle calls, the failed checks and the reference of novelty."""
    score = results["score"]
    low, high = score["interval"] or (None, None)
    interval = f" [{low:.4f}, {high:.4f}]" if low is not None else ""
    flags = ", ".join(CHECKS.get(name, name) for name in results["flags"])
    lines = [
        f"{results['agent']['name']} on {results['task']['id']}",
        f"  {label(score['name'])}: {score['value']:.4f}{interval} ({interval_name(len(score['per_seed']))})",
        f"  oracle calls: {', '.join(str(entry['calls']) for entry in results['seeds'])}",
        f"  novel against: {reference_text(results.get('reference', {}))}",
        f"  failed checks: {flags or 'none'}",
    ]
    return "\n".join(lines)

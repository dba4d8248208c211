"""Graph neural networks on many structures: graphs built in parallel, evaluated in batches of bounded cost."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

_PER_JOB = 32  # structures that one worker takes at a time
_MIN_BAR = 256  # structures; fewer show no progress bar
_MAX_EDGES = 200_000  # of one structure: seconds and gigabytes with any of the models


class GraphModel(NamedTuple):
    """A model as two functions.

    Attributes:
        build: structure -> graph and its cost in edges; raises for a structure the model cannot take.
        evaluate: graphs -> one result each.
    """

    build: Callable[["Atoms"], tuple[Any, int]]
    evaluate: Callable[[list[Any]], Sequence[Any]]


class _Part(NamedTuple):
    """The graphs of some structures: their rows, graphs and costs, and what failed."""

    rows: list[int]
    graphs: list[Any]
    costs: list[int]
    failures: dict[int, str]


def run_in_batches(
    atoms: "Sequence[Atoms]",
    load: Callable[[], GraphModel],
    *,
    device: str,
    max_edges: int,
    graph_workers: int | None = None,
    progress: bool = False,
    label: str = "",
) -> tuple[list[Any], NDArray[np.object_]]:
    """Return one result per structure, None where it failed, and the reasons (B,).

    Structures of one size are evaluated together, large ones first. On a CPU every core builds and evaluates its own
    batches with one thread; on another device worker processes build graphs ahead while the model runs in this one. A
    batch that fails is evaluated again structure by structure. Torch's settings and random state are unchanged.

    Args:
        atoms: B structures.
        load: returns the model; called once, with torch's default settings.
        device: a torch device.
        max_edges: largest sum of costs in a batch.
        graph_workers: processes that build graphs; None for none on a CPU and one per core else.
        progress: show a bar with the time left for more than 256 structures.
        label: label of the bar.
    """
    from tqdm import tqdm

    results: list[Any] = [None] * len(atoms)
    failures = np.full(len(atoms), None, object)
    order = np.argsort([len(a) for a in atoms], kind="stable")[::-1].tolist()
    jobs = [order[start : start + _PER_JOB] for start in range(0, len(order), _PER_JOB)]
    on_cpu = device == "cpu"
    workers = (0 if on_cpu else os.cpu_count() or 1) if graph_workers is None else graph_workers
    with (
        library_defaults() as threads,
        warnings.catch_warnings(),
        tqdm(total=len(atoms), desc=label, unit="crystal", disable=not progress or len(atoms) < _MIN_BAR) as bar,
    ):
        warnings.simplefilter("ignore")  # of the libraries on their own use of torch
        model = load()
        parts = [(rows, [atoms[row] for row in rows]) for rows in jobs]
        if workers:
            done = _evaluate_ahead(_in_processes(model.build, parts, workers), model.evaluate, max_edges)
        else:
            done = _in_threads(model, parts, max_edges, threads if on_cpu else 1)
        for found, reasons in done:
            for row, value in found.items():
                results[row] = value
            for row, reason in reasons.items():
                failures[row] = reason
            bar.update(len(found) + len(reasons))
    return results, failures


def _in_threads(
    model: GraphModel, parts: "list[tuple[list[int], list[Atoms]]]", max_edges: int, threads: int
) -> Iterator[tuple[dict[int, Any], dict[int, str]]]:
    def work(job: "tuple[list[int], list[Atoms]]") -> tuple[dict[int, Any], dict[int, str]]:
        part = _build(model.build, *job)
        found, reasons = {}, dict(part.failures)
        for batch in _batches(zip(part.rows, part.graphs, part.costs, strict=True), max_edges):
            good, bad = _checked(model.evaluate, *batch)
            found.update(good)
            reasons.update(bad)
        return found, reasons

    with ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
        yield from pool.map(work, parts)


def _in_processes(
    build: Callable[["Atoms"], tuple[Any, int]], parts: "list[tuple[list[int], list[Atoms]]]", workers: int
) -> Iterator[_Part]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, return_as="generator", pre_dispatch="2*n_jobs")
    yield from parallel(delayed(_build)(build, *part) for part in parts)


def _evaluate_ahead(
    parts: Iterable[_Part], evaluate: Any, max_edges: int
) -> Iterator[tuple[dict[int, Any], dict[int, str]]]:
    reasons: dict[int, str] = {}

    def graphs() -> Iterator[tuple[int, Any, int]]:
        for part in parts:
            reasons.update(part.failures)
            yield from zip(part.rows, part.graphs, part.costs, strict=True)

    for batch in _batches(graphs(), max_edges):
        yield _checked(evaluate, *batch)
    yield {}, reasons


def _build(build: Callable[["Atoms"], tuple[Any, int]], rows: list[int], atoms: "list[Atoms]") -> _Part:
    part = _Part([], [], [], {})
    for row, structure in zip(rows, atoms, strict=True):
        try:
            graph, cost = build(structure)
        except Exception as error:  # noqa: BLE001  whatever breaks on one structure must not break the others
            part.failures[row] = f"{type(error).__name__}: {error}"
            continue
        part.rows.append(row)
        part.graphs.append(graph)
        part.costs.append(cost)
    return part


def _batches(graphs: Iterable[tuple[int, Any, int]], max_edges: int) -> Iterator[tuple[list[int], list[Any]]]:
    """Yield rows and graphs in batches that cost at most ``max_edges``, or hold a single graph."""
    rows: list[int] = []
    batch: list[Any] = []
    pending = 0
    for row, graph, cost in graphs:
        if rows and pending + cost > max_edges:
            yield rows, batch
            rows, batch, pending = [], [], 0
        rows.append(row)
        batch.append(graph)
        pending += cost
    if rows:
        yield rows, batch


def _checked(evaluate: Any, rows: list[int], graphs: list[Any]) -> tuple[dict[int, Any], dict[int, str]]:
    """Return results and reasons by row; a batch that fails is evaluated again one by one."""
    try:
        values = evaluate(graphs)
    except Exception as error:  # noqa: BLE001  whatever breaks on one structure must not break the others
        if len(rows) == 1:
            return {}, {rows[0]: f"{type(error).__name__}: {error}"}
        parts = [_checked(evaluate, [row], [graph]) for row, graph in zip(rows, graphs, strict=True)]
        return {k: v for found, _ in parts for k, v in found.items()}, {
            k: v for _, bad in parts for k, v in bad.items()
        }
    found, reasons = {}, {}
    for row, value in zip(rows, values, strict=True):
        if all(np.isfinite(part).all() for part in (value if isinstance(value, tuple) else (value,))):
            found[row] = value
        else:
            reasons[row] = "the model gave a number that is not finite"
    return found, reasons


def checked_edges(n_edges: int) -> int:
    """Return the number of edges of one structure, if it is not too large.

    Raises:
        ValueError: if there are more than 200,000 of them.
    """
    if n_edges > _MAX_EDGES:
        raise ValueError(f"the structure is too dense: {n_edges} edges, at most {_MAX_EDGES} are allowed")
    return n_edges


@contextmanager
def library_defaults() -> Iterator[int]:
    """Run a library with torch's default dtype, and restore torch's settings and random state.

    Inference mode is off, since a model loaded in it could never be differentiated for forces. Yields the number of
    threads torch may use.
    """
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            yield threads
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def _one_thread() -> None:
    """Use one thread: several threads in one small operation wait for each other most of the time."""
    import torch

    torch.set_num_threads(1)

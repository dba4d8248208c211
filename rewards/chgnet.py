"""CHGNet 0.3.0 as a batched potential: Deng et al., Nat. Mach. Intell. 5, 1031 (2023)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from io import StringIO
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rewards.bond_graph import count_angles, find_angles, find_bonds
from rewards.potentials import Energies

if TYPE_CHECKING:
    from ase import Atoms

_MODEL = "0.3.0"
_MAX_NUMBER = 94
_PER_JOB = 32  # structures that one thread takes at a time
_COST_PER_BATCH = 30_000  # edges and angles evaluated together; more is slower on a CPU, and takes more memory
_MAX_COST = 200_000  # edges and angles of one structure: 2 s and 1 GB on two cores


@dataclass(frozen=True)
class CHGNetPotential:
    """CHGNet 0.3.0 with the weights of its wheel.

    Its energies are on the corrected MP2020 scale of the Materials Project. The model is loaded with the first call,
    once per process. A structure's energy does not depend on its batch beyond rounding (1e-5 eV/atom).

    Args:
        device: a torch device, such as ``"cpu"`` or ``"cuda"``.
    """

    device: str = "cpu"
    name: ClassVar[str] = f"chgnet-{_MODEL}"

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other.

        An atom without any neighbour within 6 Å contributes the energy the model gives it alone.
        """
        total, failures = np.full(len(atoms), np.nan), np.full(len(atoms), None, object)
        order = np.argsort([len(a) for a in atoms], kind="stable")[
            ::-1
        ]  # structures of one size together, large ones first
        parts = [order[start : start + _PER_JOB] for start in range(0, len(order), _PER_JOB)]
        with _library_defaults() as threads:
            model = _load_model(self.device)
            job = partial(_energies, model=model, device=self.device)
            workers = threads if self.device == "cpu" else 1
            with ThreadPoolExecutor(workers, initializer=_one_thread) as pool:
                for part, energies in zip(parts, pool.map(job, ([atoms[i] for i in p] for p in parts)), strict=True):
                    total[part], failures[part] = energies
        return Energies(total, failures)


@contextmanager
def _library_defaults() -> Iterator[int]:
    """Give the model torch's default dtype, and leave torch's settings and random state as found.

    Yields the number of threads torch may use.
    """
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng(devices=[]):
            yield threads
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def _one_thread() -> None:
    """Let a worker compute alone: threads that share one small operation wait for each other most of the time."""
    import torch

    torch.set_num_threads(1)


@lru_cache(maxsize=4)
def _load_model(device: str) -> Any:
    from chgnet.model.model import CHGNet

    with redirect_stdout(StringIO()):  # it prints even when it is asked not to
        return CHGNet.load(model_name=_MODEL, use_device=device, verbose=False).eval()


def _energies(atoms: "list[Atoms]", model: Any, device: str) -> Energies:
    """Return the energies of structures, in batches of bounded cost."""
    import torch

    total, failures = np.full(len(atoms), np.nan), np.full(len(atoms), None, object)
    with torch.no_grad():
        for rows, graphs in _batches(atoms, failures):
            for row, energy in zip(rows, _evaluate(model, graphs, device), strict=True):
                if isinstance(energy, str):
                    failures[row] = energy
                else:
                    total[row] = energy * len(atoms[row])
    return Energies(total, failures)


def _batches(atoms: "list[Atoms]", failures: NDArray[np.object_]) -> Iterator[tuple[list[int], list[Any]]]:
    """Yield graphs with their rows, in batches of bounded cost; a failure is written down."""
    rows: list[int] = []
    graphs: list[Any] = []
    pending = 0
    for row, structure in enumerate(atoms):
        try:
            graph, cost = _graph(structure)
        except Exception as error:  # noqa: BLE001  whatever breaks on one structure must not break the others
            failures[row] = f"{type(error).__name__}: {error}"
            continue
        if rows and pending + cost > _COST_PER_BATCH:
            yield rows, graphs
            rows, graphs, pending = [], [], 0
        rows.append(row)
        graphs.append(graph)
        pending += cost
    if rows:
        yield rows, graphs


def _graph(atoms: "Atoms") -> tuple[Any, int]:
    """Return the model's graph of a structure and the number of its edges and angles.

    Raises:
        ValueError: if the model does not know an element, a number is not finite, or the graph is too large.
    """
    import torch
    from chgnet.graph.crystalgraph import CrystalGraph

    atom_cutoff, bond_cutoff = 6.0, 3.0  # Å, those the model was trained with
    numbers = atoms.numbers
    if numbers.max() > _MAX_NUMBER:
        raise ValueError(f"CHGNet knows the elements up to Pu, got atomic number {numbers.max()}")
    fractional = atoms.positions @ np.linalg.inv(atoms.cell.array)
    if not np.isfinite(fractional).all():
        raise ValueError("positions and cell must be finite")
    bonds = find_bonds(atoms.positions, atoms.cell.array, atom_cutoff)
    cost = len(bonds.center) + count_angles(bonds, bond_cutoff)
    if cost > _MAX_COST:
        raise ValueError(f"the structure is too dense: {cost} bonds and angles, at most {_MAX_COST} are allowed")
    first, second = find_angles(bonds, bond_cutoff)
    angles = (bonds.center[first], bonds.undirected[first], first, bonds.undirected[second], second)

    def integers(array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array, np.int32))

    def floats(array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    graph = CrystalGraph(
        atomic_number=integers(numbers),
        atom_frac_coord=floats(fractional),
        atom_graph=integers(np.stack([bonds.center, bonds.neighbor], 1)),
        atom_graph_cutoff=atom_cutoff,
        neighbor_image=floats(bonds.image),
        directed2undirected=integers(bonds.undirected),
        undirected2directed=integers(bonds.directed),
        bond_graph=integers(np.stack(angles, 1)),
        bond_graph_cutoff=bond_cutoff,
        lattice=floats(atoms.cell.array),
    )
    return graph, cost


def _evaluate(model: Any, graphs: list[Any], device: str) -> list[float | str]:
    """Return energies in eV/atom, or reasons why there are none; a batch that fails is asked again one by one."""
    try:
        energies = model([graph.to(device) for graph in graphs], task="e")["e"].cpu().double().tolist()
    except Exception as error:  # noqa: BLE001  whatever breaks on one structure must not break the others
        if len(graphs) == 1:
            return [f"{type(error).__name__}: {error}"]
        return [energy for graph in graphs for energy in _evaluate(model, [graph], device)]
    return [energy if np.isfinite(energy) else f"CHGNet gave {energy}" for energy in energies]

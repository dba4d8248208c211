"""Models of matgl, batched: M3GNet, TensorNet, CHGNet as potentials, and graphs for property models."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rewards.potentials.batching import GraphModel, checked_edges, run_in_batches
from rewards.potentials.bond_graph import find_neighbors
from rewards.potentials.interface import PBE, Energies, Forces, as_energies, as_forces, name_of_file
from rewards.potentials.matgl_files import Aggregation, load_matgl

if TYPE_CHECKING:
    from ase import Atoms

_PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class _MatglModel:
    """What potentials and property models share: files, device, and how structures are put into batches."""

    model: str | Path
    aggregation: Aggregation = "auto"
    device: str = "cpu"
    precision: str = "float32"
    max_edges: int = 20_000
    graph_workers: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise ValueError(f"precision must be one of {_PRECISIONS}, got {self.precision!r}")
        if self.max_edges < 1:
            raise ValueError(f"max_edges must be positive, got {self.max_edges}")

    @property
    def name(self) -> str:
        """The name of the model: the last part of its path or name; of a folder also the digest of its weights."""
        return name_of_file(Path(self.model).name, Path(self.model) / "state.pt")

    def _run(
        self, atoms: "Sequence[Atoms]", is_potential: bool, max_edges: int, **options: Any
    ) -> tuple[list[Any], NDArray[np.object_]]:
        return run_in_batches(
            atoms,
            partial(self._graph_model, is_potential, options),
            device=self.device,
            max_edges=max(max_edges, 1),
            graph_workers=self.graph_workers,
            progress=self.progress,
            label=self.name,
        )

    def _graph_model(self, is_potential: bool, options: dict[str, Any]) -> GraphModel:
        model = load_model(str(self.model), self.aggregation, self.device, self.precision)
        if hasattr(model, "calc_forces") != is_potential:
            kinds = ("a property model, no potential", "a potential, no property model")
            raise ValueError(f"model {self.model} is {kinds[not is_potential]}")
        inner = getattr(model, "model", model)
        network = _Kind(tuple(inner.element_types), float(inner.cutoff))
        return GraphModel(
            partial(graph_of, network=network, precision=self.precision),
            partial(evaluate_graphs, model, device=self.device, **options),
        )


@dataclass(frozen=True)
class MatglPotential(_MatglModel):
    """A potential of matgl: M3GNet, TensorNet and others. Loaded with the first call, once per process.

    Args:
        model: a folder, or a name that matgl fetches from Hugging Face; see `load_matgl`.
        aggregation: how the model was trained; see `load_matgl`.
        device: a torch device, such as ``"cpu"`` or ``"cuda"``.
        precision: ``"float32"`` or ``"float64"``.
        max_edges: bonds evaluated together.
        graph_workers: processes that build graphs, by default none on a CPU and one per core else.
        progress: show a bar with the time left on long lists.
        scale: the scale of its energies. The default, `PBE`, is that of models of Materials Project data; give
            another name for others, such as ``"MatPES-r2SCAN"``.

    Raises:
        ValueError: if ``precision`` is another, or ``max_edges`` is not positive. The first call raises what
            `load_matgl` does, and ValueError if the model is no potential.
    """

    scale: str = PBE

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other."""
        return as_energies(*self._run(atoms, True, self.max_edges, forces=False))

    def forces(self, atoms: "Sequence[Atoms]") -> Forces:
        """Return energies, forces and stress; a structure that fails gets NaN and a reason and harms no other."""
        return as_forces(atoms, *self._run(atoms, True, self.max_edges // 4, forces=True))


@dataclass(frozen=True)
class MatglProperty(_MatglModel):
    """A property model of matgl: crystals -> one or several numbers. Loaded with the first call, once per process.

    Args:
        model, aggregation, device, precision, max_edges, graph_workers, progress: as for `MatglPotential`.
        state: the label of a model with states: MEGNet's multi-fidelity band gaps have 0 for PBE, 1 for GLLB-SC, 2 for
            HSE and 3 for SCAN. Other models ignore it.

    Raises:
        ValueError: as `MatglPotential` does; the first call if the model is a potential.
    """

    state: int = 0

    def __call__(self, atoms: "Sequence[Atoms]") -> tuple[NDArray[np.float64], NDArray[np.object_]]:
        """Return predictions (B, outputs), NaN where there is none, and the reasons (B,)."""
        results, failures = self._run(atoms, False, self.max_edges, state=self.state)
        width = max((len(r) for r in results if r is not None), default=1)
        return np.array([np.full(width, np.nan) if r is None else r for r in results]).reshape(-1, width), failures


@dataclass(frozen=True)
class _Kind:
    """What of a network its graphs depend on."""

    element_types: tuple[str, ...]
    cutoff: float


@lru_cache(maxsize=4)
def load_model(model: str, aggregation: Aggregation, device: str, precision: str) -> Any:
    """Return a model of matgl once per process, on its device."""
    import torch

    return load_matgl(model, aggregation).to(device=device, dtype=getattr(torch, precision))


def graph_of(atoms: "Atoms", network: Any, precision: str = "float32") -> tuple[Any, int]:
    """Return the graph of a structure for a network with ``element_types`` and ``cutoff``, and its number of edges.

    Raises:
        ValueError: if the network does not know an element, a number is not finite, there is no edge, or too many.
    """
    import torch
    from torch_geometric.data import Data

    symbols = atoms.get_chemical_symbols()
    unknown = sorted(set(symbols) - set(network.element_types))
    if unknown or not symbols:
        raise ValueError(f"the model does not know {', '.join(unknown)}" if unknown else "there are no atoms")
    index = {symbol: i for i, symbol in enumerate(network.element_types)}
    fractional = atoms.positions @ np.linalg.inv(atoms.cell.array)
    if not np.isfinite(fractional).all():
        raise ValueError("positions and cell must be finite")
    center, neighbor, image, _ = find_neighbors(atoms.positions, atoms.cell.array, float(network.cutoff))
    if not len(center):
        raise ValueError(f"no two atoms are within {float(network.cutoff):g} Å")
    cost = checked_edges(len(center))
    graph = Data(
        num_nodes=len(symbols),
        edge_index=torch.from_numpy(np.stack([center, neighbor])),
        pbc_offset=torch.from_numpy(image.astype(precision)),
        node_type=torch.tensor([index[symbol] for symbol in symbols]),
        frac_coords=torch.from_numpy(fractional.astype(precision)),
        lattice=torch.from_numpy(atoms.cell.array.astype(precision))[None],
    )
    return graph, cost


def evaluate_graphs(model: Any, graphs: list[Any], device: str, forces: bool = False, state: int = 0) -> list[Any]:
    """Return what a model says of graphs.

    That is for a potential the total energy in eV, with ``forces`` a triple with forces in eV/Å and stress in eV/Å^3,
    and for a property model its outputs (k,).
    """
    import torch
    from torch_geometric.data import Batch

    batch = Batch.from_data_list(graphs).to(device)
    lattices = batch.lattice
    if hasattr(model, "calc_forces"):
        return _potential(model, batch, lattices, forces)
    with torch.no_grad():
        node, edge = lattices[batch.batch], lattices[batch.batch[batch.edge_index[0]]]
        batch.pos = (batch.frac_coords[:, :, None] * node).sum(1)
        batch.pbc_offshift = (batch.pbc_offset[:, :, None] * edge).sum(1)
        outputs = model(g=batch, state_attr=_states(model, len(graphs), state, lattices))
    return list(outputs.reshape(len(graphs), -1).cpu().double().numpy())


def _states(model: Any, size: int, state: int, like: Any) -> Any:
    """Return the states of graphs: labels (B,), or zeros (B, k) for a model that takes numbers."""
    embedding = getattr(model, "model", model).embedding
    if getattr(embedding, "ntypes_state", None) is not None:
        return like.new_full((size,), state).long()
    return like.new_zeros((size, getattr(embedding, "dim_state_feats", None) or 2))


def _potential(model: Any, batch: Any, lattices: Any, forces: bool) -> list[Any]:
    import torch

    model = _with_forces(model, forces)
    if not forces:
        with torch.no_grad():
            return list(model(batch, lattices)[0].reshape(-1).cpu().double().numpy())
    with torch.inference_mode(False), torch.enable_grad():
        energies, gradient, stress = model(batch, lattices)[:3]
    sizes = torch.bincount(batch.batch).tolist()
    each = torch.split(gradient.detach().cpu().double(), sizes)
    energies = energies.detach().reshape(-1).cpu().double().numpy()
    return [
        (energy, force.numpy(), s / _EV_PER_CUBIC_ANGSTROM)
        for energy, force, s in zip(
            energies, each, stress.detach().cpu().double().numpy().reshape(-1, 3, 3), strict=True
        )
    ]


_EV_PER_CUBIC_ANGSTROM = 160.21766208  # GPa, the constant of matgl


def _with_forces(model: Any, forces: bool) -> Any:
    """Return a model that shares everything with the given one but what it is asked for: threads share models."""
    import copy

    twin = copy.copy(model)
    twin.calc_forces = twin.calc_stresses = forces
    twin.calc_hessian = False
    return twin

"""Graphs of matgl: construction from structures, and evaluation by a model."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from rewards.potentials.batching import checked_edges
from rewards.potentials.bond_graph import find_neighbors

if TYPE_CHECKING:
    from ase import Atoms

_EV_PER_CUBIC_ANGSTROM = 160.21766208  # GPa, the constant of matgl


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
    """Return the predictions of a model for graphs.

    For a potential they are the total energy in eV, with ``forces`` a triple with forces in eV/Å and stress in eV/Å^3;
    for a property model its outputs (k,).
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


def _with_forces(model: Any, forces: bool) -> Any:
    """Return a shallow copy of a model with other outputs, since threads use one model."""
    twin = copy.copy(model)
    twin.calc_forces = twin.calc_stresses = forces
    twin.calc_hessian = False
    return twin

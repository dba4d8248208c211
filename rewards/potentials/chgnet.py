"""CHGNet 0.3.0 as a batched potential: Deng et al., Nat. Mach. Intell. 5, 1031 (2023)."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache, partial
from io import StringIO
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crystal_env.arguments import integer
from rewards.potentials.batching import GraphModel, checked_edges, run_in_batches
from rewards.potentials.bond_graph import count_angles, find_angles, find_bonds
from rewards.potentials.interface import MP2020, Energies, Forces, as_energies, as_forces

if TYPE_CHECKING:
    from ase import Atoms

_MODEL = "0.3.0"
_MAX_NUMBER = 94


@dataclass(frozen=True)
class CHGNetPotential:
    """CHGNet 0.3.0 with the weights of its wheel.

    Its energies are on the corrected MP2020 scale of the Materials Project. Its library computes in single precision
    throughout. The model is loaded with the first call, once per process. A structure's energy does not depend on its
    batch beyond rounding (1e-5 eV/atom). An atom without a neighbour within 6 Å contributes the model's energy of the
    isolated atom.

    Args:
        device: a torch device, such as ``"cpu"`` or ``"cuda"``.
        max_edges: bonds and angles evaluated together; more than 30,000 is slower on a CPU.
        graph_workers: processes that build graphs, by default none on a CPU and one per core else.
        progress: show a bar with the time left on long lists.

    Raises:
        ValueError: if ``max_edges`` is not positive.
    """

    device: str = "cpu"
    max_edges: int = field(default=30_000, compare=False)
    graph_workers: int | None = field(default=None, compare=False)
    progress: bool = field(default=False, compare=False)
    packages: ClassVar[tuple[str, ...]] = ("chgnet",)
    name: ClassVar[str] = f"chgnet-{_MODEL}"
    scale: ClassVar[str] = MP2020

    def __post_init__(self) -> None:
        integer("max_edges", self.max_edges, least=1)
        if self.graph_workers is not None:
            integer("graph_workers", self.graph_workers, least=0)

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other."""
        return as_energies(*self._run(atoms, "e"))

    def forces(self, atoms: "Sequence[Atoms]") -> Forces:
        """Return energies, forces and stress; a structure that fails gets NaN and a reason and harms no other."""
        return as_forces(atoms, *self._run(atoms, "efs"))

    def _run(self, atoms: "Sequence[Atoms]", task: str) -> tuple[list[Any], Any]:
        return run_in_batches(
            atoms,
            partial(_graph_model, self.device, task),
            device=self.device,
            max_edges=self.max_edges if task == "e" else max(self.max_edges // 4, 1),
            graph_workers=self.graph_workers,
            progress=self.progress,
            label=self.name,
        )


def _graph_model(device: str, task: str) -> GraphModel:
    return GraphModel(_graph, partial(_evaluate, _load_model(device), device, task))


@lru_cache(maxsize=4)
def _load_model(device: str) -> Any:
    from chgnet.model.model import CHGNet

    with redirect_stdout(StringIO()):  # it prints in spite of verbose=False
        return CHGNet.load(model_name=_MODEL, use_device=device, verbose=False).eval()


def _graph(atoms: "Atoms") -> tuple[Any, int]:
    """Return the model's graph of a structure and the number of its bonds and angles.

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
    cost = checked_edges(len(bonds.center) + count_angles(bonds, bond_cutoff))
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


def _evaluate(model: Any, device: str, task: str, graphs: list[Any]) -> list[Any]:
    """Return total energies in eV, with task ``"efs"`` each with forces in eV/Å and stress in eV/Å^3."""
    import torch
    from ase.units import GPa

    sizes = [len(graph.atomic_number) for graph in graphs]
    if task == "e":
        with torch.no_grad():
            per_atom = model([graph.to(device) for graph in graphs], task="e")["e"]
        return list(per_atom.cpu().double().numpy() * sizes)
    with torch.inference_mode(False), torch.enable_grad():
        for graph in graphs:
            graph.atom_frac_coord.requires_grad_()
        result = model([graph.to(device) for graph in graphs], task="efs")
    per_atom = result["e"].detach().cpu().double().numpy()
    arrays = zip(per_atom * sizes, result["f"], result["s"], strict=True)
    return [(e, f.detach().cpu().double().numpy(), GPa * s.detach().cpu().double().numpy()) for e, f, s in arrays]

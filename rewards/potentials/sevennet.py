"""SevenNet potentials, batched: Park et al., J. Chem. Theory Comput. 20, 4857 (2024)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crystal_env.arguments import integer
from crystal_env.errors import InputError, MissingPackageError
from rewards.potentials.batching import GraphModel, checked_edges, run_in_batches
from rewards.potentials.bond_graph import find_neighbors
from rewards.potentials.interface import PBE, Energies, Forces, as_energies, as_forces

if TYPE_CHECKING:
    from ase import Atoms

MODELS = ("sevennet-0", "sevennet-l3i5")
"""The models with weights in the wheel of sevenn."""


@dataclass(frozen=True)
class SevenNetPotential:
    """A SevenNet with the weights of its wheel: SevenNet-0 (11Jul2024), or the larger SevenNet-l3i5.

    Both were trained on uncorrected energies of the Materials Project (MPtrj), in single precision: their scale is
    `PBE`. The model is loaded with the first call, once per process. A structure's energy does not depend on its batch
    beyond rounding (1e-5 eV/atom). An atom without a neighbour within 5 Å contributes the model's energy of the
    isolated atom.

    Args:
        model: one of `MODELS`.
        device: a torch device, such as ``"cpu"`` or ``"cuda"``.
        max_edges: edges evaluated together.
        graph_workers: processes that build graphs, by default none on a CPU and one per core else.
        progress: show a bar with the time left on long lists.

    Raises:
        ValueError: if ``model`` is another or ``max_edges`` is not positive. The first call raises ImportError if
            sevenn is not installed.
    """

    model: str = "sevennet-l3i5"
    device: str = "cpu"
    max_edges: int = field(default=2_000, compare=False)
    graph_workers: int | None = field(default=None, compare=False)
    progress: bool = field(default=False, compare=False)
    packages: ClassVar[tuple[str, ...]] = ("sevenn",)
    scale: ClassVar[str] = PBE

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError(f"model must be one of {MODELS}, got {self.model!r}")
        integer("max_edges", self.max_edges, least=1)
        if self.graph_workers is not None:
            integer("graph_workers", self.graph_workers, least=0)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.model

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other."""
        return as_energies(*self._run(atoms, forces=False))

    def forces(self, atoms: "Sequence[Atoms]") -> Forces:
        """Return energies, forces and stress; a structure that fails gets NaN and a reason and harms no other."""
        return as_forces(atoms, *self._run(atoms, forces=True))

    def _run(self, atoms: "Sequence[Atoms]", forces: bool) -> tuple[list[Any], Any]:
        return run_in_batches(
            atoms,
            partial(_graph_model, self.model, self.device, forces),
            device=self.device,
            max_edges=self.max_edges,
            graph_workers=self.graph_workers,
            progress=self.progress,
            label=self.name,
        )


def _graph_model(name: str, device: str, forces: bool) -> GraphModel:
    model = load_sevennet(name, device)
    build = partial(_graph, known=frozenset(model.type_map), cutoff=float(model.cutoff))
    return GraphModel(build, partial(_evaluate, model, device, forces))


@lru_cache(maxsize=4)
def load_sevennet(name: str, device: str) -> Any:
    """Return one of `MODELS` on a device.

    Raises:
        ImportError: if sevenn is not installed.
    """
    try:
        from sevenn.checkpoint import SevenNetCheckpoint
        from sevenn.nn.convolution import IrrepsConvolution
        from sevenn.util import pretrained_name_to_path

        from rewards.potentials.sevennet_convolution import Convolution
    except ImportError as error:
        raise MissingPackageError(
            f'the potential {name} needs sevenn: pip install "crystalgen[sevennet]" ({error})'
        ) from error

    path = pretrained_name_to_path(name)
    _check_weights(path)  # sevenn itself would run code that a file holds
    model = SevenNetCheckpoint(path).build_model()
    for place, module in list(model.named_children()):
        if isinstance(module, IrrepsConvolution):
            model.replace_module(place, Convolution(module))
    return model.to(device).requires_grad_(False).eval()


def _check_weights(path: str) -> None:
    """Make sure that a checkpoint holds tensors and numpy arrays only.

    Raises:
        pickle.UnpicklingError: if it holds anything else.
    """
    import torch

    reconstruct: Any = np.empty(0).__reduce__()[0]
    allowed: list[Any] = [(reconstruct, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype]
    with torch.serialization.safe_globals([*allowed, np.dtypes.Float32DType, np.dtypes.Float64DType]):
        torch.load(path, map_location="cpu", weights_only=True)


def _graph(atoms: "Atoms", known: frozenset[int], cutoff: float) -> tuple[Any, int]:
    """Return the model's graph of a structure and the number of its edges.

    Raises:
        ValueError: if the model does not know an element, a number is not finite, there is no atom, or the graph is
            too large.
    """
    import sevenn._keys as key
    import torch
    from sevenn.atom_graph_data import AtomGraphData

    numbers = atoms.numbers
    unknown = sorted(set(numbers.tolist()) - known)
    if unknown or not len(numbers):
        raise ValueError(f"SevenNet does not know atomic numbers {unknown}" if unknown else "there are no atoms")
    positions, cell = atoms.positions, atoms.cell.array
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise ValueError("positions and cell must be finite")
    center, neighbor, image, _ = find_neighbors(positions, cell, cutoff)
    cost = checked_edges(len(center))
    vectors = positions[neighbor] - positions[center] + image @ cell
    numbers = torch.from_numpy(numbers.astype(np.int64))
    graph = AtomGraphData(
        x=numbers,
        edge_index=torch.from_numpy(np.stack([center, neighbor])),
        **{
            key.ATOMIC_NUMBERS: numbers,
            key.EDGE_VEC: torch.from_numpy(vectors.astype(np.float32)),
            key.CELL_VOLUME: torch.tensor(atoms.cell.volume, dtype=torch.float32),
            key.NUM_ATOMS: torch.tensor(len(numbers)),
        },
    )
    return graph, cost


def _evaluate(model: Any, device: str, forces: bool, graphs: list[Any]) -> list[Any]:
    """Return total energies in eV, with ``forces`` each with forces in eV/Å and stress in eV/Å^3."""
    import sevenn._keys as key
    import torch
    from torch_geometric.data import Batch

    batch = Batch.from_data_list(graphs).to(device)
    sizes = batch[key.NUM_ATOMS].tolist()
    with torch.inference_mode(False), torch.set_grad_enabled(forces):
        if forces:
            batch = model(batch)
        else:
            batch = model._preprocess(batch)
            for name, module in model.named_children():
                if name != "force_output":
                    batch = module(batch)
    atomic = batch[key.ATOMIC_ENERGY].detach().cpu().double().reshape(-1)
    energies = [float(part.sum()) for part in torch.split(atomic, sizes)]
    if not forces:
        return energies
    gradient, stress = (batch[name].detach().cpu().double() for name in (key.PRED_FORCE, key.PRED_STRESS))
    full = -stress.numpy()[:, [[0, 3, 5], [3, 1, 4], [5, 4, 2]]]
    each = torch.split(gradient, sizes)
    return [(energy, force.numpy(), s) for energy, force, s in zip(energies, each, full, strict=True)]

"""Orb potentials, batched: Neumann et al., arXiv:2410.22570 (v2), and Rhodes et al., arXiv:2504.06231 (v3)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crystal_env.arguments import integer
from crystal_env.errors import InputError, MissingFileError, MissingPackageError
from rewards.potentials.batching import GraphModel, checked_edges, run_in_batches
from rewards.potentials.interface import PBE, Energies, Forces, as_energies, as_forces, name_of_file

if TYPE_CHECKING:
    from typing import Literal

    from ase import Atoms

    Precision = Literal["float32-high", "float32-highest", "float64"]

_PRECISIONS = ("float32-high", "float32-highest", "float64")


@dataclass(frozen=True)
class OrbPotential:
    """A model of orb-models: orb-v2, the paper's, or any of orb-v3. Loaded with the first call, once per process.

    Those trained on MPtrj and Alexandria (orb-v2, orb-v3-…-mpa) have the scale `PBE`; those trained on other data have
    their own (``"OMat24"``, ``"OMol25"``, with dispersion ``"PBE-D3"``), to which the Materials Project's corrections
    do not apply. Models with 20 neighbours (orb-v2, orb-v3-…-20-…) pick among equally near ones by rounding, so that
    an energy depends on the choice of the cell (some meV/atom with random weights); those with ``inf`` do not.

    Args:
        model: the name of a model in ``orb_models.forcefield.pretrained.ORB_PRETRAINED_MODELS``.
        weights: its checkpoint, a file or a URL; by default orb-models fetches it into its own cache.
        device: a torch device, such as ``"cpu"`` or ``"cuda"``.
        precision: ``"float32-high"``, ``"float32-highest"`` or ``"float64"``.
        max_edges: edges evaluated together.
        graph_workers: processes that build graphs, by default none on a CPU and one per core else.
        progress: show a bar with the time left on long lists.

    Raises:
        ValueError: if the name is not like one of orb-models, ``precision`` is another, or ``max_edges`` is not
            positive. The first call raises ValueError if there is no model of that name or ``weights`` are not its
            weights, FileNotFoundError if they cannot be found or fetched, ImportError without orb-models.
    """

    model: str = "orb-v2"
    weights: str | Path | None = None
    device: str = "cpu"
    precision: "Precision" = "float32-high"
    max_edges: int = field(default=20_000, compare=False)
    graph_workers: int | None = field(default=None, compare=False)
    progress: bool = field(default=False, compare=False)
    packages: ClassVar[tuple[str, ...]] = ("orb-models",)

    def __post_init__(self) -> None:
        if not self.model.startswith("orb-"):
            raise InputError(
                f"model must be the name of a potential of orb-models, such as 'orb-v2', got {self.model!r}"
            )
        if self.precision not in _PRECISIONS:
            raise InputError(f"precision must be one of {_PRECISIONS}, got {self.precision!r}")
        integer("max_edges", self.max_edges, least=1)
        if self.graph_workers is not None:
            integer("graph_workers", self.graph_workers, least=0)

    @property
    def name(self) -> str:
        """The name of the model; with weights from a file, the digest of the file too."""
        return self.model if self.weights is None else name_of_file(self.model, Path(self.weights))

    @property
    def scale(self) -> str:
        """The scale of its energies, by the data it was trained on."""
        if "-d3" in self.model:
            return "PBE-D3"
        return "OMat24" if self.model.endswith("-omat") else "OMol25" if self.model.endswith("-omol") else PBE

    def energies(self, atoms: "Sequence[Atoms]") -> Energies:
        """Return the energies of periodic structures; one that fails gets NaN and a reason and harms no other."""
        return as_energies(*self._run(atoms, forces=False))

    def forces(self, atoms: "Sequence[Atoms]") -> Forces:
        """Return energies, forces and stress; a structure that fails gets NaN and a reason and harms no other.

        They are derivatives of the energy for the conservative models, and outputs of the network for the others.
        """
        return as_forces(atoms, *self._run(atoms, forces=True))

    def _run(self, atoms: "Sequence[Atoms]", forces: bool) -> tuple[list[Any], Any]:
        return run_in_batches(
            atoms,
            partial(_graph_model, self.model, self.weights, self.device, self.precision, forces),
            device=self.device,
            max_edges=self.max_edges,
            graph_workers=self.graph_workers,
            progress=self.progress,
            label=self.name,
        )


def _graph_model(name: str, weights: Any, device: str, precision: str, forces: bool) -> GraphModel:
    model = load_orb(name, None if weights is None else str(weights), device, precision)
    build = partial(_graph, config=model.system_config, double=precision == "float64")
    return GraphModel(build, partial(_evaluate, model, device, forces))


@lru_cache(maxsize=4)
def load_orb(name: str, weights: str | None, device: str, precision: str) -> Any:
    """Return a model of orb-models; see `OrbPotential` for arguments and errors."""
    try:
        from orb_models.forcefield import pretrained
    except ImportError as error:
        raise MissingPackageError(
            f'the potential {name} needs orb-models: pip install "crystalgen[orb]" ({error})'
        ) from error

    loaders = pretrained.ORB_PRETRAINED_MODELS
    if name not in loaders:
        raise InputError(f"model must be one of {sorted(k for k in loaders if k.startswith('orb-'))}, got {name!r}")
    if weights is not None and "://" not in weights and not os.path.isfile(weights):
        raise MissingFileError(f"weights: there is no file {weights}")
    options = {} if weights is None else {"weights_path": weights}
    try:
        return loaders[name](device=device, precision=precision, compile=False, **options)
    except ValueError:  # names that orb-models itself has given up
        raise
    except Exception as error:
        if weights is not None and "://" not in weights:
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"{weights} does not hold the weights of {name}: {reason}") from error
        where = weights or _default_weights(loaders[name])
        raise MissingFileError(
            f"the weights of {name} could not be fetched from {where} ({type(error).__name__}); download that file and "
            "give its path as weights"
        ) from error


def _default_weights(loader: Any) -> str:
    import inspect

    return str(inspect.signature(loader).parameters["weights_path"].default)


def _graph(atoms: "Atoms", config: Any, double: bool) -> tuple[Any, int]:
    """Return the model's graph of a structure and the number of its edges.

    Raises:
        ValueError: if a number is not finite, there is no atom, or the graph is too large.
    """
    import numpy as np
    import torch
    from ase import Atoms
    from orb_models.forcefield.atomic_system import ase_atoms_to_atom_graphs

    if not len(atoms):
        raise ValueError("there are no atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError("positions and cell must be finite")
    dtype = torch.float64 if double else torch.float32
    neutral = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True, info={"charge": 0.0, "spin": 1.0})
    graph = ase_atoms_to_atom_graphs(
        neutral, system_config=config, output_dtype=dtype, graph_construction_dtype=dtype, device=torch.device("cpu")
    )
    return graph, checked_edges(int(graph.n_edge.sum()))


def _evaluate(model: Any, device: str, forces: bool, graphs: list[Any]) -> list[Any]:
    """Return total energies in eV, with ``forces`` each with forces in eV/Å and stress in eV/Å^3."""
    import torch
    from orb_models.forcefield import base

    batch = base.batch_graphs(graphs).to(device)
    conservative = hasattr(model, "grad_forces_name")
    if not forces:
        with torch.no_grad():
            return list(_energy(model, batch).reshape(-1).cpu().double().numpy())
    with torch.inference_mode(False), torch.enable_grad():
        output = model.predict(batch)
    energies = output["energy"].detach().reshape(-1).cpu().double().numpy()
    names = (model.grad_forces_name, model.grad_stress_name) if conservative else ("forces", "stress")
    if any(name not in output for name in names):
        raise InputError("the model has no stress: it was made for molecules")
    gradient, stress = (output[name].detach().cpu().double() for name in names)
    each = torch.split(gradient, batch.n_node.tolist())
    full = stress.numpy()[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    return [(energy, force.numpy(), s) for energy, force, s in zip(energies, each, full, strict=True)]


def _energy(model: Any, batch: Any) -> Any:
    """Return energies (B,) in eV without forces and stress, as the models' own ``predict`` computes them."""
    head = model.heads["energy"]
    energy = head.denormalize(head(model.model(batch)["node_features"], batch), batch)
    if getattr(model, "pair_repulsion", False):
        energy = energy + model.pair_repulsion_fn(batch)["energy"]
    return energy

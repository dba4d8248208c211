"""Models of matgl, batched: M3GNet, TensorNet, CHGNet as potentials, and graphs for property models."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crystal_env.arguments import integer
from crystal_env.errors import InputError
from rewards.potentials.batching import GraphModel, run_in_batches
from rewards.potentials.interface import PBE, Energies, Forces, as_energies, as_forces, name_of_file
from rewards.potentials.matgl_files import MODEL_FILES, Aggregation, load_matgl
from rewards.potentials.matgl_graphs import evaluate_graphs, graph_of

if TYPE_CHECKING:
    from ase import Atoms

_PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class _MatglModel:
    """The common part of potentials and property models: files, device and batching."""

    model: str | Path
    aggregation: Aggregation = "auto"
    device: str = "cpu"
    precision: str = "float32"
    max_edges: int = field(default=20_000, compare=False)
    graph_workers: int | None = field(default=None, compare=False)
    progress: bool = field(default=False, compare=False)
    packages: ClassVar[tuple[str, ...]] = ("matgl",)

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InputError(f"precision must be one of {_PRECISIONS}, got {self.precision!r}")
        integer("max_edges", self.max_edges, least=1)
        if self.graph_workers is not None:
            integer("graph_workers", self.graph_workers, least=0)

    @property
    def name(self) -> str:
        """The name of the model: the last part of its path or name; of a folder also the digest of its weights."""
        return name_of_file(Path(self.model).name, Path(self.model) / "state.pt")

    def made_of(self) -> dict[str, Any]:
        """Return what predictions depend on, of a folder the files of the model; see `identity`."""
        folder = Path(self.model)
        model = [folder / name for name in MODEL_FILES] if folder.is_dir() else str(self.model)
        return {f.name: getattr(self, f.name) for f in fields(self) if f.compare} | {"model": model}

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
            raise InputError(f"model {self.model} is {kinds[not is_potential]}")
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
    """The parameters of a network that its graphs depend on."""

    element_types: tuple[str, ...]
    cutoff: float


@lru_cache(maxsize=4)
def load_model(model: str, aggregation: Aggregation, device: str, precision: str) -> Any:
    """Return a model of matgl once per process, on its device."""
    import torch

    return load_matgl(model, aggregation).to(device=device, dtype=getattr(torch, precision))

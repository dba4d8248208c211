"""Crystals per second of each potential, compared with its ASE calculator one by one.

Run ``python -m benchmarks.speed.rewards`` on a quiet machine. Crystals are MP-20's (``mp20_val.csv.gz`` in
``$CRYSTALGEN_DATA``), in primitive cells. CHGNet and SevenNet come with their weights; Orb has its real architecture
with random weights, M3GNet its published weights if ``$CRYSTALGEN_MODELS`` holds ``M3GNet-MP-2021.2.8-PES``, else
random ones: the time does not depend on them. The fraction outside the model is the wall time without the library's
calls of its network, on one thread. Afterwards come the hull and the corrections, from ``benchmarks.speed.hull``.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import tyro

from benchmarks.speed import hull
from crystal_env.dataset import data_folder, load_crystals
from rewards.potentials import ForceField
from rewards.potentials.chgnet import CHGNetPotential
from rewards.potentials.matgl import MatglPotential, load_model
from rewards.potentials.orb import OrbPotential, load_orb
from rewards.potentials.sevennet import MODELS, SevenNetPotential, load_sevennet
from rewards.relaxation.relax import Relaxation

if TYPE_CHECKING:
    from ase import Atoms

    from crystal_env.crystal import CrystalBatch


@dataclass
class Args:
    """Settings of the measurement.

    Attributes:
        sizes: Crystals in a call.
        one_by_one: Crystals through the ASE calculator.
        repeats: Repeats of calls of up to 64 crystals; longer ones are measured once.
        relaxed: Crystals relaxed with CHGNet, batched and with ASE.
        hull: Measure the hull and the corrections too.
    """

    sizes: tuple[int, ...] = (1, 64, 1000)
    one_by_one: int = 64
    repeats: int = 3
    relaxed: int = 16
    hull: bool = True


class _Case(NamedTuple):
    """A potential, the parts of its network that are timed, and its ASE calculator."""

    potential: ForceField
    parts: Callable[[], list[Any]]
    calculator: Callable[[], Any]


def main(args: Args) -> None:
    """Measure and print tables."""
    crystals = load_crystals(data_folder() / "mp20_val.csv.gz", progress=False).crystals[: max(args.sizes)]
    atoms = crystals.to_atoms()
    mean = sum(len(a) for a in atoms) / len(atoms)
    print(f"{mean:.1f} atoms a crystal, {torch.get_num_threads()} threads on {os.cpu_count()} cores")
    print(f"{'crystals/s, energies':<34}" + "".join(f"{size:>9}" for size in args.sizes), end="")
    print(f"{'one by one':>12}{'faster':>9}{'outside model':>15}")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in _cases(Path(folder)):
            _measure(case, atoms, args)
        _relaxation(crystals[: args.relaxed])
    if args.hull:
        for row in hull.measure():
            print(f"{row.name:<66}{row.value:>12.4g} {row.unit}", flush=True)


def _measure(case: _Case, atoms: "list[Atoms]", args: Args) -> None:
    case.potential.energies(atoms[:4])
    rates = [size / _seconds(case, atoms[:size], args.repeats if size <= 64 else 1) for size in args.sizes]
    outside = _fraction_outside(case, atoms[: args.one_by_one])
    alone = args.one_by_one / _one_by_one(case.calculator(), atoms[: args.one_by_one])
    cells = "".join(f"{rate:>9.1f}" for rate in rates)
    print(f"{case.potential.name:<34}{cells}{alone:>12.1f}{rates[-1] / alone:>9.2f}{outside:>15.1%}", flush=True)


def _seconds(case: _Case, atoms: "list[Atoms]", repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        case.potential.energies(atoms)
        times.append(time.perf_counter() - start)
    return median(times)


def _fraction_outside(case: _Case, atoms: "list[Atoms]") -> float:
    """Return the fraction of wall time spent outside the network, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _timed(case.parts()) as inside:
            start = time.perf_counter()
            case.potential.energies(atoms)
            total = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    return 1 - sum(inside) / total


@contextmanager
def _timed(parts: list[Any]) -> Iterator[list[float]]:
    """Collect the seconds that calls of modules take."""
    spent: list[float] = []
    begun: list[float] = []

    def before(*_: Any) -> None:
        begun.append(time.perf_counter())

    def after(*_: Any) -> None:
        spent.append(time.perf_counter() - begun.pop())

    handles = [h for part in parts for h in (part.register_forward_pre_hook(before), part.register_forward_hook(after))]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _one_by_one(calculator: Any, atoms: "list[Atoms]") -> float:
    """Return the seconds for energies of structures through an ASE calculator."""
    start = time.perf_counter()
    for one in atoms:
        copy = one.copy()  # type: ignore[no-untyped-call]
        copy.calc = calculator
        copy.get_potential_energy()
    return time.perf_counter() - start


def _cases(folder: Path) -> Iterator[_Case]:
    from chgnet.model.dynamics import CHGNetCalculator
    from orb_models.forcefield import pretrained
    from orb_models.forcefield.atomic_system import SystemConfig
    from orb_models.forcefield.calculator import ORBCalculator

    from rewards.potentials.chgnet import _load_model

    def chgnet() -> Any:
        return CHGNetCalculator(_load_model("cpu"), use_device="cpu", on_isolated_atoms="ignore")

    yield _Case(CHGNetPotential(), lambda: [_load_model("cpu")], chgnet)
    yield _matgl(folder)
    yield from map(_sevennet, MODELS)
    config = SystemConfig(radius=6.0, max_num_neighbors=20)
    for name in ("orb-v2", "orb-v3-conservative-20-mpa"):
        architecture = "orb_v2_architecture" if name == "orb-v2" else "orb_v3_conservative_architecture"
        network = getattr(pretrained, architecture)(device="cpu", system_config=config)
        path = folder / f"{name}.ckpt"
        torch.save(network.state_dict(), path)
        potential = OrbPotential(name, weights=path)

        def loaded(name: str = name, path: Path = path) -> Any:
            return load_orb(name, str(path), "cpu", "float32-high")

        def parts(loaded: Callable[[], Any] = loaded) -> list[Any]:
            return [loaded().model, loaded().heads["energy"]]

        def calculator(loaded: Callable[[], Any] = loaded) -> Any:
            return ORBCalculator(loaded(), device="cpu")

        yield _Case(potential, parts, calculator)


def _sevennet(name: str) -> _Case:
    from sevenn.calculator import SevenNetCalculator

    def calculator() -> Any:
        return SevenNetCalculator(name, device="cpu")

    return _Case(SevenNetPotential(name), lambda: list(load_sevennet(name, "cpu").children()), calculator)


def _matgl(folder: Path) -> _Case:
    from matgl.ext.ase import PESCalculator

    published = Path(os.environ.get("CRYSTALGEN_MODELS", "")) / "M3GNet-MP-2021.2.8-PES"
    if not published.is_dir():
        from matgl.apps.pes import Potential
        from matgl.config import DEFAULT_ELEMENTS
        from matgl.models import M3GNet

        from rewards.potentials.matgl_files import metadata

        published = folder / "M3GNet-random"
        Potential(M3GNet(element_types=DEFAULT_ELEMENTS, is_intensive=False)).save(published, metadata=metadata())
    potential = MatglPotential(published)

    def loaded() -> Any:
        return load_model(str(published), "auto", "cpu", "float32")

    return _Case(potential, lambda: [loaded().model], lambda: PESCalculator(loaded(), stress_unit="eV/A3"))


def _relaxation(crystals: "CrystalBatch") -> None:
    """Relax crystals with CHGNet, batched and one by one with ASE's FIRE and cell filter; neither keeps symmetry."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE
    from chgnet.model.dynamics import CHGNetCalculator

    from rewards.potentials.chgnet import _load_model

    relax = Relaxation(symmetry="free")
    start = time.perf_counter()
    _, paths = relax.with_paths(crystals)
    batched = time.perf_counter() - start
    calculator = CHGNetCalculator(_load_model("cpu"), use_device="cpu", on_isolated_atoms="ignore")
    start, steps = time.perf_counter(), 0
    for atoms in crystals.to_atoms():
        atoms.calc = calculator
        fire = FIRE(FrechetCellFilter(atoms), logfile=None)
        fire.run(fmax=relax.fmax, steps=relax.steps)
        steps += fire.nsteps
    alone = time.perf_counter() - start
    n = len(crystals)
    print(f"relaxation of {n} crystals with CHGNet: {batched / n:.2f} s each, {paths.steps.mean():.0f} steps", end="; ")
    print(f"one by one with ASE {alone / n:.2f} s, {steps / n:.0f} steps", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args))

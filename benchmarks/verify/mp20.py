"""Every crystal of a data set: encoded, replayed through the masks, decoded, and compared with the original.

Run ``python -m benchmarks.verify.mp20`` with ``$CRYSTALGEN_DATA`` at the folder that holds ``mp20_train.csv.gz``. The
comparison is pymatgen's `StructureMatcher` with its defaults, between the structure in the file and the one that an
environment of 960 bins ends with. The matcher first reduces both to primitive cells with a tolerance of 0.25 Å, which
for a few structures with a pseudo-translation gives different cells; those are compared again, without that step, in
the primitive cells that spglib finds at 0.01 Å, and then as a supercell, where moyo found a translation at that
tolerance that spglib did not.
"""

import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import tyro
from joblib import Parallel, delayed
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from tqdm import tqdm

from crystal_env import Crystal, CrystalBatch, Phase, Vocabulary, load_crystals
from crystal_env.dataset import data_folder, read_structures
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.symmetry.standardise import read

_CHUNK = 64
_MATCH = "match"
_MATCH_AT_TIGHT_TOLERANCE = "match in the primitive cells found at 0.01 Å"
_MATCH_AS_SUPERCELL = "match as a supercell"


def replay(crystals: CrystalBatch, bins: int = 960) -> tuple[CrystalBatch, NDArray[np.bool_]]:
    """Return the crystals that an environment builds from the crystals' own actions, and which were stopped (B,)."""
    vocabulary = Vocabulary(bins)
    actions, lengths = crystals.to_actions(vocabulary)
    states = CrystalStates(len(crystals), vocabulary)
    states.reset(np.arange(len(crystals)), compile_grammar(constraints(space_group=list(range(1, 231)))), crystals.G)
    forbidden = np.zeros(len(crystals), bool)
    for index in range(lengths.max(initial=0)):
        rows = np.flatnonzero((lengths > index) & ~forbidden)
        forbidden[rows] = ~states.step(rows, actions[rows, index].astype(np.int64))
    rows = np.arange(len(crystals))
    return states.crystals(rows), forbidden | (states.phase != Phase.DONE)


def matches(sources: list[object], crystals: list[Crystal]) -> list[str]:
    """Return the outcome of the comparison of every original with its decoded crystal."""
    with warnings.catch_warnings():  # pymatgen warns of elements without an electronegativity
        warnings.simplefilter("ignore", UserWarning)
        return [_match(read(str(s)), c.to_structure(primitive=True)) for s, c in zip(sources, crystals, strict=True)]


def _match(original: Structure, decoded: Structure) -> str:
    if original.composition.reduced_formula != decoded.composition.reduced_formula:
        return "other composition"
    if StructureMatcher().fit(original, decoded):
        return _MATCH
    primitive = SpacegroupAnalyzer(original, symprec=0.01).find_primitive()
    if StructureMatcher(primitive_cell=False).fit(primitive, decoded):
        return _MATCH_AT_TIGHT_TOLERANCE
    if StructureMatcher(primitive_cell=False, attempt_supercell=True).fit(original, decoded):
        return _MATCH_AS_SUPERCELL
    return "same composition, no match"


def main(path: Path | None = None, limit: int | None = None, n_jobs: int | None = None) -> None:
    """Check a file of structures and print the counts.

    Args:
        path: File of structures, by default mp20_train.csv.gz in the data folder.
        limit: Number of crystals to compare, by default all.
        n_jobs: Number of processes, by default one per core.
    """
    path = path or data_folder() / "mp20_train.csv.gz"
    tokens = load_crystals(path, n_jobs=n_jobs)
    print(f"{len(tokens.crystals)} crystals encoded, {len(tokens.skipped)} skipped: {dict(tokens.skipped)}")
    decoded, forbidden = replay(tokens.crystals)
    print(f"{(~forbidden).sum()} replayed without a forbidden action, {forbidden.sum()} not")
    sources = list(read_structures(path))
    rows = np.flatnonzero(~forbidden)[:limit]
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    jobs = (
        delayed(matches)([sources[tokens.index[r]] for r in chunk], [decoded[int(r)] for r in chunk])
        for chunk in chunks
    )
    outcomes: list[str] = []
    with tqdm(total=len(rows), desc="comparing", unit="crystal") as bar:
        for part in Parallel(n_jobs=n_jobs or os.cpu_count(), return_as="generator")(jobs):
            outcomes += part
            bar.update(len(part))
    print(f"compared with the originals: {dict(Counter(outcomes))}")
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome != _MATCH:
            print(f"  entry {tokens.index[row]}: {outcome}: {decoded[int(row)]}")
    if forbidden.any() or set(outcomes) - {_MATCH, _MATCH_AT_TIGHT_TOLERANCE, _MATCH_AS_SUPERCELL}:
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)

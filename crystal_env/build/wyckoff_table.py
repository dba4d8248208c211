"""Generate ``data/wyckoff.npz``, the Wyckoff positions of all 230 space groups, from pyxtal's database.

Run ``python -m crystal_env.build.wyckoff_table`` to write the file and ``python -m crystal_env.build.wyckoff_table --check`` to
compare the shipped file with pyxtal (a development dependency) without writing. The setting is that of the
International Tables: unique axis b, origin choice 2, hexagonal axes for rhombohedral groups.
"""

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from crystal_env.wyckoff import TABLE_FILE
from crystal_env.errors import InputError

_DENOMINATOR = 24  # every translation of the 230 groups is a multiple of 1/24


def positions_from_pyxtal() -> dict[str, NDArray[np.uint8] | NDArray[np.int8]]:
    """Read all positions, letter a first, as the four integer arrays that the file holds.

    Returns:
        ``letters (230,)`` positions per group, ``multiplicity (1731,)`` operations per position,
        ``rotation (14433, 3, 3)`` and ``translation (14433, 3)`` in units of 1/24.

    Raises:
        ValueError: if a position breaks an assumption of the tables: the first operation is a projection whose
            dependent coordinates follow from earlier ones, and operations are in one block per centring vector.
    """
    from pyxtal.symmetry import Group

    letters, multiplicity, matrices = [], [], []
    for number in range(1, 231):
        positions = [np.array([op.affine_matrix for op in p.ops]) for p in Group(number).Wyckoff_positions[::-1]]
        is_identity = (positions[-1][:, :3, :3] == np.eye(3)).all((1, 2))
        for index, operations in enumerate(positions):
            _check_position(number, index, operations, positions[-1][is_identity, :3, 3])
            multiplicity.append(len(operations))
            matrices.append(operations[:, :3])
        letters.append(len(positions))
    affine = np.concatenate(matrices)
    translation = np.rint(affine[:, :, 3] * _DENOMINATOR)
    if np.abs(translation / _DENOMINATOR - affine[:, :, 3]).max() > 1e-3:
        raise InputError(f"a translation in pyxtal's table is not a multiple of 1/{_DENOMINATOR}")
    return {
        "letters": np.array(letters, np.uint8),
        "multiplicity": np.array(multiplicity, np.uint8),
        "rotation": np.rint(affine[:, :, :3]).astype(np.int8),
        "translation": translation.astype(np.int8),
    }


def _check_position(number: int, index: int, operations: NDArray[np.float64], centring: NDArray[np.float64]) -> None:
    rotation, translation = operations[0, :3, :3], operations[0, :3, 3]
    residual = rotation @ translation
    is_projection = np.array_equal(rotation @ rotation, rotation) and np.allclose(residual, np.rint(residual))
    if not is_projection or np.triu(rotation, 1).any():
        raise InputError(f"group {number}, position {index}: the first operation is not an ordered projection")
    block = operations[: len(operations) // len(centring)]
    points = block[:, :3, :3] @ [0.1234, 0.2718, 0.3141] + block[:, :3, 3]  # a generic point
    for shift in centring:
        difference = points[:, None] - points[None] - shift
        same = np.abs(difference - np.rint(difference)).max(-1) < 1e-6
        if (same & ~np.eye(len(points), dtype=bool)).any():
            raise InputError(f"group {number}, position {index}: operations are not in blocks of centring vectors")


def main() -> int:
    """Write the table, or compare it with the source under ``--check``; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the shipped file with pyxtal, write nothing")
    source = positions_from_pyxtal()
    if not parser.parse_args().check:
        np.savez_compressed(TABLE_FILE, allow_pickle=False, **source)
        print(f"wrote {TABLE_FILE.name}: {TABLE_FILE.stat().st_size / 1e3:.0f} kB")
        return 0
    with np.load(TABLE_FILE) as shipped:
        differing = [key for key, array in source.items() if not np.array_equal(shipped[key], array)]
    positions, operations = len(source["multiplicity"]), len(source["rotation"])
    print(f"{positions} positions, {operations} operations; " + (f"differing: {differing}" if differing else "equal"))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

"""Generate ``data/mp20_groups.txt``: how many crystals of MP-20's training set each space group has.

Run ``python -m crystal_env.build.group_frequencies`` with ``$CRYSTALGEN_DATA`` at the folder that holds ``mp20_train.csv.gz``.
The groups are those of this project's symmetry search at 0.01 Å.
"""

import numpy as np

from crystal_env.grammar.constraints import GROUP_COUNTS_FILE
from crystal_env.dataset import data_folder, load_crystals
from crystal_env.wyckoff import N_GROUPS


def main() -> None:
    """Write the counts, one line for each space group."""
    crystals = load_crystals(data_folder() / "mp20_train.csv.gz").crystals
    counts = np.bincount(crystals.G, minlength=N_GROUPS + 1)[1:]
    np.savetxt(GROUP_COUNTS_FILE, counts, "%d")
    print(f"wrote {GROUP_COUNTS_FILE.name}: {counts.sum()} crystals in {np.count_nonzero(counts)} groups")


if __name__ == "__main__":
    main()

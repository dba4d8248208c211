"""Fine-tuning towards a property."""

import json

import numpy as np
import pytest
import tyro

from benchmarks.paper.property_runs import Args, main
from benchmarks.paper.sun_property import SUNBandGap
from crystal_env import Crystal, CrystalBatch


def volumes(atoms):
    """A model of the "gap": 4 eV for large cells, 0 for small ones."""
    return np.array([4.0 if a.get_volume() / len(a) > 20 else 0.0 for a in atoms])


def test_a_wide_gap_counts_with_novelty_and_stability():
    salt = "225-a-{}-0-0-0-b-Cl-1/2-1/2-1/2-X-{}-{}-{}-90-90-90"
    texts = [salt.format("Na", *[a] * 3) for a in (5.64, 5.64, 9.0)]
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    result = SUNBandGap(model=volumes, sun={"reference": None})(crystals)
    assert result.total[0] > 0.9
    assert result.total[1:].tolist() == [0, 0]  # a repeat, and one that is not stable
    small = SUNBandGap(model=lambda atoms: np.zeros(len(atoms)), sun={"reference": None})(crystals)
    assert 0 < small.total[0] < 0.05


def test_a_table_of_models_says_who_has_the_property(tmp_path, data_folder, capsys):
    out = tmp_path / "new" / "folder"
    words = (
        f"--rows base=mp20,mp20 --out {out} --property rewards:Density --term density --least 4 --size 12 --n-jobs 1"
    )
    args = tyro.cli(Args, args=[*words.split(), "--out", str(out), "--property-kwargs", '{"target": 3}'])
    main(args)
    facts = json.loads((out / "density.json").read_text())
    row = facts["rows"]["base"]
    assert 0 < row["property"]["value"] <= 100
    assert row["both"]["value"] <= min(row["sun"]["value"], row["property"]["value"])
    assert 1 <= row["structures"]["value"] <= 12
    assert (out / "density.md").read_text().strip() in capsys.readouterr().out


def test_a_row_needs_a_label(tmp_path):
    with pytest.raises(ValueError, match="rows must be 'label=folder,folder'"):
        main(Args(rows=("mp20",), out=tmp_path, property="rewards:Density", term="density", least=4.0))

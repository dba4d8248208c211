import json

import numpy as np
import pytest

from rewards.hull.file_format import Provenance, read_hull, shipped_hulls, write_hull
from rewards.potentials import load_potential


def test_file_round_trip_is_exact(tmp_path):
    path = tmp_path / "hull.npz"
    provenance = Provenance("model", "none", "two files", 3, "2026-01-01", {"numpy": "2"}, scale="PBE")
    write_hull(path, ["Na", "ClNa"], np.array([-1.23456789, 0.5]), provenance)
    formulas, energies, read = read_hull(path)
    assert formulas == ["Na", "ClNa"]
    np.testing.assert_allclose(energies, [-1.23456789, 0.5], atol=1e-6)
    assert read == provenance


def test_missing_file_is_a_value_error_that_names_the_shipped_hulls(tmp_path):
    with pytest.raises(ValueError, match=r"one of \['mp20-chgnet'\], got 'mp21'"):
        read_hull("mp21")
    assert shipped_hulls() == ["mp20-chgnet"]


def test_other_files_are_value_errors(tmp_path):
    text, array, pickled = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.npz"
    text.write_text("not a hull")
    np.savez(array, energies=np.zeros(3))
    np.savez(pickled, formulas=np.array([{}], object), microelectronvolts=np.zeros(1), provenance=np.array("{}"))
    empty = tmp_path / "d.npz"
    empty.touch()
    for path in (text, array, pickled, empty):
        with pytest.raises(ValueError, match="is not a hull file"):
            read_hull(path)


def test_file_with_a_formula_too_few_is_a_value_error(tmp_path):
    write_hull(tmp_path / "hull.npz", ["Na"], np.zeros(2), Provenance())
    with pytest.raises(ValueError, match="1 formulas"):
        read_hull(tmp_path / "hull.npz")


def test_file_from_before_scales_were_kept_has_none(tmp_path):
    path = tmp_path / "hull.npz"
    about = {"energy_model": "model", "corrections": "none", "reference_set": "", "n_structures": 1, "date": ""}
    np.savez(
        path,
        formulas=np.frombuffer(b"Na", np.uint8),
        microelectronvolts=np.array([-1_300_000], np.int32),
        provenance=np.array(json.dumps(about | {"versions": {}})),
    )
    assert read_hull(path).provenance == Provenance("model", n_structures=1)
    assert read_hull(path).energies.tolist() == [-1.3]


def test_shipped_hull_is_on_the_scale_of_its_potential():
    provenance = read_hull("mp20-chgnet").provenance
    potential = load_potential("chgnet")
    assert (
        (provenance.energy_model, provenance.scale) == (potential.name, potential.scale) == ("chgnet-0.3.0", "MP2020")
    )

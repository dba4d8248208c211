import subprocess
import sys

import pytest

from rewards.potentials import MP2020, PBE, load_potential
from rewards.potentials.ase import ASEPotential
from rewards.potentials.chgnet import CHGNetPotential
from rewards.potentials.matgl import MatglPotential
from rewards.potentials.orb import OrbPotential
from rewards.potentials.sevennet import SevenNetPotential


@pytest.mark.parametrize(
    ("name", "expected", "model", "scale"),
    [
        ("chgnet", CHGNetPotential(), "chgnet-0.3.0", MP2020),
        ("orb", OrbPotential("orb-v2"), "orb-v2", PBE),
        ("orb-v3-conservative-inf-omat", OrbPotential("orb-v3-conservative-inf-omat"), None, "OMat24"),
        ("orb-v3-direct-20-mpa", OrbPotential("orb-v3-direct-20-mpa"), None, PBE),
        ("orb-d3-v2", OrbPotential("orb-d3-v2"), None, "PBE-D3"),
        ("sevennet", SevenNetPotential("sevennet-l3i5"), "sevennet-l3i5", PBE),
        ("sevennet-0", SevenNetPotential("sevennet-0"), None, PBE),
        ("matgl:some/folder", MatglPotential("some/folder"), "folder", PBE),
        ("ase:ase.calculators.emt:EMT", ASEPotential("ase.calculators.emt:EMT"), "EMT", ""),
    ],
)
def test_a_potential_is_found_by_its_name_and_declares_its_scale(name, expected, model, scale):
    potential = load_potential(name)
    assert potential == expected
    assert potential.name == (model or name)
    assert potential.scale == scale


def test_options_reach_the_potential():
    assert load_potential("orb-v2", weights="file.ckpt", device="cuda").weights == "file.ckpt"
    assert load_potential("chgnet", device="cuda").device == "cuda"


def test_energies_are_corrected_on_request_and_never_twice():
    corrected = load_potential("orb-v2+MP2020")
    assert (corrected.name, corrected.scale) == ("orb-v2+MP2020", MP2020)
    with pytest.raises(ValueError, match="chgnet"):
        load_potential("chgnet+MP2020")


def test_an_object_with_name_scale_and_energies_is_a_potential(pair_potential):
    assert load_potential(pair_potential) is pair_potential


@pytest.mark.parametrize("wrong", ["chgnt", "matgl", "ase:", None, 3])
def test_anything_else_is_a_value_error_that_names_what_is_allowed(wrong):
    with pytest.raises(ValueError, match=rf"'chgnet'.*got {wrong!r}|a name or an object.*got {wrong!r}"):
        load_potential(wrong)


def test_nothing_heavy_is_imported_before_the_first_score():
    code = (
        "import sys; from rewards.potentials import load_potential\n"
        "for name in ('chgnet', 'orb', 'sevennet', 'matgl:x', 'orb-v2+MP2020'): load_potential(name)\n"
        "print([m for m in ('torch', 'chgnet', 'matgl', 'orb_models', 'sevenn', 'pymatgen') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("orb-v2", "orb_models", "orb"), ("matgl:x", "matgl", "matgl"), ("sevennet", "sevenn", "sevennet")],
)
def test_a_missing_library_is_an_error_that_names_the_extra(name, module, extra, monkeypatch, crystals):
    for loaded in [key for key in sys.modules if key == module or key.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'pip install "crystalgen\[{extra}\]"'):
        load_potential(name).energies(crystals.to_atoms())

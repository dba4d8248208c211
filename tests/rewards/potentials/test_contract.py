"""Every potential of the package keeps the contract: CHGNet, and the real architectures of others, random weights."""

import pytest
from ase.calculators.emt import EMT

from crystal_env.crystal import Crystal
from rewards.potentials.ase import ASEPotential
from rewards.potentials.chgnet import CHGNetPotential
from rewards.potentials.matgl import MatglPotential
from rewards.potentials.orb import OrbPotential
from rewards.potentials.sevennet import MODELS, SevenNetPotential
from rewards.testing.reward import check_potential

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Let nothing else write into the current folder, which is watched."""
    monkeypatch.chdir(tmp_path)


ALLOYS = [
    Crystal.from_string("221-a-Au-0-0-0-c-Cu-0-1/2-1/2-X-3.8-3.8-3.8-90-90-90"),
    Crystal.from_string("123-a-Cu-0-0-0-d-Au-1/2-1/2-1/2-X-2.8-2.8-3.7-90-90-90"),
    Crystal.from_string("225-a-Al-0-0-0-X-4.1-4.1-4.1-90-90-90"),
]


def test_chgnet():
    check_potential(CHGNetPotential())


def test_matgl(random_models):
    check_potential(MatglPotential(random_models / "pes"))
    check_potential(MatglPotential(random_models / "pes", precision="float64"), large=False, derivative_tolerance=2e-3)


@pytest.mark.parametrize(
    ("name", "conservative", "tolerance"),
    [("orb-v2", False, 0.02), ("orb-v3-conservative-inf-mpa", True, 1e-4)],  # 20 neighbours depend on the cell
)
def test_orb(orb_weights, name, conservative, tolerance):
    potential = OrbPotential(name, weights=orb_weights / f"{name}.ckpt")
    check_potential(potential, conservative=conservative, tolerance=tolerance, large=False)


@pytest.mark.parametrize("model", MODELS)
def test_sevennet(model):
    pytest.importorskip("sevenn")
    check_potential(SevenNetPotential(model), large=model == "sevennet-0")


def test_ase_calculator():
    check_potential(ASEPotential(EMT, n_jobs=1), ALLOYS)

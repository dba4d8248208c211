"""The rewards that ask a model keep the contract of every reward, nonsense and all."""

import pytest

from rewards import BandGap, BulkModulus, DielectricFoM, EnergyAboveHull, ForceStress, Property, Relaxation
from rewards.combinators.cache import Cached
from rewards.combinators.metered import Metered
from rewards.potentials.matgl import MatglProperty
from rewards.testing.reward import check_reward, examples

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Let nothing else write into the current folder, which is watched."""
    monkeypatch.chdir(tmp_path)


def volumes(atoms):
    return [one.get_volume() / len(one) for one in atoms]


@pytest.mark.parametrize(
    "reward",
    [
        Property(volumes, "mae", target=15.0),
        BandGap(volumes),
        DielectricFoM(volumes, volumes, max_dielectric=20.0),
        ForceStress(),
        Cached(Property(volumes)),
        Metered(Property(volumes)),
    ],
    ids=lambda reward: type(reward).__name__,
)
def test_rewards_of_models_keep_the_contract(reward):
    check_reward(reward)


def test_dielectrics_of_matgl_keep_the_contract(random_models):
    six = MatglProperty(random_models / "six")
    check_reward(DielectricFoM(six, volumes), tolerance=1e-3)


def test_bulk_modulus_keeps_the_contract():
    check_reward(BulkModulus(floor=0.0), examples()[:4], tolerance=0.5)  # GPa: energies in single precision


def test_energies_of_relaxed_crystals_keep_the_contract():
    reward = EnergyAboveHull(relax=Relaxation(steps=3))
    check_reward(reward, examples()[:3], tolerance=1e-3)

import subprocess
import sys

import pytest

import rewards


def test_importing_rewards_loads_no_model_library():
    code = (
        "import sys, rewards; heavy = {'torch', 'chgnet', 'smact', 'pymatgen', 'scipy', 'pandas', 'ase'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_imported():
    for name in rewards.__all__:
        assert getattr(rewards, name).__module__.startswith("rewards.")
        assert name in dir(rewards)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="EnergyBelowHull"):
        rewards.EnergyBelowHull  # noqa: B018

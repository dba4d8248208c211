import subprocess
import sys

import pytest

import agents


def test_the_network_imports_no_heavy_library():
    code = "import sys, agents; print({'stable_baselines3', 'sb3_contrib', 'pymatgen', 'ase'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_all_public_names_can_be_imported():
    assert all(getattr(agents, name).__name__ == name for name in agents.__all__)
    assert set(agents.__all__) <= set(dir(agents))


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        agents.Nothing  # noqa: B018

"""Where the tests find their data and keep what they compute."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel: their threads would compete for the cores

_SHARED = Path(__file__).resolve().parents[2] / "shared"

_FOLDERS = {"CRYSTALGEN_DATA": "data", "CRYSTALGEN_PARITY": "parity", "CRYSTALGEN_MODELS": "models"}
for _name, _folder in ((name, _SHARED / folder) for name, folder in _FOLDERS.items()):
    if _name not in os.environ and _folder.is_dir():
        os.environ[_name] = str(_folder)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    if "CRYSTALGEN_CACHE" not in os.environ:
        os.environ["CRYSTALGEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of development data; tests that need it are skipped where there is none."""
    return _folder_with("CRYSTALGEN_DATA", "mp20_val.csv.gz")


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """The folder of what the paper's own code computes; tests that need it are skipped where there is none."""
    return _folder_with("CRYSTALGEN_PARITY", "rope_tables.npz")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of published models of matgl; tests that need it are skipped where there is none."""
    return _folder_with("CRYSTALGEN_MODELS", "M3GNet-MP-2021.2.8-PES")


def _folder_with(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, ""))
    if not (folder / name).exists():
        pytest.skip(f"needs {name} in the folder ${variable}")
    return folder

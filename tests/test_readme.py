"""The Python of the README runs as it stands, and the examples in docstrings show what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["crystal_env", "rewards", "agents", "benchmarks"]
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
    if not module.name.endswith("wyckoff_table")
]


_LIBRARIES = {
    "rllib_ppo": "lz4", "tianshou_ppo": "tianshou", "torchrl_ppo": "torchrl", "sevennet_convolution": "sevenn",
}  # fmt: skip
"""Modules of other libraries, which are no dependencies, and what each cannot be imported without."""


def python_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_python_of_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = python_of("README.md")
    assert len(blocks) == 7
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block.replace("20_000", "6_000"), namespace)
    assert "SrTiO3" in capsys.readouterr().out


def test_python_of_the_page_on_reinforcement_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = python_of("docs/reinforcement.md")
    namespace: dict[str, object] = {}
    exec(first, namespace)
    assert (tmp_path / "agent.zip").is_file()
    assert len(namespace["crystals"]) == 10
    exec(second, namespace)
    assert len(namespace["episodes"]) == len(namespace["second"].buffer) == 20


def test_python_of_the_page_on_rewards_runs_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = python_of("docs/rewards.md")
    namespace: dict[str, object] = {}
    exec(block, namespace)
    env = namespace["env"]
    _, info = env.reset(seed=0)
    terminated = False
    while not terminated:
        action = env.action_space.sample(info["action_mask"])
        _, reward, terminated, _, info = env.step(action)
    assert {"gate/structural", "e_above_hull"} <= set(info["reward_terms"])
    assert reward == -10 or info["reward_failure"] is None


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = name.rpartition(".")[2]
    if name.startswith("benchmarks.libraries.") or module in _LIBRARIES:
        pytest.importorskip(_LIBRARIES.get(module, "torch"))
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


def test_tracked_documents_name_existing_files():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

"""The function that evaluates crystals of any generator."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from pymatgen.io.cif import CifWriter

from benchmarks import evaluate
from crystal_env import Crystal, CrystalBatch, sample_masked
from rewards import ConvexHull

SALT = "225-a-{0}-0-0-0-b-{1}-1/2-1/2-1/2-X-{2}-{2}-{2}-90-90-90"
TEXTS = [
    SALT.format("Na", "Cl", 5.64),
    SALT.format("K", "Br", 6.7),
    SALT.format("Na", "Cl", 5.6),
    SALT.format("Li", "F", 4.1),
]


@pytest.fixture
def files(tmp_path):
    """Return a folder of CIF files, one of them broken, a batch of the same crystals, and a reference."""
    crystals = CrystalBatch.from_crystals([Crystal.from_string(text) for text in TEXTS])
    folder = tmp_path / "generated"
    folder.mkdir()
    for row, crystal in enumerate(crystals):
        CifWriter(crystal.to_structure()).write_file(str(folder / f"{row}.cif"))
    (folder / "9.cif").write_text("no crystal at all")
    crystals.save(tmp_path / "batch.npz")
    crystals[3:].save(tmp_path / "reference.npz")
    return folder, tmp_path / "batch.npz", tmp_path / "reference.npz"


def test_function_takes_structures_and_counts_what_is_none(files):
    crystals = [Crystal.from_string(text) for text in TEXTS]
    mixed = [crystals[0], crystals[1].to_structure(), None, crystals[2].to_atoms()]
    evaluation = evaluate(mixed, reference=[files[2]], weights={225: 1.0}, seconds=2.0, n_jobs=1)
    assert list(evaluation.summary["failures"]) == ["row 2"]
    entry = evaluation.summary["rates"]["sun_0.1"]
    assert (entry["count"], entry["total"]) == (2, 4)
    assert evaluation.summary["sun_per_second"] == 1
    assert evaluation.summary["provenance"]["reference"]["files"].keys() == {"reference.npz"}
    assert evaluation.summary["provenance"]["reference"]["crystals"] == 1
    assert len(evaluation.summary["provenance"]["hull"]["hull-mp20-chgnet.npz"]) == 64


def test_relaxed_crystals_are_evaluated_too(files):
    evaluation = evaluate(files[1], reference=[files[2]], relax=3, n_jobs=1)
    rates = {name: (entry["count"], entry["total"]) for name, entry in evaluation.summary["relaxed"]["rates"].items()}
    assert rates["space_group_kept"] == (3, 3)
    assert rates["sun_0.1"] == (2, 3)


def test_a_second_potential_evaluates_all_samples_again(files):
    own = ConvexHull.load("mp20-chgnet")
    salts = np.array([formula in ("NaCl", "LiF") for formula in own.formulas()])
    lower = ConvexHull(own.compositions, (own.energies - 0.2 * salts) * own.compositions.sum(1), own.provenance)
    kinds = {"cross_check": "chgnet", "cross_check_hull": lower}
    evaluation = evaluate(files[1], reference=[files[2]], n_jobs=1, **kinds)
    first, second = evaluation.metrics.e_above_hull, evaluation.cross_check.e_above_hull
    np.testing.assert_allclose(second - first, [0.2, 0, 0.2, 0.2], atol=1e-4)
    found = evaluation.summary["cross_check"]
    counts = {name: (entry["count"], entry["total"]) for name, entry in found["rates"].items()}
    assert counts["stable_0.1"] == (1, 4)
    assert counts["sun_0.1"] == (1, 4)
    assert counts["confirmed_stable_0.1"] == (1, 4)
    assert counts["confirmed_sun_0.1"] == (1, 2)
    assert counts["agreement_0.1"] == (1, 4)
    assert counts["sun_by_both_0.1"] == (1, 4)
    assert found["potential"] == "chgnet-0.3.0"
    with pytest.raises(ValueError, match="cross_check and cross_check_hull belong together, got chgnet and None"):
        evaluate(files[1], reference=[files[2]], cross_check="chgnet")


def test_known_answers(tmp_path):
    """Rock salt shifted, doubled and permuted is one structure, with CsCl two; what is known is not novel."""
    salt = Crystal.from_string(TEXTS[0]).to_structure()
    shifted, doubled = salt.copy(), salt.copy()
    shifted.translate_sites(range(len(shifted)), [0.1, 0.2, 0.3])
    doubled.make_supercell([1, 1, 2])
    permuted = salt.__class__.from_sites(salt.sites[::-1])
    other = Crystal.from_string("221-a-Cs-0-0-0-b-Cl-1/2-1/2-1/2-X-4.12-4.12-4.12-90-90-90")
    same = [salt, shifted, doubled, permuted]
    alone = evaluate(same, reference=CrystalBatch.empty(), n_jobs=1).summary["rates"]
    assert (alone["unique"]["count"], alone["novel"]["count"]) == (1, 4)
    both = evaluate([*same, other], reference=other.to_batch(), n_jobs=1).summary["rates"]
    assert (both["unique"]["count"], both["novel"]["count"]) == (2, 4)
    replayed = evaluate([other, other], reference=other.to_batch(), n_jobs=1).summary["rates"]
    assert replayed["novel"]["count"] == replayed["sun_0.1"]["count"] == 0


def test_random_crystals_are_hardly_ever_stable_unique_and_novel():
    env = gym.make_vec("CrystalGen-v0", num_envs=100, reward=None, autoreset_mode="SameStep")
    rng, made = np.random.default_rng(0), []
    _, info = env.reset(seed=0)
    while len(made) < 100:
        _, _, terminated, _, info = env.step(sample_masked(info["action_mask"], rng))
        if terminated.any():
            made += list(info["final_info"]["crystal"][terminated])
    rates = evaluate(made, reference=CrystalBatch.empty(), n_jobs=1).summary["rates"]
    assert rates["sun_0.1"]["rate"] <= 0.02


def test_python_of_the_page_on_evaluation_runs(capsys):
    page = (Path(__file__).resolve().parents[3] / "docs" / "evaluate.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    namespace: dict[str, object] = {}
    exec(block, namespace)
    summary = namespace["evaluation"].summary
    assert list(summary["failures"]) == ["row 2", "row 3"]
    assert summary["rates"]["sun_0.1"]["count"] == 1
    assert summary["weighted"]["sun_0.1"]["rate"] == 1 / 2
    assert summary["relaxed"]["rates"]["sun_0.1"]["total"] == 4

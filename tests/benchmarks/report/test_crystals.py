import base64
import re

import numpy as np

from benchmarks.report.crystals import best, scene
from benchmarks.report.folder import read
from crystal_env.crystal import Crystal

ROCK_SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90"


def test_the_best_are_sun_and_then_by_reward(folder, rows_of):
    results = read(folder)
    what, counted = results.counted
    assert what == "S.U.N."
    rows = [row for seed in range(3) for row in rows_of(seed, True)]
    ordered = sorted(np.flatnonzero(counted), key=lambda i: -rows[i]["total"])
    expected = list(dict.fromkeys((rows[i]["formula"], rows[i]["space_group"]) for i in ordered))[:6]
    assert [(one["formula"], int(one["group"].split("(")[1][:-1])) for one in best(results)] == expected


def test_crystals_can_be_downloaded(page):
    from pymatgen.core import Composition, Structure

    cards = re.findall(r'download="([^"]+)" href="data:chemical/x-cif;base64,([^"]+)"', page)
    assert len(cards) == 6
    for name, text in cards:
        structure = Structure.from_str(base64.b64decode(text).decode(), fmt="cif")
        formula, group = name.removesuffix(".cif").rsplit("-", 1)
        assert structure.get_space_group_info(0.01)[1] == int(group)
        assert structure.composition.reduced_formula == Composition(formula).reduced_formula


def test_a_scene_has_the_atoms_in_and_on_the_cell():
    crystal = Crystal.from_string(ROCK_SALT.format("Na", "Cl", a=5.64))
    drawn = scene(crystal)
    atoms = {element["symbol"]: np.array(element["atoms"]) for element in drawn["elements"]}
    inside = {name: ((at > -0.1) & (at < 5.74)).all(1).sum() for name, at in atoms.items()}
    assert inside == {"Na": 14, "Cl": 13}
    np.testing.assert_allclose(drawn["cell"], 5.64 * np.eye(3), atol=1e-3)
    lengths = [2 * np.linalg.norm(np.subtract(start, end)) for start, end, _ in drawn["sticks"]]
    np.testing.assert_allclose(lengths, 2.82, atol=0.01)

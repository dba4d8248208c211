"""Energies above the hull of three potentials on uncorrected scales, against the official ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from rewards.hull.convex_hull import ConvexHull
from rewards.hull.file_format import Provenance
from rewards.hull.formulas import as_compositions
from rewards.hull.sources import read_formation_energies
from rewards.hull.validation import compare

MODELS = ("mace_mp", "orb_v3_omat", "uma_omat")


@dataclass
class Known:
    """A potential by its name and scale."""

    name: str
    scale: str

    def energies(self, atoms):
        raise NotImplementedError


@pytest.fixture(scope="module")
def table(data_folder):
    """Total energies of the three models, with the official energies above the hull where there are some."""
    energies = pd.read_csv(data_folder / "mp20_mlip_hull_energies.csv.gz", keep_default_na=False)
    columns = ["material_id", "e_above_hull"]
    files = [data_folder / f"mp20_{split}.csv.gz" for split in ("train", "val")]
    labels = pd.concat(pd.read_csv(file, usecols=columns, keep_default_na=False) for file in files)
    table = energies.merge(labels, on="material_id", how="left")
    for column in ("e_above_hull", *(f"{model}_energy" for model in MODELS)):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


@pytest.fixture(scope="module")
def compositions(table):
    return as_compositions(table["composition"])


@pytest.fixture(scope="module")
def dft(data_folder):
    """The official hull, on the corrected scale."""
    paths = data_folder / "mp_hull_reference.csv.gz", data_folder / "mp_elemental_reference_entries_2023-02-07.json.gz"
    return ConvexHull.from_entries(read_formation_energies(*paths), Provenance("DFT", scale="MP2020"))


@pytest.mark.parametrize("model", MODELS)
def test_hull_of_own_energies_agrees_with_the_official_labels(model, table, compositions):
    energies, potential = table[f"{model}_energy"].to_numpy(), Known(model, "PBE")
    scored = np.isfinite(energies)
    hull = ConvexHull(compositions[scored], energies[scored], Provenance(model, scale="PBE"))
    hull.check_scale(potential)
    result = compare(hull.e_above_hull(compositions, energies), table["e_above_hull"].to_numpy())
    assert result.n > 10_000
    assert result.agreement >= 0.99
    assert result.mean_error < 0.01


@pytest.mark.parametrize("model", MODELS)
def test_raw_energies_on_the_corrected_hull_are_refused(model, table, compositions, dft):
    with pytest.raises(ValueError, match=rf"'{model}\+MP2020'"):
        dft.check_scale(Known(model, "PBE"))
    energies = table[f"{model}_energy"].to_numpy()
    total = energies + at_elements(compositions, dft._elemental - elemental_energies(compositions, energies))
    rows = (table["split"] == "val").to_numpy()  # all labelled; which of the training rows are is not at random
    result = compare(dft.e_above_hull(compositions[rows], total[rows]), table["e_above_hull"].to_numpy()[rows])
    assert result.n > 6000
    assert result.agreement == pytest.approx(0.6, abs=0.04)
    assert result.bias > 0.1


def elemental_energies(compositions, energies):
    """The lowest energy of each element (119,) in eV/atom."""
    reference = np.full(compositions.shape[1], np.nan)
    elemental = ((compositions > 0).sum(1) == 1) & np.isfinite(energies)
    for row in np.flatnonzero(elemental):
        z = compositions[row].argmax()
        reference[z] = np.fmin(reference[z], energies[row] / compositions[row].sum())
    return reference


def at_elements(compositions, reference):
    """Energies of the elements that compositions (B, 119) are made of, NaN where one has none."""
    unknown = ((compositions > 0) & np.isnan(reference)).any(1)
    return np.where(unknown, np.nan, compositions @ np.nan_to_num(reference))


def test_official_energies_on_the_official_hull_agree(table, compositions, dft):
    per_atom = pd.to_numeric(table["formation_energy_per_atom"], errors="coerce").to_numpy()
    total = per_atom * compositions.sum(1) + at_elements(compositions, dft._elemental)
    result = compare(dft.e_above_hull(compositions, total), table["e_above_hull"].to_numpy())
    assert result.agreement > 0.99
    assert result.mean_error < 0.005

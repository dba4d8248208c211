"""The paper's numbers are those of its text."""

import re
from pathlib import Path

import pytest

from benchmarks.paper import published

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper" / "crystalformer-rl.md"


def test_the_numbers_are_those_of_the_text():
    if not PAPER.is_file():
        pytest.skip("needs the text of the paper")
    text = re.sub(r"\s+", " ", PAPER.read_text())
    for sentence in (
        "RL finetune improves the ratio of stable materials from 44.7% in the base model to 73.4%",
        "increased from 15.3% for the pre-trained model to 21.6% for the RL fine-tuned model",
        "it increases the rate of generating S.U.N. samples from 3.46 to 4.89 per second",
        "significant improvement in the S.U.N. ratio, rising from 2.6% to 15.3%",
        "increasing the S.U.N. ratio from 15.3% to 18.3%",
        "the S.U.N ratio 5.1% of the base model on space group No.225",
        "We generated 5000 samples (which takes 276 seconds with single A100 GPU)",
        "11 materials in Table S2 are *absent* from the Alex-20 dataset",
        "we subsample 1000 data points",
        "For each space group, we generate 1000 structures",
        "band gap 4.10 eV and total dielectric constant 27.49",
        "band gap 1.86 eV and total dielectric constant 46.92",
        "PPO steps between resampling 3",
        "$\\tau$ 0.1 15 for FoM reward",
    ):
        assert sentence in text
    assert [number.value for number in published.NUMBERS["fig3"]] == [1000, 44.7, 73.4, 15.3, 21.6, 3.46, 4.89]
    assert [number.value for number in published.NUMBERS["fig5"]] == [2.6, 15.3, 18.3, 21.6]


def test_the_tables_are_those_of_the_text():
    if not PAPER.is_file():
        pytest.skip("needs the text of the paper")
    text = PAPER.read_text()
    rows = {2: [], 3: []}
    for number, mine in rows.items():
        part = text[text.index(f"\nTable S{number}. ") :].split("\n\n")
        table = next(block for block in part if "\t" in block)
        mine += [line.split("\t") for line in table.splitlines()[1:]]
    assert len(rows[2]) == len(published.TABLE_S2) == 32
    assert len(rows[3]) == len(published.TABLE_S3) == 21
    for row, cells in zip(published.TABLE_S2, rows[2], strict=True):
        assert _plain_formula(cells[0]) == row.formula
        assert [float(cell) for cell in cells[1:5]] == list(row[1:5])
        assert [bool(cell) for cell in [*cells, "", ""][5:7]] == [row.novel, row.unlabelled]
    for row, cells in zip(published.TABLE_S3, rows[3], strict=True):
        assert _plain_formula(cells[0]) == row.formula
        assert [float(cell) for cell in cells[1:]] == list(row[1:])


def test_the_tables_agree_with_the_text_and_with_themselves():
    listed = published.TABLE_S2
    assert sum(row.novel for row in listed) == 11
    assert {row.formula for row in listed if not row.unlabelled} == set(published.LABELS)
    assert set(published.EXAMPLES) <= {row.formula for row in listed if row.novel}
    assert [row.formula for row in listed if not row.novel] == [row.formula for row in published.TABLE_S3]
    assert [row.figure_of_merit for row in listed] == sorted((row.figure_of_merit for row in listed), reverse=True)
    for row in listed:
        assert row.band_gap * row.dielectric_constant == pytest.approx(row.figure_of_merit, rel=4e-3)
        assert row.figure_of_merit > published.MIN_FOM
        assert row.e_above_hull <= published.STABLE
    for row in published.TABLE_S3:
        assert row.band_gap_eq * row.dielectric_constant_eq == pytest.approx(row.figure_of_merit_eq, rel=4e-3)


def _plain_formula(text):
    return re.sub(r"\\text|</?sub>|[${}_ ]", "", text)

"""Numbers of the paper (Cao and Wang, arXiv:2504.02367v1), each with the place where it is printed.

Curves, bars and points that the paper only plots have no number here. Formulas are those of the text this file was made
from, where the thallium of some may have become titanium.
"""

import re
from statistics import median
from typing import NamedTuple


class Number(NamedTuple):
    """A number of the paper.

    Attributes:
        quantity: what it is, with its unit.
        value: the number; None where the paper only plots or describes it, see ``source``.
        source: where it is printed.
    """

    quantity: str
    value: float | None
    source: str


class Candidate(NamedTuple):
    """A row of Table S2.

    Attributes:
        formula: of the crystal.
        band_gap: in eV, predicted.
        dielectric_constant: the total one, predicted.
        figure_of_merit: their product in eV.
        e_above_hull: in eV/atom, by Orb against Alexandria's hull.
        novel: whether Alex-20, the training set, does not have it.
        unlabelled: whether the DFPT data set does not have it.
    """

    formula: str
    band_gap: float
    dielectric_constant: float
    figure_of_merit: float
    e_above_hull: float
    novel: bool
    unlabelled: bool


class Known(NamedTuple):
    """A row of Table S3: a candidate as sampled, and the structure of the training set.

    Attributes:
        formula: of the crystal.
        band_gap: in eV, predicted.
        dielectric_constant: the total one, predicted.
        figure_of_merit: their product in eV.
        a: lattice constant of the primitive cell in Å.
        band_gap_eq: of the structure of the training set.
        dielectric_constant_eq: likewise.
        figure_of_merit_eq: likewise.
        a_eq: likewise.
    """

    formula: str
    band_gap: float
    dielectric_constant: float
    figure_of_merit: float
    a: float
    band_gap_eq: float
    dielectric_constant_eq: float
    figure_of_merit_eq: float
    a_eq: float


_FIG3 = "Fig. 3 and section III A"
_FIG4 = "Fig. 4 and section III A"
_FIG5 = "Fig. 5 and section III A"
_APPENDIX_D = "appendix D"

STABLE = 0.1
"""Energy above the hull in eV/atom below which a crystal counts as stable (section III A)."""

MIN_FOM = 100.0
"""Figure of merit in eV of the dashed line in Fig. 6(a), and above which Table S2 lists crystals (section III B)."""

SPACE_GROUPS = (1, 2, 6, 15, 38, 71, 119, 131, 143, 159, 187, 194, 204, 216)
"""The 14 space groups of Fig. 4, two of each crystal system: those of MatterGen (its Fig. D8; section III A). The text
names P1 and F-43m alone, the others are known from users of MatterGen."""

DIELECTRIC_GROUP = 225
"""Fm-3m, the space group of Fig. 6 and Tables S2 and S3."""

TAU, TAU_FOM = 0.1, 15.0
"""KL coefficients for stability in eV/atom and for the figure of merit in eV (Table S1)."""

TABLE_S2 = (
    Candidate("LiNdTi2F6", 4.54, 41.73, 189.54, 0.09, False, True),
    Candidate("LiLaTi2F6", 4.48, 40.44, 181.35, 0.08, False, True),
    Candidate("LiErTi2F6", 4.73, 36.56, 172.78, 0.05, False, True),
    Candidate("LiScTi2F6", 4.40, 37.41, 164.57, 0.03, False, True),
    Candidate("KDyTi2F6", 6.32, 23.49, 148.50, 0.05, True, True),
    Candidate("NaTbTi2F6", 5.02, 29.17, 146.56, 0.02, True, True),
    Candidate("LiYTi2F6", 4.69, 30.98, 145.27, 0.04, False, True),
    Candidate("LiTmTi2F6", 4.53, 29.19, 132.27, 0.03, False, True),
    Candidate("LiNiPb2F6", 4.12, 30.43, 125.26, -0.04, True, True),
    Candidate("Li6PbCl8", 4.64, 25.19, 116.76, 0.08, True, True),
    Candidate("Cs2BaSrF6", 5.38, 21.32, 114.75, 0.04, True, True),
    Candidate("Cs2SmTiF6", 5.69, 20.12, 114.50, 0.02, False, True),
    Candidate("LaMnTi2F6", 3.03, 36.01, 109.15, -0.04, True, True),
    Candidate("Cs2SrCaF6", 6.10, 17.86, 108.92, 0.01, False, True),
    Candidate("Cs2LiNdF6", 6.44, 16.90, 108.90, 0.06, False, True),
    Candidate("ScTi2WO6", 1.99, 54.47, 108.50, 0.1, True, True),
    Candidate("ScPb2WO6", 1.53, 70.52, 107.90, 0.1, True, True),
    Candidate("Ba2TaMnO6", 2.75, 39.00, 107.37, 0.08, False, True),
    Candidate("CsBaF3", 5.81, 18.38, 106.78, 0.08, False, True),
    Candidate("LiTi2InF6", 3.72, 28.74, 106.76, 0.03, False, False),
    Candidate("Cs2LiPrF6", 6.52, 16.25, 105.99, 0.07, False, True),
    Candidate("Rb2NdTiF6", 5.29, 20.02, 105.90, 0.09, True, True),
    Candidate("Ba2TaFeO6", 2.07, 50.19, 103.81, 0.02, True, False),
    Candidate("Cs2ScTiF6", 4.87, 21.26, 103.51, 0.0, False, True),
    Candidate("Cs2LiLaF6", 5.96, 17.35, 103.50, 0.07, False, True),
    Candidate("Cs2KNdF6", 5.96, 17.37, 103.49, 0.01, False, True),
    Candidate("Cs2RbNdF6", 6.40, 16.16, 103.49, 0.02, False, True),
    Candidate("Cs2BaCaF6", 6.07, 17.00, 103.13, 0.04, False, True),
    Candidate("Cs2LuTiF6", 5.48, 18.61, 101.96, 0.0, True, True),
    Candidate("Cs2BaPbF6", 4.66, 21.82, 101.69, 0.04, False, True),
    Candidate("Cs2RbSrF6", 5.89, 17.22, 101.47, 0.09, False, True),
    Candidate("Cs3NdF6", 6.18, 16.33, 100.95, 0.04, False, True),
)
"""Dielectric materials with a figure of merit above 100 eV among 5,000 crystals, the best first."""

TABLE_S3 = (
    Known("LiNdTi2F6", 4.54, 41.73, 189.54, 6.23, 4.69, 41.92, 196.41, 6.23),
    Known("LiLaTi2F6", 4.48, 40.44, 181.35, 6.31, 4.63, 37.72, 174.53, 6.22),
    Known("LiErTi2F6", 4.73, 36.56, 172.78, 6.09, 4.71, 36.93, 173.98, 6.11),
    Known("LiScTi2F6", 4.40, 37.41, 164.57, 6.00, 4.54, 36.24, 164.49, 6.00),
    Known("LiYTi2F6", 4.69, 30.98, 145.27, 6.16, 4.70, 30.31, 142.52, 6.13),
    Known("LiTmTi2F6", 4.53, 29.19, 132.27, 6.09, 4.59, 29.99, 137.59, 6.09),
    Known("Cs2SmTiF6", 5.69, 20.12, 114.50, 7.11, 5.73, 19.84, 113.69, 7.01),
    Known("Cs2SrCaF6", 6.10, 17.86, 108.92, 6.73, 6.04, 16.59, 100.17, 6.64),
    Known("Cs2LiNdF6", 6.44, 16.90, 108.90, 6.41, 6.41, 16.82, 107.89, 6.41),
    Known("Ba2TaMnO6", 2.75, 39.00, 107.37, 5.85, 1.88, 35.08, 65.82, 5.66),
    Known("CsBaF3", 5.81, 18.38, 106.78, 7.34, 5.81, 18.94, 109.98, 5.14),
    Known("LiTi2InF6", 3.72, 28.74, 106.76, 6.06, 3.90, 26.52, 103.32, 6.05),
    Known("Cs2LiPrF6", 6.52, 16.25, 105.99, 6.46, 6.43, 15.79, 101.48, 6.43),
    Known("Cs2ScTiF6", 4.87, 21.26, 103.51, 6.82, 4.86, 20.78, 100.99, 6.73),
    Known("Cs2LiLaF6", 5.96, 17.35, 103.50, 6.45, 5.68, 16.72, 94.88, 6.44),
    Known("Cs2KNdF6", 5.96, 17.37, 103.49, 7.03, 5.81, 14.85, 86.31, 6.90),
    Known("Cs2RbNdF6", 6.40, 16.16, 103.49, 7.11, 6.45, 15.85, 102.16, 7.04),
    Known("Cs2BaCaF6", 6.07, 17.00, 103.13, 6.87, 6.08, 16.77, 101.99, 6.84),
    Known("Cs2BaPbF6", 4.66, 21.82, 101.69, 7.14, 4.64, 21.61, 100.23, 7.10),
    Known("Cs2RbSrF6", 5.89, 17.22, 101.47, 7.05, 5.41, 17.39, 94.01, 7.07),
    Known("Cs3NdF6", 6.18, 16.33, 100.95, 7.29, 5.18, 13.51, 69.98, 7.22),
)
"""The rows of Table S2 that the training set has, beside its structure."""


def elements(formula: str) -> set[str]:
    """Return the symbols of the elements in a formula."""
    return set(re.findall("[A-Z][a-z]?", formula))


def _fraction(element: str) -> float:
    return 100 * sum(element in elements(row.formula) for row in TABLE_S2) / len(TABLE_S2)


NUMBERS: dict[str, tuple[Number, ...]] = {
    "fig2": (
        Number("tau (eV/atom)", TAU, "Fig. 2 caption, Table S1"),
        Number("crystals of a step", 1000, "appendix A"),
        Number("optimiser steps between resampling", 3, "Table S1"),
        Number("mean energy above hull, first steps (eV/atom)", None, "Fig. 2(a), plotted"),
        Number("mean energy above hull, last steps (eV/atom)", None, "Fig. 2(a), plotted: 'steady improvement'"),
        Number("KL from the base model, first steps (nats)", None, "Fig. 2(b), plotted"),
        Number("KL from the base model, last steps (nats)", None, "Fig. 2(b), plotted: 'slightly increases'"),
    ),
    "fig3": (
        Number("crystals of each model", 1000, "section III A"),
        Number("stable, base (%)", 44.7, _FIG3),
        Number("stable, RL (%)", 73.4, _FIG3),
        Number("S.U.N., base (%)", 15.3, "section III A"),
        Number("S.U.N., RL (%)", 21.6, "section III A"),
        Number("S.U.N. per second, base", 3.46, "section III A, one A100"),
        Number("S.U.N. per second, RL", 4.89, "section III A, one A100"),
    ),
    "fig4": (
        Number("crystals of a group and model", 1000, "section III A"),
        Number("groups where RL has more stable ones", None, f"{_FIG4}, plotted: 'in most cases'"),
        Number("groups where RL has more S.U.N. ones", None, f"{_FIG4}, plotted: 'in most cases'"),
        Number("S.U.N. in P1 less S.U.N. in all groups, RL (%)", None, f"{_FIG4}, plotted: P1 is 'worst'"),
        Number("stable in F-43m, RL less base (%)", None, f"{_FIG4}, plotted: 'increases'"),
        Number("S.U.N. in F-43m, RL less base (%)", None, f"{_FIG4}, plotted: 'does not increase'"),
    ),
    "fig5": (
        Number("S.U.N., MP-20 (%)", 2.6, _FIG5),
        Number("S.U.N., Alex-20 (%)", 15.3, _FIG5),
        Number("S.U.N., SFT (%)", 18.3, _FIG5),
        Number("S.U.N., RL (%)", 21.6, _FIG5),
    ),
    "fig6": (
        Number("tau (eV)", TAU_FOM, "Table S1"),
        Number("points shown of each model", 1000, "Fig. 6 caption"),
        Number("line of constant figure of merit (eV)", MIN_FOM, "Fig. 6 caption"),
        Number("mean figure of merit, base (eV)", None, "Fig. 6(a), plotted"),
        Number("mean figure of merit, RL (eV)", None, "Fig. 6(a), plotted: 'significantly improves'"),
        Number("figure of merit above 100 eV, base (%)", None, "Fig. 6(a), plotted"),
        Number("figure of merit above 100 eV, RL (%)", None, "Fig. 6(a), plotted"),
        Number("stable, base (%)", None, "Fig. 6(b), plotted"),
        Number("stable, RL (%)", None, "Fig. 6(b), plotted: 'not significantly affected'"),
        Number("S.U.N., base (%)", 5.1, "section III B"),
    ),
    "table_s2": (
        Number("crystals sampled", 5000, "section III B"),
        Number("seconds to sample them", 276, "section III B, one A100"),
        Number("rows", 32, "Table S2"),
        Number("rows not in the training set", 11, "section III B, Table S2"),
        Number("rows in the DFPT data", 2, "appendix E, Table S2"),
        Number("highest figure of merit (eV)", 189.54, "Table S2"),
        Number("median figure of merit (eV)", median(row.figure_of_merit for row in TABLE_S2), "Table S2, computed"),
        Number("rows with fluorine (%)", _fraction("F"), "Table S2, computed; section III B: 'many are fluoride'"),
        Number(
            "rows with caesium (%)", _fraction("Cs"), "Table S2, computed; section III B: 'many are composed of Cs'"
        ),
    ),
    "table_s3": (
        Number("rows", 21, "Table S3"),
        Number(
            "median deviation of the figure of merit from the known (%)",
            100 * median(abs(row.figure_of_merit / row.figure_of_merit_eq - 1) for row in TABLE_S3),
            "Table S3, computed",
        ),
        Number(
            "median deviation of a from the known (Å)",
            median(abs(row.a - row.a_eq) for row in TABLE_S3),
            "Table S3, computed",
        ),
    ),
    "fig_s1": (
        Number("crystals of the training set", 1.04e6, "appendix B: 80 % of 'more than 1.3 million'"),
        Number("space groups that occur", None, "Fig. S1, plotted"),
        Number("fraction in P1 (%)", None, "Fig. S1, plotted"),
        Number("most common space group", None, "Fig. S1, plotted"),
    ),
    "fig_s2": (
        Number("crystals of the training set", 1.04e6, "appendix B: 80 % of 'more than 1.3 million'"),
        Number("elements that occur", None, "Fig. S2, plotted"),
        Number("crystals with oxygen (%)", None, "Fig. S2, plotted"),
    ),
    "fig_s3": (
        Number("structurally valid, MP-20 (%)", None, "Fig. S3, plotted"),
        Number("structurally valid, Alex-20 (%)", None, "Fig. S3, plotted"),
        Number("structurally valid, RL (%)", None, "Fig. S3, plotted: 'improves'"),
        Number("compositionally valid, MP-20 (%)", None, "Fig. S3, plotted"),
        Number("compositionally valid, Alex-20 (%)", None, "Fig. S3, plotted"),
        Number("compositionally valid, RL (%)", None, "Fig. S3, plotted: 'improves'"),
    ),
    "fig_s4": (
        Number("structures", 7000, f"{_APPENDIX_D}: '~7,000'"),
        Number("fraction in the test set (%)", 10, f"{_APPENDIX_D}: 8:1:1"),
        Number("highest constant", 100, f"{_APPENDIX_D}: components in [-10, 100]"),
        Number("mean absolute error, test", None, "Fig. S4, plotted"),
        Number("mean error, test", None, f"Fig. S4, plotted; {_APPENDIX_D}: 'often underestimating'"),
        Number("underestimated, test (%)", None, f"Fig. S4, plotted; {_APPENDIX_D}: 'often underestimating'"),
    ),
}
"""Figure or table -> its numbers, in the order in which they are printed."""

LABELS = {"LiTi2InF6": (4.10, 27.49), "Ba2TaFeO6": (1.86, 46.92)}
"""Formula -> band gap in eV and total dielectric constant of the DFPT data set (appendix E)."""

EXAMPLES = ("Cs2BaSrF6", "Li6PbCl8")
"""The two crystals of Fig. 6(c), rows of Table S2."""

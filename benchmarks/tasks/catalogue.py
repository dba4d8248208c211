"""The tasks of the benchmark."""

from benchmarks.tasks.perovskites import METALS
from benchmarks.tasks.task import Task
from crystal_env.errors import InputError

SPACE_GROUPS = (1, 2, 6, 15, 38, 71, 119, 131, 143, 159, 187, 194, 204, 216)
"""Two of each crystal system, as in the paper's Fig. 4 (MatterGen, Zeni et al., Nature 639, 624 (2025), Fig. D8)."""

FORMULAS = ("CoBr2", "Ga7Ni3", "LaZnGa", "NiPtF6", "Cu2SiHgSe4", "BaPr2MnS5", "RbMoPClO5", "BaNdCuBO5")
"""Sampled from the compositions of two to five elements, two of each number, that MP-20's validation set has once and
on the hull, its training set not at all, without radioactive elements."""

_STABLE = {"max_depth": 0.2}

TASKS = (
    Task(
        "CrystalGen-Perovskites-v1",
        tier=0,
        summary="cubic perovskites ABX3 of the lowest heat of formation, out of 2,756 with known values",
        reward="benchmarks.tasks.perovskites:PerovskiteTable",
        score="mean_top_10",
        floor=-5.0,
        constraints={
            "space_group": 221,
            "wyckoff_letters": "abc",
            "site_elements": [list(METALS), list(METALS), ["O", "N"]],
        },
        budget=500,
        size=100,
        threshold=0.3,
        range=(-1.2, 0.64),
        key="composition",
        stability=False,
    ),
    Task(
        "CrystalGen-Validity-v1",
        tier=0,
        summary="many different crystals with plausible distances and neutral charges",
        reward="rewards:Validity",
        score="valid_unique",
        floor=0.0,
        budget=2000,
        size=500,
        threshold=1.0,
        stability=False,
    ),
    Task(
        "CrystalGen-Density-v1",
        tier=0,
        summary="different valid crystals with a density of 18 g/cm^3",
        reward="benchmarks.tasks.targets:DensityTarget",
        score="unique_successes",
        floor=0.0,
        budget=2000,
        size=500,
        threshold=0.9,
        stability=False,
    ),
    Task(
        "CrystalGen-Stability-v1",
        tier=1,
        summary="stable, unique and novel crystals, space groups as in MP-20",
        reward="rewards:EnergyAboveHull",
        reward_kwargs=_STABLE,
        score="sun",
        budget=20_000,
        threshold=-0.1,
        range=(-1.0, 0.2),
    ),
    Task(
        "CrystalGen-Groups-v1",
        tier=1,
        summary="stable, unique and novel crystals of 14 space groups, two of each crystal system",
        reward="rewards:EnergyAboveHull",
        reward_kwargs=_STABLE,
        score="mean_sun_of_groups",
        constraints={"space_group": list(SPACE_GROUPS)},
        budget=20_000,
        size=1400,
        threshold=-0.1,
        range=(-1.0, 0.2),
    ),
    Task(
        "CrystalGen-BulkModulus-v1",
        tier=1,
        summary="stable, unique and novel crystals with a bulk modulus of 300 GPa",
        reward="benchmarks.tasks.targets:BulkModulusTarget",
        score="sun_successes",
        floor=0.0,
        budget=2000,
        size=500,
        threshold=0.8,
    ),
    Task(
        "CrystalGen-StructurePrediction-v1",
        tier=1,
        summary="the structures of eight compositions, each among the ten crystals of lowest energy",
        reward="rewards:EnergyAboveHull",
        reward_kwargs=_STABLE,
        score="match_rate",
        budget=1000,
        size=100,
        threshold=-0.1,
        range=(-1.0, 0.2),
        cases=tuple({"formula": formula} for formula in FORMULAS),
    ),
    Task(
        "CrystalGen-Diversity-v1",
        tier=1,
        summary="as many different stable and novel structures as can be found with 10,000 calls",
        reward="rewards:EnergyAboveHull",
        reward_kwargs=_STABLE,
        score="sun_structures_found",
        budget=10_000,
        size=500,
        threshold=-0.1,
        range=(-1.0, 0.2),
    ),
    Task(
        "CrystalGen-Pareto-v1",
        tier=1,
        summary="stiff and stable crystals, by the area that they dominate",
        reward="benchmarks.tasks.targets:StiffAndStable",
        score="hypervolume",
        floor=0.0,
        budget=2000,
        size=500,
        threshold=0.75,
    ),
    Task(
        "CrystalGen-OrbStability-v1",
        tier=2,
        summary="the paper's own: stable, unique and novel crystals by Orb-v2 on the hull of Alexandria",
        reward="rewards:EnergyAboveHull",
        reward_kwargs={"potential": "orb-v2+MP2020", "hull": "$CRYSTALGEN_ALEXANDRIA_HULL"},
        score="sun",
        budget=200_000,
        threshold=-0.1,
        range=(-1.0, 0.2),
    ),
    Task(
        "CrystalGen-Dielectric-v1",
        tier=2,
        summary="the paper's own: band gap times total dielectric constant in Fm-3m, of stable crystals",
        reward="rewards:DielectricFoM",
        reward_kwargs={
            "dielectric_model": "$CRYSTALGEN_DIELECTRIC_MODEL",
            "gap_model": "$CRYSTALGEN_GAP_MODEL",
            "max_dielectric": 100,
        },
        score="sun_successes",
        floor=0.0,
        constraints={"space_group": 225},
        budget=100_000,
        threshold=100.0,
        range=(0.0, 200.0),
    ),
    Task(
        "CrystalGen-ElectronicDielectric-v1",
        tier=2,
        summary="the later paper's: band gap times electronic dielectric constant in Fm-3m, of stable crystals",
        reward="rewards:DielectricFoM",
        reward_kwargs={
            "dielectric_model": "$CRYSTALGEN_ELECTRONIC_DIELECTRIC_MODEL",
            "gap_model": "$CRYSTALGEN_GAP_MODEL",
            "threshold": 10.0,
        },
        score="sun_successes",
        floor=0.0,
        constraints={"space_group": 225},
        budget=100_000,
        threshold=10.0,
        range=(0.0, 20.0),
    ),
)


def find_task(name: str) -> Task:
    """Return the task of an id or a short name, such as ``"CrystalGen-Stability-v1"`` or ``"stability"``.

    Raises:
        ValueError: if there is none.
    """
    for task in TASKS:
        if name in (task.id, task.name):
            return task
    raise InputError(
        f"task must be one of {[task.name for task in TASKS]} or an id such as {TASKS[0].id}, got {name!r}"
    )

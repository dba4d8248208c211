"""Labels for people of the identifiers that stand in JSON files and tables: metrics, scores and checks."""

from crystal_env.errors import InputError

RATES = {
    "structurally_valid": "structurally valid",
    "compositionally_valid": "compositionally valid",
    "valid": "valid",
    "unique": "unique",
    "novel": "novel",
    "in_p1": "in P1",
    "space_group_recovered": "space group recovered",
    "scored": "with an energy",
    "stable_0.1": "stable (≤ 0.1 eV/atom)",
    "stable_0.0": "stable (≤ 0 eV/atom)",
    "unique_stable_0.1": "stable and unique (≤ 0.1 eV/atom)",
    "sun_0.1": "S.U.N. (≤ 0.1 eV/atom)",
    "sun_0.0": "S.U.N. (≤ 0 eV/atom)",
    "sun_0.1_without_outliers": "S.U.N. (≤ 0.1 eV/atom, none deeper than 0.2 below the hull)",
}
"""Fractions of all attempts."""

ENERGIES = {
    "e_above_hull_mean": "mean energy above the hull (eV/atom)",
    "e_above_hull_median": "median energy above the hull (eV/atom)",
    "e_above_hull_mean_unscored_10": "mean energy above the hull, 10 where there is none (eV/atom)",
}

VARIETY = {
    name.format(key): label.format(one=one, many=many)
    for key, one, many in (
        ("formula", "formula", "formulas"),
        ("template", "Wyckoff template", "Wyckoff templates"),
        ("prototype", "prototype", "prototypes"),
        ("space_group", "space group", "space groups"),
        ("element", "element", "elements"),
    )
    for name, label in (
        ("{}s", "different {many}"),
        ("largest_{}_fraction", "fraction of the most common {one}"),
        ("{}_entropy", "entropy of {many} (nats)"),
    )
}

DISTRIBUTION = {
    "jsd_space_groups": "Jensen-Shannon divergence of space groups (bits)",
    "jsd_elements": "Jensen-Shannon divergence of elements (bits)",
    "templates": "different Wyckoff templates",
    "new_template_fraction": "fraction of Wyckoff templates not in the reference",
    "vendi_elements": "Vendi score of elements",
    "vendi_templates": "Vendi score of Wyckoff templates",
    "coverage_recall": "coverage recall",
    "coverage_precision": "coverage precision",
    "coverage_cutoff": "coverage cutoff",
}

SPACE_GROUPS = {
    f"{name}_{symprec}": f"{label} at {symprec} Å"
    for name, label in (("in_p1", "in P1"), ("requested_group_detected", "requested space group detected"))
    for symprec in ("0.01", "0.1")
}

RELAXATION = {
    "relaxed": "could be relaxed",
    "same_structure": "same structure after relaxation",
    "space_group_kept": "space group kept",
    "rmsd_mean": "mean RMSD of the relaxation (Å)",
    "rmsd_median": "median RMSD of the relaxation (Å)",
    "energy_gain_mean": "mean energy gained by the relaxation (eV/atom)",
    "e_above_hull_mean_before": "mean energy above the hull before relaxation (eV/atom)",
}

CROSS_CHECK = {
    "confirmed_stable_0.1": "stable ones that are stable by it",
    "confirmed_sun_0.1": "S.U.N. ones that are stable by it",
    "agreement_0.1": "stable by both potentials or by neither",
    "stable_by_both_0.1": "stable by both potentials",
    "sun_by_both_0.1": "S.U.N. and stable by both potentials",
    "e_above_hull_difference_median": "median difference of the potentials (eV/atom)",
}

EFFICIENCY = {
    **{f"mean_top_{k}": f"mean of the {k} best, averaged over calls" for k in (10, 100)},
    "mean_top_1": "best, averaged over calls",
    **{f"calls_to_{k}": f"calls to success {k}" for k in (1, 10, 100)},
    "calls_per_success": "calls per success",
    "best": "best total reward",
}

SCORES = {
    "mean_top_10": EFFICIENCY["mean_top_10"],
    "valid_unique": "valid and unique",
    "unique_successes": "unique successes",
    "sun": "S.U.N.",
    "sun_successes": "S.U.N. successes",
    "mean_sun_of_groups": "mean S.U.N. of space groups",
    "match_rate": "match rate",
    "sun_structures_found": "S.U.N. structures found",
    "hypervolume": "hypervolume",
}

CHECKS = {
    "rewards_differ": "rewards differ",
    "below_hull_outliers": "below-hull outliers",
    "short_distances": "short distances",
    "implausible_densities": "implausible densities",
    "one_formula": "one formula",
    "one_template": "one Wyckoff template",
    "one_space_group": "one space group",
    "lanthanide_exchange": "lanthanide exchange",
    "requested_groups": "requested space groups",
    "cross_check": "cross-check potential",
    "not_local_minimum": "not a local minimum",
    "large_forces": "large forces",
    "rediscovery": "rediscovery of validation data",
    "previously_queried": "previously queried",
}

_OTHERS = {
    "sun_per_second": "S.U.N. per second",
    "below_hull_outliers_count": "deeper than 0.2 eV/atom below the hull",
    "weight_without_attempts": "weight of space groups without an attempt",
}

_ALL = (
    RATES
    | ENERGIES
    | VARIETY
    | DISTRIBUTION
    | SPACE_GROUPS
    | RELAXATION
    | CROSS_CHECK
    | EFFICIENCY
    | SCORES
    | CHECKS
    | _OTHERS
)  # no identifier has two labels


def label(name: str) -> str:
    """Return the label of an identifier.

    Raises:
        ValueError: if there is none.
    """
    if name not in _ALL:
        raise InputError(f"there is no label of {name!r}")
    return _ALL[name]

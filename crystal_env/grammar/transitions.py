"""States and transitions of the feasibility tables: how a new site uses up the constraints."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from crystal_env.grammar.constraints import Constraints
from crystal_env.wyckoff import N_ELEMENTS


class ElementClasses:
    """Classes of elements that all constraints treat alike.

    Attributes:
        n: number of classes C.
        of_element (119,): class of every atomic number, -1 for elements that are not allowed.
        members: the atomic numbers of every class.
    """

    def __init__(self, constraints: Constraints) -> None:
        special = {z: i for i, z in enumerate(z for z, _ in constraints.formula or ())}
        special |= {z: i + len(special) for i, z in enumerate(constraints.required_elements) if z not in special}
        lists = sorted({entry for entry in constraints.site_elements if entry is not None})
        by_signature: dict[tuple[int, ...], list[int]] = {}
        for z in constraints.elements:
            signature = (special.get(z, -1), *(z in entry for entry in lists))
            by_signature.setdefault(signature, []).append(z)
        self.members = list(by_signature.values())
        self.n = len(self.members)
        self.of_element = np.full(N_ELEMENTS + 1, -1)
        for index, members in enumerate(self.members):
            self.of_element[members] = index


def max_counts(constraints: Constraints) -> list[int]:
    """Return the limit of every count: atoms of the formula's elements or all atoms, then 1 per required element."""
    formula, required = constraints.formula or (), constraints.required_elements
    if formula:
        multiple = (constraints.max_atoms or 0) // sum(count for _, count in formula)
        atoms = [count * multiple for _, count in formula]
    else:
        atoms = [] if constraints.max_atoms is None else [constraints.max_atoms]
    return atoms + [1] * len(required)


def n_states(constraints: Constraints, classes: ElementClasses) -> int:
    """Return the number of states, without listing them."""
    counts = prod(limit + 1 for limit in max_counts(constraints))
    return counts * (classes.n + 1) ** len(constraints.tied_sites)


def count_transitions(
    constraints: Constraints, classes: ElementClasses, multiplicities: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the next counts (M, C, S) after a site of a multiplicity and a class, and which counts (S,) are complete.

    The counts are atoms of each element of the formula, or else all atoms if ``max_atoms`` is set, and a bit for every
    required element. ``S`` numbers their combinations from 0 for none; a transition past a limit is -1.
    """
    formula, required = constraints.formula or (), constraints.required_elements
    limits = max_counts(constraints)
    n_summed = len(limits) - len(required)
    counted = [z for z, _ in formula] + list(required)
    gain = [[int(members == [z]) for members in classes.members] for z in counted]
    if not formula and n_summed:
        gain.insert(0, [1] * classes.n)
    shape = tuple(size + 1 for size in limits)
    counts = np.indices(shape).reshape(len(shape), -1) if shape else np.zeros((0, 1), np.int64)  # (D, S)
    grown = counts[:, None, None] + np.array(gain, np.int64).reshape(-1, 1, classes.n, 1) * np.reshape(
        multiplicities, (-1, 1, 1)
    )
    grown[n_summed:] = np.minimum(grown[n_summed:], 1)
    limit = np.array(limits, np.int64).reshape(-1, 1, 1, 1)
    within = (grown <= limit).all(0)
    steps = np.ravel_multi_index(tuple(np.minimum(grown, limit)), shape) if shape else np.zeros(within.shape, np.int64)
    complete: NDArray[np.bool_] = np.asarray(counts[n_summed:].all(0))
    if formula:
        units = counts[:n_summed] // np.array([count for _, count in formula])[:, None]
        whole = counts[:n_summed] == units[0] * np.array([count for _, count in formula])[:, None]
        complete &= whole.all(0) & (units[0] > 0)
    return np.where(within, steps, -1), complete


def memory_transitions(constraints: Constraints, classes: ElementClasses) -> NDArray[np.int64]:
    """Return the next memory (sites, C, memories) of tied sites after a class at a site, -1 if it is not allowed.

    The memory has a digit for every group of tied sites: 0, or 1 + the class of its open sites.
    """
    tied = [[i for i in sites if i < constraints.max_sites] for sites in constraints.tied_sites]
    base = classes.n + 1
    memory = np.arange(base ** len(tied))
    steps = np.tile(memory, (constraints.max_sites, classes.n, 1))
    for position, sites in enumerate(tied):
        digit, unit = memory // base**position % base, base**position
        for site in sites:
            for held in range(classes.n):
                opens, last = site == sites[0], site == sites[-1]
                kept = steps[site, held] + ((0 if last else 1 + held) - digit) * unit
                steps[site, held] = np.where(digit == (0 if opens else 1 + held), kept, -1)
    for site, entry in enumerate(constraints.site_elements[: constraints.max_sites]):
        for index, members in enumerate(classes.members):
            if entry is not None and members[0] not in entry:
                steps[site, index] = -1
    return steps

"""Energies above the hull that decide what a crystal is called, in eV/atom."""

STABLE = 0.1
"""At most this is stable, as in the paper."""

ON_HULL = 1e-4
"""At most this is on the hull or below: the noise in single precision of a phase that is on it."""

HOLE = 0.2
"""More than this below the hull, the hull lacks a phase or the potential fails: CHGNet puts none of MP-20 there."""

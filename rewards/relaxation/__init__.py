"""Relaxation of crystals with any potential that has forces.

`fire` moves a batch of structures with one call of the potential a step, `symmetry_projection` keeps the symmetry of a
space group, `relax` turns crystals into relaxed crystals.
"""

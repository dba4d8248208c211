"""Crystals and symmetry operations.

`normaliser` derives the affine normalisers of the space groups from the Wyckoff table, `canonical` picks one setting of
a crystal and labels it (key, Wyckoff template, prototype), `standardise` finds the symmetry of any structure.
"""

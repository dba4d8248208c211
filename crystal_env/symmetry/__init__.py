"""Crystals and symmetry operations: normalisers, canonical form, standardisation of structures."""

"""The convex hull of formation energies.

`convex_hull` looks batches up, by the geometry of `lower_hull`; `sources` reads entries, `energies` computes them with
a potential, `formulas` handles compositions, `file_format` is the file with its provenance, `validation` compares a
hull with official labels.
"""

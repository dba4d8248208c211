"""Renderings of crystals.

`bonding` finds the atoms, bonds and polyhedra to show, `picture` draws them, `frames` holds what the environment's
`render` returns or shows.
"""

"""Exhaustive checks that take minutes: ``python -m benchmarks.verify.groups``, ``mp20`` and ``potentials``.

The first two exit with an error if a check fails; the third measures how far potentials agree with DFT. The tests run a
small part of them.
"""

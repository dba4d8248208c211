"""Exhaustive checks that take minutes: ``python -m benchmarks.verify.groups`` and ``mp20``.

They exit with an error if a check fails; the tests run a small part of them.
"""

"""Exhaustive checks that take minutes: ``python -m benchmarks.verify.groups``. Tests run a fraction of them."""

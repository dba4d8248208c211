"""Timings, each compared with another implementation: ``python -m benchmarks.speed.env`` and the like.

`env`, `crystals`, `model`, `rl`, `rewards`, `hull` and `metrics` print a table each; docs/measurements.md quotes them.
"""

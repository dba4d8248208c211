"""Timings, each compared with another implementation: ``python -m benchmarks.speed.env``, ``rewards``, ``model`` ..."""

"""Timings, each beside another implementation or the machine's own rate: ``python -m benchmarks.speed.env``."""

"""Evaluation of generated crystals, of any generator: ``crystalgen evaluate`` and `benchmarks.evaluate`.

`evaluate` reads the crystals and computes their metrics, `summary` the numbers of the whole sample, `plot` the picture;
`cli` is the command. Metrics themselves are defined in `benchmarks.metrics`, files are read by `benchmarks.samples`.
"""

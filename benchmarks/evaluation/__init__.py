"""Evaluation of generated crystals, of any generator: ``crystalgen evaluate`` and `benchmarks.evaluate`.

`readers` reads files entry by entry, `samples` makes one sequence of them, `evaluate` computes the metrics, `cli` is
the command. Metrics themselves are defined in `benchmarks.metrics`.
"""

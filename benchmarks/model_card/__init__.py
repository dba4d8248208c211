"""The card of a model: ``python -m benchmarks.model_card``.

`model_card` evaluates a model on data and by samples and writes the page, `plots` compares distributions of its samples
with known crystals.
"""

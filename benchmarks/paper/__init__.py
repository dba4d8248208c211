"""The figures and tables of the paper (arXiv:2504.02367), reproduced with this project's models.

``python -m benchmarks.paper NAME`` makes one; ``python -m benchmarks.paper.compare_runs`` compares finished runs of
fine-tuning with their base model.
"""

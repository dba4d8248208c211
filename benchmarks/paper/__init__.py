"""The figures and tables of the paper (arXiv:2504.02367), made again with the models that are here."""

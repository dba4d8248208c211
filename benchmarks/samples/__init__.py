"""What a generator gave, as one sequence: crystals, structures outside the representation, and failed attempts.

`samples` is the type, `readers` makes it of files and objects, `formats` knows the formats of files entry by entry.
Metrics, evaluation and the benchmark's harness all work on it.
"""

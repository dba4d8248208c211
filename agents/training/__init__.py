"""Everything that training shares, whatever the loss.

`optimiser` takes a step over `micro_batches`, `run_folder` keeps a run on disk under a lock, `interrupt` ends it
between two steps. `scored_samples` are sampled crystals with their scores, `top_k_buffer` the best of them,
`sample_files` writes crystals as CIF files and a table.
"""

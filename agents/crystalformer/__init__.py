"""The policy network: CrystalFormer, its exact densities, its sampler and its file formats.

`network` is the transformer, `config` its sizes, `model` the class that users call. `distribution` and `mixtures` say
what the network's outputs mean, once, for `likelihood`, which scores crystals, and `sampler`, which generates them
with `decoder` and `kv_cache`. `checkpoint` reads and writes weights, `paper_checkpoint` those published with the paper.
"""

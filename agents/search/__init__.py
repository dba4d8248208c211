"""Search with a fixed model: Markov chains on p_ref exp(r / tau) and best-of-n.

`mcmc` runs many chains at once with the moves of `mcmc_moves`, set by `mcmc_config`; `autocorrelation` counts their
independent crystals, `mcmc_run` is the command. `best_of_n` keeps the best of n samples of each space group.
"""

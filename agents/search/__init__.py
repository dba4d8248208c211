"""Search with a fixed model: Markov chains on exp(r / tau) p and best-of-n."""

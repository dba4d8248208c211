"""Rewards made of rewards.

`aggregate` has sums, products, the minimum and the gate, `transforms` maps of a total, `diversity` a filter of repeats,
`metered` a counter with a budget, `cache` a memory of scores, kept in memory or in the SQLite file of `cache_file`;
`rows` is the result of one crystal as these store it.
"""

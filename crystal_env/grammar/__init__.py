"""The grammar of crystals: what may be decided next.

`constraints` brings what users write into a normal form, `transitions` numbers the states of an unfinished crystal,
`feasibility` compiles the masks, `state` advances batches of crystals decision by decision.
"""

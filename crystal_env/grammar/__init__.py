"""The grammar of crystals: the decisions that are allowed next.

`constraints` checks the arguments of users and brings them into a normal form, `transitions` numbers the states of an
unfinished crystal, `feasibility` compiles them into masks, and `state` is the state machine that advances batches of
crystals decision by decision.
"""

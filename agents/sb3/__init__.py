"""CrystalGen-v0 and CrystalFormer as stable-baselines3 expects them.

`vec_env` is the environment as a ``VecEnv``, `discrete_policy` and `continuous_policy` the network as policies, with
`prefix_cache` behind them, `features` a features extractor for small agents.
"""

"""Agents with other libraries: PPO with RLlib, TorchRL, Tianshou, and in one file in the style of CleanRL.

Each module is a script and an agent of the benchmark; `common` holds what they share. The pages in docs/libraries
explain them.
"""

"""Rewards that run elsewhere: Ray workers and external programs."""

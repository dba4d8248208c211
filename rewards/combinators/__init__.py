"""Rewards made of rewards: aggregates, transforms, caches, counters and diversity filters."""

"""The benchmark's protocol: an agent trains on a task, samples, and is scored, seed by seed.

`session` is what an agent learns from, `rollout` what it is scored by, `scoring` and `scores` the numbers,
`integrity_checks` what makes a score doubtful, `runner` the resumable run. It knows nothing of reports.
"""

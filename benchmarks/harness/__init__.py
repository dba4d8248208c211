"""The benchmark's protocol: an agent trains on a task, samples, and is scored, seed by seed.

`session` is the interface that an agent learns from, `rollout` samples it, `scoring` and `scores` compute the numbers,
`integrity_checks` looks for reasons to doubt a score. `runner` is the resumable run, `seed_run` one seed of it and
`run_folder` its files; `migrate` brings results of earlier formats into the current one. It knows nothing of reports.
"""

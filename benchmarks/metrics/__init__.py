"""Definitions of all metrics: functions of samples, which know nothing of tasks.

`properties` computes validity, symmetry and energy of each sample, `sample` adds uniqueness and novelty against
`reference`, `summary` counts, with `intervals`. `distribution`, `by_space_group`, `relaxation`, `cross_check`,
`efficiency`, `kl` and `pareto` are further numbers; `labels` and `columns` name all of them, for machines and for
people.
"""

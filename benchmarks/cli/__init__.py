"""The command ``crystalgen`` and its demo.

`cli` finds the command and turns mistakes of users into one line, `benchmark` has the commands of the benchmark, `demo`
and `demo_report` fine-tune the shipped model and show the outcome. Other commands stand in `agents.cli`, `rewards.cli`
and `benchmarks.evaluation.cli`.
"""

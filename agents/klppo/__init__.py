"""KLPPO: reinforcement fine-tuning of whole crystals, KL-regularised towards a reference policy.

`klppo` is the algorithm, `losses` its formulas, `rollout` a batch of scored crystals, `env_adapter` what an environment
asks of whole crystals, `config` and `run` the resumable run of ``crystalgen train``.
"""

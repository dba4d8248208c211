"""KLPPO: reinforcement fine-tuning of whole crystals, KL-regularised towards a reference policy.

`klppo` is the algorithm, `base_algorithm` what it shares with every algorithm of stable-baselines3, `losses` its
formulas, `rollout` a batch of scored crystals, `config` the settings and presets. `env_adapter` is what an environment
asks for, `env_layers` reads its wrappers. `run` is the resumable run of ``crystalgen train``.
"""

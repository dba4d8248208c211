"""Maximum likelihood and preferences: pre-training, supervised fine-tuning and DPO.

Each is a resumable run. `finetuning_loop` and `finetuning_config` are what fine-tuning and DPO share, `training_data`
reads data sets and refuses crystals that the grammar cannot represent.
"""

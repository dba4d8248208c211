"""The command ``crystalgen`` and its demo."""

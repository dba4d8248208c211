"""Training of property models: ``crystalgen property train``."""

"""Training of property models: ``crystalgen property train``.

`data` joins structures and targets, `train` fits matgl's M3GNet in runs that resume, `report` writes errors and the
parity plot.
"""

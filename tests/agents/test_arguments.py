"""What is out of range is refused under its own name, wherever it is given."""

from functools import partial

import numpy as np
import pytest

from agents import (
    CrystalFormer,
    CrystalFormerConfig,
    DPOConfig,
    FinetuneConfig,
    MCMCConfig,
    PretrainConfig,
    SampleConfig,
    best_of_n,
)

MODEL = CrystalFormer(CrystalFormerConfig(n_layers=1, n_heads=1, key_size=4, model_size=4, embed_size=4))
CRYSTALS = MODEL.sample([225], seed=0, max_sites=1)

NOT_COUNTS = (0, -1, 1.5, True, "2", np.nan)
NOT_NUMBERS = (np.nan, np.inf, "1", True, None)
NO_TEMPERATURES = (np.nan, np.inf, "1", True, -1, {"letters": -1}, {"lattice": np.nan}, {"letter": 1})


def ones(crystals):
    return np.ones(len(crystals))


LOOP = {
    **dict.fromkeys(("samples", "sample_batch_size", "epochs", "batch_size", "patience", "max_tokens"), NOT_COUNTS),
    **dict.fromkeys(("learning_rate", "max_grad_norm", "checkpoint_minutes"), (*NOT_NUMBERS, 0, -1)),
    "validation_fraction": (*NOT_NUMBERS, -0.1, 1), "floor": NOT_NUMBERS, "seed": (-1, 0.5, True), "bins": (-24, 25),
    "likelihood": ("other", None, 1), "space_group": (0, 231, "agent"), "constraints": ({"elemnts": ["Na"]}, [1]),
    "temperature": NO_TEMPERATURES,
}  # fmt: skip

CALLS = {
    "sample": (partial(MODEL.sample, size=2), {
        "batch_size": NOT_COUNTS, "size": (-1, 2.0, True), "seed": (-1, 0.5, True), "bins": (-24, 25, 24.5),
        "temperature": NO_TEMPERATURES, "top_p": (*NOT_NUMBERS, 0, 1.1, -0.5),
    }),
    "log_prob": (partial(MODEL.log_prob, CRYSTALS), {
        "temperature": NO_TEMPERATURES, "top_p": (*NOT_NUMBERS, 0, 1.1), "bins": (-24, 25),
        "likelihood": ("other", None, 1),
    }),
    "best_of_n": (partial(best_of_n, MODEL, ones, n=2, size=2), {
        "n": NOT_COUNTS, "size": NOT_COUNTS, "batch_size": NOT_COUNTS, "seed": (-1, 0.5), "floor": NOT_NUMBERS,
        "bins": (-24, 25), "temperature": NO_TEMPERATURES, "top_p": (*NOT_NUMBERS, 0, 1.1),
    }),
    "MCMCConfig": (MCMCConfig, {
        **dict.fromkeys(("chains", "steps", "thin"), NOT_COUNTS),
        **dict.fromkeys(("anneal_steps", "burn_in", "seed"), (-1, 0.5, True)),
        **dict.fromkeys(("tau", "coordinate_scale", "lattice_scale"), (*NOT_NUMBERS, 0, -1)),
        "tau_start": (np.nan, "1", 0), "moves": ("x", None), "p_independent": (*NOT_NUMBERS, -0.1, 2),
        "floor": NOT_NUMBERS, "bins": (-24, 25), "space_group": (0, 231, "agent", "p1"),
        "constraints": ({"elemnts": ["Na"]}, ["Na"], None), "base_temperature": NO_TEMPERATURES,
    }),
    "SampleConfig": (partial(SampleConfig, "out"), {
        **dict.fromkeys(("size", "best_of"), NOT_COUNTS), "min_contact": (*NOT_NUMBERS, -1),
        "seed": (-1, 0.5, True), "bins": (-24, 25),
        "temperature": NO_TEMPERATURES, "top_p": (*NOT_NUMBERS, 0, 1.1), "floor": NOT_NUMBERS,
        "space_group": (0, 231, "agent"), "constraints": ({"elemnts": ["Na"]}, None),
    }),
    "FinetuneConfig": (partial(FinetuneConfig, "run"), LOOP | {"rounds": NOT_COUNTS}),
    "DPOConfig": (partial(DPOConfig, "run"), LOOP | {"beta": (*NOT_NUMBERS, 0), "margin": (*NOT_NUMBERS, -1)}),
    "PretrainConfig": (partial(PretrainConfig, "data", "run"), {
        **dict.fromkeys(("epochs", "batch_size", "max_tokens", "validate_every"), NOT_COUNTS),
        **dict.fromkeys(("warmup", "seed"), (-1, 0.5, True)),
        **dict.fromkeys(("learning_rate", "max_grad_norm", "checkpoint_minutes"), (*NOT_NUMBERS, 0, -1)),
        "weight_decay": (*NOT_NUMBERS, -1), "betas": ((0.9, 1.0), (0.9,), 0.9, (0.9, "1")),
        **dict.fromkeys(("schedule", "likelihood", "precision"), ("other", None, 1)),
    }),
}  # fmt: skip
CASES = [(call, name) for call, (_, table) in CALLS.items() for name in table]


@pytest.mark.parametrize(("call", "name"), CASES, ids=str)
def test_a_value_out_of_range_is_refused_under_its_own_name(call, name):
    function, table = CALLS[call]
    for value in table[name]:
        with pytest.raises(ValueError, match=rf"^{name} "):
            function(**{name: value})


def test_best_of_needs_a_reward():
    SampleConfig("out", best_of=2, reward="rewards:Density", temperature={"letters": 0.5}, top_p=0.5)
    with pytest.raises(ValueError, match=r"^best_of = 2 needs a reward"):
        SampleConfig("out", best_of=2)

"""Settings are checked by name, presets are defaults, and the learning rate follows its schedule."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from agents.klppo.config import PRESETS, SETTINGS, KLPPOConfig, TrainConfig

WRONG = {
    "tau": [-1, np.nan, np.inf, True, "0.1", None],
    "learning_rate": [-1e-4, np.nan, True, "1e-4", None],
    "warmup": [-1, 1.5, True, None],
    "schedule": ["cosine", None, 1],
    "batch_size": [0, -1, 1.5, True, None, np.nan],
    "n_epochs": [0, 1.5, True],
    "clip_range": [0, -1, np.nan, np.inf, True, "0.2"],
    "max_grad_norm": [0, np.nan, np.inf, True, None],
    "ratio": ["word", None, ["token"]],
    "log_ratio_weights": [
        {"x": 1}, {"lattice": -1}, {"lattice": np.nan}, {"lattice": True}, {"lattice": "0"}, None, [1, 1, 1, 0],
        dict.fromkeys(("letters", "elements", "coordinates", "lattice"), 0),
    ],
    "baseline": ["x", None, {}],
    "ema_decay": [1, -0.1, np.nan, True, None],
    "reward_range": [(0,), (0, 1, 2), (1, 0), (0, 0), (0, np.nan), (0, np.inf), (False, 1), "01", 1, {"a": 1}],
    "temperature": [-1, np.nan, "1", None, 0, {"lattice": 0}, {"letters": -1}, {"letter": 1}, [1]],
    "loss": ["reinforce", None, ["ppo"]],
    "learning_starts": [-1, 1.5, True, None],
    "buffer_size": [0, -1, 1.5, True, None],
    "draw": ["best", None],
    "recency": [0, 1.1, np.nan, True, None],
    "replay_ratio": [-1, np.nan, True, None],
    "minibatch_size": [0, 1.5, True, None],
    "negatives": [-1, np.nan, True, None],
    "likelihood_coef": [-1, np.nan, np.inf, True, None],
    "augmentation": [-0.1, 1.1, np.nan, True, None],
    "oversampling": [0.9, np.nan, True, None],
    "filters": ["contact", ("distance",), None, 1],
    "relax_fraction": [-0.1, 1.1, np.nan, True, None],
    "relax": [3, None],
    "relax_kwargs": [None, "steps"],
    "paper_update": [1, "yes", None],
    "max_tokens": [0, -1, 1.5, True, np.nan],
    "sample_batch_size": [0, -1, 1.5, True],
}  # fmt: skip


def test_every_setting_has_its_wrong_values():
    assert set(WRONG) == set(SETTINGS)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_with_its_own_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} (of \w+ )?must"):
        KLPPOConfig(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name} (of \w+ )?must"):
        TrainConfig(run=Path("run"), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("iterations", 0), ("iterations", True), ("samples", -1), ("seed", 0.5), ("checkpoint_minutes", 0),
     ("checkpoint_minutes", np.nan), ("floor", np.nan), ("reward_kwargs", None), ("constraints", "x")],
)  # fmt: skip
def test_a_wrong_setting_of_a_run_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must"):
        TrainConfig(run=Path("run"), **{name: value})


@pytest.mark.parametrize(
    "options", [{"ratio": "token"}, {"log_ratio_weights": {"lattice": 0}}, {"loss": "topr"}, {"temperature": 0.5}]
)
def test_the_published_update_takes_nothing_else(options):
    with pytest.raises(ValueError, match=r"^paper_update takes loss 'ppo', ratio 'sequence', temperature 1 and no"):
        KLPPOConfig(paper_update=True, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "topr", "ratio": "token"}, "ratio must be 'sequence' with loss 'topr'"),
        ({"oversampling": 2.0}, "relax_fraction need a replay buffer"),
        ({"filters": ("repeat",)}, "relax_fraction need a replay buffer"),
        ({"loss": "balance", "tau": 0}, "tau must be above 0 with loss 'balance'"),
    ],
)
def test_what_a_loss_cannot_do_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        KLPPOConfig(**options)


def test_only_letters_and_elements_have_a_policy_gradient_from_the_buffer():
    assert set(KLPPOConfig().weights().values()) == {1}
    assert KLPPOConfig(loss="topr").weights() == {"letters": 1, "elements": 1, "coordinates": 0, "lattice": 0}
    assert KLPPOConfig(loss="topr", log_ratio_weights={"coordinates": 0.5}).weights()["coordinates"] == 0.5


def test_numbers_of_numpy_are_numbers():
    config = KLPPOConfig(tau=np.float32(0.5), batch_size=np.int64(8), reward_range=[np.float64(-1), 1])
    assert (config.tau, config.batch_size) == (0.5, 8)


def test_presets_are_defaults_that_arguments_win_over():
    assert KLPPOConfig.from_preset("paper") == KLPPOConfig()
    best = KLPPOConfig.from_preset("best")
    assert (best.loss, best.batch_size, best.learning_starts, best.learning_rate) == ("topr", 500, 2000, 3e-4)
    assert (best.schedule, best.draw, best.temperature) == ("linear", "recent", {"coordinates": 0.1, "lattice": 0.1})
    assert KLPPOConfig.from_preset("best", n_epochs=3, tau=0.2) == replace(best, n_epochs=3, tau=0.2)
    assert set(PRESETS["best"]) <= set(SETTINGS)


def test_presets_choose_the_reward_unless_one_is_given():
    assert TrainConfig.from_preset("best", run=Path("run")).reward == "rewards:SUN"
    assert TrainConfig.from_preset("best", run=Path("run"), reward="rewards:Density").reward == "rewards:Density"
    assert TrainConfig.from_preset("paper", run=Path("run")) == TrainConfig(run=Path("run"))
    assert TrainConfig(run=Path("run")).reward == "rewards:EnergyAboveHull"


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown settings \\['weights'\\]"):
        KLPPOConfig.from_preset("best", weights={})
    with pytest.raises(ValueError, match=r"preset must be in .* got 'worst'"):
        KLPPOConfig.from_preset("worst")


def test_learning_rates_rise_and_fall():
    config = KLPPOConfig(learning_rate=1.0, warmup=2, schedule="linear")
    rates = [config.learning_rate_at(i, 1 - i / 10) for i in (0, 1, 5, 9)]
    assert rates == pytest.approx([0.5, 0.9, 0.5, 0.1])
    assert config.learning_rate_at(20, -1.0) == 0
    schedule = KLPPOConfig(learning_rate=lambda remaining: remaining**2, warmup=2)
    assert schedule.learning_rate_at(0, 0.5) == 0.125
    assert schedule.learning_rate_at(7, 0.5) == 0.25


def test_settings_are_documented_once_and_in_the_docs():
    page = (Path(__file__).parents[3] / "docs" / "reinforcement.md").read_text()
    for config in (KLPPOConfig, TrainConfig):
        own = [f.name for f in fields(config) if f.name in config.__annotations__]
        lines = [line.strip() for line in config.__doc__.splitlines()]
        for name in set(own) - (
            {"learning_rate", "log_ratio_weights", "temperature", "relax", "relax_kwargs"}
            if config is TrainConfig
            else set()
        ):
            assert sum(line.startswith(f"{name}: ") for line in lines) == 1, name
    assert [name for name in SETTINGS if f"`{name}" not in page] == []

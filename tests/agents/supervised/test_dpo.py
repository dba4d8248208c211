"""Preference optimisation has the losses of its papers and reaches their optima where these can be listed."""

import itertools
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_grammar import BINS, CONSTRAINTS, ELEMENTS, GROUPS, base_model, every_crystal, probabilities, reward

from agents import CrystalFormer
from agents.supervised.dpo import DPOConfig, Pairs, Preferences, dpo, dpo_loss, pair_up
from agents.supervised.finetuning_loop import FinetuningLoop
from agents.training.run_folder import RunFolder
from agents.training.scored_samples import ScoredSamples
from crystal_env.crystal import CrystalBatch

OPTIONS = {"bins": BINS, **CONSTRAINTS}
RNG = np.random.default_rng(0)
NUMBERS = torch.from_numpy(RNG.normal(size=(4, 6)) * 3)


@pytest.fixture(autouse=True)
def _interruptible():
    """Whoever runs the tests in the background may have switched interrupts off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_curve(monkeypatch):
    monkeypatch.setattr("agents.supervised.finetuning_loop.draw_curves", lambda history, path, shown: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    base_model().float().save_pretrained(path)
    return CrystalFormer.from_pretrained(path), str(path)


@pytest.fixture
def config(base, tmp_path):
    return DPOConfig(
        tmp_path / "run", base[1], space_group=list(GROUPS), constraints=CONSTRAINTS, bins=BINS, samples=100,
        sample_batch_size=40, epochs=3, batch_size=20, learning_rate=1e-3, device="cpu",
    )  # fmt: skip


def history(config):
    """Return the history without the time that it took."""
    return [{k: v for k, v in entry.items() if k != "hours"} for entry in RunFolder(config.run).history()]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def log_probs(model, crystals):
    with torch.no_grad():
        return model.log_prob(crystals, **OPTIONS).total.double().numpy()


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_the_loss_is_the_cross_entropy_of_the_preferences(beta):
    chosen, rejected, base_chosen, base_rejected = NUMBERS.numpy()
    odds = (np.exp(chosen - base_chosen) / np.exp(rejected - base_rejected)) ** beta
    np.testing.assert_allclose(dpo_loss(*NUMBERS, beta).numpy(), np.log1p(1 / odds), rtol=1e-9)


def test_the_loss_of_the_reference_itself_is_known():
    assert dpo_loss(*NUMBERS[[0, 1, 0, 1]], 0.3).numpy() == pytest.approx(np.log(2))


def test_losses_of_large_differences_are_finite():
    large = torch.tensor([1e4, -1e4], dtype=torch.float32).requires_grad_()
    zero = torch.zeros(2)
    loss = dpo_loss(large, zero, zero, zero, 1.0)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 1e4]
    assert large.grad.tolist() == [0.0, -1.0]


def test_gradients_are_finite_differences():
    policy = [row.clone().requires_grad_() for row in NUMBERS[:2]]
    assert torch.autograd.gradcheck(lambda c, r: dpo_loss(c, r, *NUMBERS[2:], 0.3), policy)


def test_pairs_are_of_one_group_as_far_as_possible():
    for _ in range(50):
        size = int(RNG.integers(1, 40))
        groups, rewards = RNG.choice([1, 2, 3, 5], size), RNG.normal(size=size)
        better, worse = pair_up(groups, rewards, 0.0, RNG)
        assert len(better) == size // 2
        assert len({*better, *worse}) == 2 * len(better)
        assert (rewards[better] > rewards[worse]).all()
        inside = groups[better] == groups[worse]
        assert inside.sum() == sum((groups == group).sum() // 2 for group in set(groups))


def test_every_two_crystals_of_a_group_are_paired_equally_often():
    counts = np.zeros((4, 4))
    for _ in range(3000):
        better, worse = pair_up(np.ones(4, int), np.arange(4.0), 0.0, RNG)
        counts[better, worse] += 1
    assert np.tril(counts, -1).sum() == counts.sum() == 6000
    assert counts[np.tril_indices(4, -1)] == pytest.approx(1000, abs=5 * np.sqrt(1000))


def test_pairs_within_the_margin_are_left_out():
    rewards = np.array([0.0, 0.0, 1.0, 1.5, 3.0, 5.0])
    groups = np.array([1, 1, 2, 2, 3, 3])
    for margin, expected in ((0.0, {(3, 2), (5, 4)}), (0.5, {(5, 4)}), (2.0, set())):
        better, worse = pair_up(groups, rewards, margin, RNG)
        assert set(zip(better.tolist(), worse.tolist(), strict=True)) == expected


def three_crystals():
    """Return simple cubic crystals of one length, of the three elements."""
    crystals = every_crystal()
    crystals = crystals[np.flatnonzero((crystals.n_sites() == 1) & (crystals.W[:, 0] == 1) & np.isin(crystals.G, 221))]
    return crystals[np.flatnonzero(crystals.L[:, 0] == np.unique(crystals.L[:, 0])[12])]


def test_the_optimum_is_the_reference_tilted_by_the_rewards(config, base):
    """The better of two is preferred with the odds 3 to 1 or 9 to 1: rewards 0, ln 3 and 2 ln 3 (Bradley-Terry)."""
    crystals, beta = three_crystals(), 0.5
    assert crystals.A[:, 0].tolist() == list(ELEMENTS)
    rows = []
    for worse, better in itertools.combinations(range(3), 2):
        rows += [(better, worse)] * 3 ** (better - worse) + [(worse, better)]
    chosen, rejected = np.array(rows).T
    config = replace(config, beta=beta, epochs=300, batch_size=100, learning_rate=5e-3, validation_fraction=0)
    model = dpo(config, False, pairs=Pairs(crystals[chosen], crystals[rejected]))
    tilt = beta * (log_probs(model, crystals) - log_probs(base[0], crystals))
    assert np.diff(tilt) == pytest.approx(np.log(3), abs=0.01)


def test_preferences_by_reward_raise_the_mean_reward(config, base):
    config = replace(config, samples=300, epochs=20, batch_size=50, patience=20)
    model = dpo(config, False, reward=reward)
    before, after = (float(probabilities(m) @ reward(every_crystal())) for m in (base[0], model))
    assert after > before + 0.15
    first, *_, last = history(config)
    assert first["validation_loss"] == first["train_loss"] == pytest.approx(np.log(2))
    assert first["validation_margin"] == pytest.approx(0, abs=1e-6)
    assert last["validation_loss"] < np.log(2)
    assert last["validation_accuracy"] > 0.7
    assert last["validation_margin"] > 0
    samples = ScoredSamples.load(config.run / "samples-0.npz")
    assert first["sampled"] == len(samples) == 300
    pairs = [CrystalBatch.load(config.run / f"{name}.npz") for name in Pairs._fields]
    assert (reward(pairs[0]) > reward(pairs[1])).all()
    assert first["pairs"] == len(pairs[0]) == len(pairs[1]) > 100


def test_loss_accuracy_and_margin_are_those_of_the_log_probs(config, base):
    config = replace(config, beta=0.4)
    crystals = base[0].sample(list(GROUPS), 40, seed=1, **OPTIONS)
    pairs = Pairs(crystals[:20], crystals[20:])
    preferences = Preferences(pairs, FinetuningLoop(config, {}, None, False), config)
    other = base_model(seed=3).float()
    with torch.no_grad():
        found = {name: values.numpy() for name, values in preferences(other, np.arange(20)).items()}
    now, start = ([log_probs(m, part) for part in pairs] for m in (other, base[0]))
    h = (now[0] - start[0]) - (now[1] - start[1])
    assert found["loss"] == pytest.approx(np.logaddexp(0, -0.4 * h), rel=1e-4, abs=1e-4)
    assert found["margin"] == pytest.approx(0.4 * h, rel=1e-3, abs=1e-4)
    assert found["accuracy"].tolist() == (h > 0).tolist()


def test_an_interrupted_run_ends_like_one_that_was_not(config, monkeypatch):
    whole = replace(config, run=config.run.with_name("whole"))
    expected = dpo(whole, False, reward=reward).state_dict()
    stops = [
        (ScoredSamples, "extended", lambda samples: len(samples) == 40, "with 80 crystals sampled"),
        (FinetuningLoop, "_update", lambda run: run.at.step == 1, "at step 2"),
        (FinetuningLoop, "_update", lambda run: run.at.step == 3, "at step 4"),
    ]
    for owner, name, is_time, saved in stops:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupting(getattr(owner, name), is_time))
            with pytest.raises(KeyboardInterrupt, match=saved):
                dpo(config, False, reward=reward)
        config = DPOConfig.of_run(config.run)
    assert same(dpo(config, False, reward=reward).state_dict(), expected)
    assert history(config) == history(whole)
    assert history(config)[0]["sampled"] == 100


def interrupting(method, is_time):
    """Return a method that sends a signal first when it is time to."""

    def patched(self, *args):
        if is_time(self):
            signal.raise_signal(signal.SIGTERM)
        return method(self, *args)

    return patched


def test_pairs_come_from_files_too(config, base, tmp_path):
    crystals = base[0].sample(list(GROUPS), 40, seed=1, **OPTIONS)
    pairs = Pairs(crystals[:20], crystals[20:])
    expected = dpo(config, False, pairs=pairs).state_dict()
    paths = {name: tmp_path / f"{name}.npz" for name in Pairs._fields}
    for name, path in paths.items():
        getattr(pairs, name).save(path)
    config = replace(config, run=config.run.with_name("files"), **paths)
    assert same(dpo(config, False).state_dict(), expected)
    assert DPOConfig.of_run(config.run) == replace(config, resume=True)


def test_pairs_that_could_not_be_sampled_are_left_out(config, base):
    crystals = base[0].sample(list(GROUPS), 40, seed=1, **OPTIONS)
    crystals.A[[3, 25], 0] = 11  # not among the elements of the constraints
    dpo(config, False, pairs=Pairs(crystals[:20], crystals[20:]))
    assert history(config)[0]["pairs"] == 18
    crystals.A[:, 0] = 11
    with pytest.raises(ValueError, match="both crystals of none of 20 pairs"):
        dpo(replace(config, run=config.run.with_name("other")), False, pairs=Pairs(crystals[:20], crystals[20:]))


def test_crystals_without_pairs_are_an_error(config, base):
    with pytest.raises(ValueError, match="no two of 100 crystals differ in their reward by more than margin = 0"):
        dpo(config, False, reward=lambda crystals: np.ones(len(crystals)))
    crystals = base[0].sample(list(GROUPS), 4, seed=1, **OPTIONS)
    for number, (chosen, rejected) in enumerate([(crystals, crystals[:3]), (crystals[:0], crystals[:0])]):
        numbers = f"got {len(chosen)} and {len(rejected)}"
        other = replace(config, run=config.run.with_name(str(number)))
        with pytest.raises(ValueError, match=f"must be as many, at least one, {numbers}"):
            dpo(other, False, pairs=Pairs(chosen, rejected))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin", -1.0), ("beta", -0.1),
        ("chosen", "chosen.npz"), ("samples", 0), ("validation_fraction", 1.0),
    ],
)  # fmt: skip
def test_settings_that_are_impossible_are_named(config, name, value):
    with pytest.raises(ValueError, match=f"^{name} "):
        replace(config, **{name: value})

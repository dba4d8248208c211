"""Supervised fine-tuning learns what succeeds, and nothing that interrupts it changes what comes out."""

import copy
import json
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_grammar import BINS, CONFIG, CONSTRAINTS, GROUPS, base_model, every_crystal, probabilities, reward

from agents import CrystalFormer
from agents.crystalformer.distribution import compile_constraints
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import sample_crystals
from agents.crystalformer.temperature import Temperatures
from agents.supervised.finetune import FinetuneConfig, finetune, keep
from agents.supervised.finetuning_loop import FinetuningLoop
from agents.training.run_folder import RunFolder
from agents.training.scored_samples import ScoredSamples
from crystal_env.crystal import CrystalBatch
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.reward import RewardResult, Scorer

OPTIONS = {"bins": BINS, **CONSTRAINTS}


def graded(crystals):
    """The reward of the tiny grammar, with success above 0.6: for half of what the base model batches."""
    total = reward(crystals)
    return RewardResult(total, {"success": (total > 0.6).astype(float)}, np.full(len(total), None, object))


class Counting:
    """Scores like ``graded`` and counts the crystals."""

    def __init__(self):
        self.calls = 0

    def __call__(self, crystals):
        self.calls += len(crystals)
        return graded(crystals)


@pytest.fixture(autouse=True)
def _interruptible():
    """Whoever runs the tests in the background may have switched interrupts off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_curve(request, monkeypatch):
    if request.node.name != "test_the_folder_shows_what_was_done":  # drawing takes longer than training
        monkeypatch.setattr("agents.supervised.finetuning_loop.draw_curves", lambda history, path, shown: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model whose success rate on the tiny grammar is one half."""
    path = tmp_path_factory.mktemp("base")
    base_model().float().save_pretrained(path)
    return CrystalFormer.from_pretrained(path), str(path)


@pytest.fixture
def config(base, tmp_path):
    """Two rounds of three epochs, of two steps or so each."""
    return FinetuneConfig(
        tmp_path / "run", base[1], space_group=list(GROUPS), constraints=CONSTRAINTS, bins=BINS, samples=100,
        sample_batch_size=40, rounds=2, epochs=3, batch_size=30, learning_rate=3e-3, device="cpu",
    )  # fmt: skip


def history(config):
    """Return the history without the time that it took."""
    return [{k: v for k, v in entry.items() if k != "hours"} for entry in RunFolder(config.run).history()]


def kept(config, round_=0):
    return CrystalBatch.load(config.run / f"kept-{round_}.npz")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def mean_log_prob(model, crystals, **options):
    with torch.no_grad():
        return {
            name: float(part.double().mean()) for name, part in model.log_prob(crystals, **options)._asdict().items()
        }


def symbols_of(crystals):
    return [
        (int(G), *W[:2].tolist(), *A[:2].tolist()) for G, W, A in zip(crystals.G, crystals.W, crystals.A, strict=True)
    ]


def test_sample_batch_size_does_not_change_what_is_sampled(config):
    samples = []
    for size in (7, 100):
        run = replace(config, run=config.run / str(size), sample_batch_size=size, rounds=1, epochs=1)
        finetune(run, progress=False, reward=reward)
        samples.append(ScoredSamples.load(run.run / "samples-0.npz").sampled)
    assert np.array_equal(samples[0].A, samples[1].A)
    np.testing.assert_allclose(samples[0].L, samples[1].L)


@pytest.mark.parametrize("temperature", [{"elements": 0.3, "lattice": 0.1}, None], ids=str)
def test_rounds_are_sampled_at_their_temperature_and_learnt_at_one(base, config, temperature, tmp_path):
    recommended = {"elements": 0.3, "lattice": 0.1}
    model = copy.deepcopy(base[0])
    model.temperature = Temperatures.of(recommended if temperature is None else {"letters": 0.1})
    model.save_pretrained(tmp_path / "base")
    config = replace(config, model=str(tmp_path / "base"), rounds=1, temperature=temperature)
    trained = finetune(config, False, reward=graded)
    samples = ScoredSamples.load(config.run / "samples-0.npz").crystals
    streams = RandomStreams([config.seed, 0, 2])
    groups = compile_grammar(constraints(space_group=list(GROUPS), **CONSTRAINTS)).sample_groups(
        100, streams.for_space_groups()
    )
    distribution = model.distribution(compile_constraints(groups, CONSTRAINTS), recommended, bins=BINS)
    expected = sample_crystals(model, groups, distribution, streams, 40).crystals
    np.testing.assert_array_equal(samples.A, expected.A)
    np.testing.assert_allclose(samples.L, expected.L)
    chosen = kept(config)
    order = np.random.default_rng([config.seed, 0, 1]).permutation(len(chosen))  # held out first
    held_out = chosen[order[: int(config.validation_fraction * len(chosen))]]
    loss = -mean_log_prob(model, held_out, temperature=1, **OPTIONS)["total"]
    assert history(config)[0]["validation_loss"] == pytest.approx(loss, abs=1e-4)
    assert trained.temperature == model.temperature  # it recommends what its initial model does


def test_the_loss_falls_to_the_entropy_of_what_is_kept(config, base):
    config = replace(
        config, samples=400, sample_batch_size=200, rounds=1, epochs=60, batch_size=400, learning_rate=1e-2,
        validation_fraction=0, max_tokens=100_000, max_grad_norm=100.0,
    )  # fmt: skip
    model = finetune(config, False, reward=graded)
    learnt = symbols_of(kept(config))
    counts, of_group = Counter(learnt), Counter(key[0] for key in learnt)
    entropy = -np.mean([np.log(counts[key] / of_group[key[0]]) for key in learnt])
    means = mean_log_prob(model, kept(config), **OPTIONS)
    loss = -means["letters"] - means["elements"]
    assert entropy - 1e-6 < loss < entropy + 0.01  # Gibbs: nothing is below
    before = mean_log_prob(base[0], kept(config), **OPTIONS)
    assert -before["letters"] - before["elements"] > entropy + 0.3
    entries = history(config)
    assert entries[0]["train_loss"] == pytest.approx(-before["total"], rel=1e-5)
    assert entries[-1]["train_loss"] == pytest.approx(-means["total"], abs=0.01)
    success = graded(every_crystal()).success()
    assert probabilities(base[0])[success].sum() == pytest.approx(0.5, abs=0.05)
    assert probabilities(model)[success].sum() > 0.99


def test_every_round_of_expert_iteration_raises_the_mean_reward(config, base):
    config = replace(config, samples=200, rounds=4, epochs=4, batch_size=50, learning_rate=2e-3, validation_fraction=0)
    model = finetune(config, False, reward=graded)
    sampled = [entry["reward_mean"] for entry in history(config) if "reward_mean" in entry]
    true = [float(probabilities(m) @ reward(every_crystal())) for m in (base[0], model)]
    assert len(sampled) == 4
    assert sampled == sorted(sampled)
    assert true[1] > true[0] + 0.2
    assert sampled[0] == pytest.approx(true[0], abs=0.1)


def at_step(monkeypatch, step, act):
    """Call a function before an optimiser step."""
    update = FinetuningLoop._update

    def patched(self, *args):
        if self.at.step == step:
            act()
        return update(self, *args)

    monkeypatch.setattr(FinetuningLoop, "_update", patched)


def while_sampling(monkeypatch, call, act):
    """Call a function when crystals are sampled and scored for the nth time."""
    extended, calls = ScoredSamples.extended, []

    def patched(self, *args):
        calls.append(None)
        if len(calls) == call:
            act()
        return extended(self, *args)

    monkeypatch.setattr(ScoredSamples, "extended", patched)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def fail():
    raise OSError("power cut")


def files(config):
    """Return all crystals and rewards in the folder."""
    return {
        (path.name, name): array.tolist()
        for path in sorted(config.run.glob("*.npz"))
        for name, array in np.load(path).items()
    }


def test_an_interrupted_run_ends_alike_and_scores_nothing_twice(config, monkeypatch):
    whole, counts = replace(config, run=config.run.with_name("whole")), [Counting(), Counting()]
    expected = finetune(whole, False, reward=counts[0])
    steps = int(history(whole)[-1]["step"])
    stops = [
        (while_sampling, 2, "with 80 crystals sampled"),
        (at_step, 1, "at step 2"),  # in the middle of an epoch
        (at_step, 3, "at step 4"),  # at the end of one
        (while_sampling, 1, "with 40 crystals sampled"),  # of the second round
        (at_step, steps - 1, f"at step {steps}"),
    ]
    for stop, when, saved in stops:
        with monkeypatch.context() as patch:
            stop(patch, when, interrupt)
            with pytest.raises(KeyboardInterrupt, match=f"is saved {saved}; resume it"):
                finetune(config, False, reward=counts[1])
        config = FinetuneConfig.of_run(config.run)
    model = finetune(config, False, reward=counts[1])
    assert same(model.state_dict(), expected.state_dict())
    assert history(config) == history(whole)
    assert files(config) == files(whole)
    assert counts[0].calls == counts[1].calls == sum(e.get("sampled", 0) for e in history(whole))
    assert {int(entry["round"]) for entry in history(whole)} == {0, 1}


def test_a_run_that_broke_off_goes_on_from_its_last_checkpoint(config, monkeypatch):
    whole = replace(config, run=config.run.with_name("whole"))
    expected = finetune(whole, False, reward=graded)
    for break_, when in ((while_sampling, 3), (at_step, 4), (while_sampling, 2)):
        with monkeypatch.context() as patch:
            break_(patch, when, fail)
            with pytest.raises(OSError, match="power cut"):
                finetune(config, False, reward=graded)
        config = FinetuneConfig.of_run(config.run)
    model = finetune(config, False, reward=graded)
    assert same(model.state_dict(), expected.state_dict())
    assert history(config) == history(whole)


def test_a_finished_run_is_what_it_was(config):
    counting = Counting()
    expected = finetune(config, False, reward=counting)
    before, calls = history(config), counting.calls
    model = finetune(FinetuneConfig.of_run(config.run), False, reward=counting)
    assert same(model.state_dict(), expected.state_dict())
    assert (history(config), counting.calls) == (before, calls)


def test_the_folder_shows_what_was_done(config, base):
    model = finetune(config, False, reward=graded)
    assert not model.training
    names = {"run.json", "checkpoint.pt", "history.jsonl", "curve.png", "model", "tensorboard"}
    assert {f.name for f in config.run.iterdir()} == names | {
        f"{n}-{i}.npz" for n in ("samples", "kept") for i in (0, 1)
    }
    assert same(CrystalFormer.from_pretrained(config.run / "model").state_dict(), model.state_dict())
    content = json.loads((config.run / "run.json").read_text())
    assert content["settings"]["given_reward"].endswith("test_finetune:graded")
    assert content["parameters"] == base[0].n_parameters
    samples = ScoredSamples.load(config.run / "samples-0.npz")
    first = history(config)[0]
    assert first["sampled"] == len(samples) == 100
    assert np.array_equal(samples.result.total, reward(samples.sampled))
    assert first["kept"] == len(kept(config)) == samples.result.success().sum()
    assert 0 < first["kept"] < 100


def test_no_two_rounds_or_parts_of_a_round_draw_the_same(config):
    finetune(replace(config, bins=0, samples=120, learning_rate=1e-12), False, reward=graded)
    samples = [ScoredSamples.load(config.run / f"samples-{round_}.npz").sampled for round_ in (0, 1)]
    assert len(CrystalBatch.concatenate(samples).distinct()[0]) == 240


def test_nothing_to_learn_from_is_an_error_with_the_numbers(config):
    def hopeless(crystals):
        return RewardResult(np.zeros(len(crystals)), {"success": np.zeros(len(crystals))}, np.full(len(crystals), None))

    with pytest.raises(ValueError, match=r"of 100 crystals: 0 succeeded, .* build 0 of these, 0 are"):
        finetune(config, False, reward=hopeless)


def swollen(crystals):
    """Returns crystals with an axis that is 10 % longer; those with lithium fail."""
    has_lithium = (crystals.A == 3).any(1)
    L = crystals.L.copy()
    L[~has_lithium, :3] *= 1.1
    reasons = np.array([f"row {row}" if fails else None for row, fails in enumerate(has_lithium)], object)
    return CrystalBatch(crystals.G, crystals.W, crystals.A, crystals.XYZ, L), reasons


def test_crystals_are_relaxed_before_they_are_scored_and_learnt(config):
    finetune(replace(config, rounds=1), False, reward=graded, relax=swollen)
    samples = ScoredSamples.load(config.run / "samples-0.npz")
    moved = ~(samples.sampled.A == 3).any(1)
    assert 0 < moved.sum() < 100
    assert np.allclose(samples.crystals.L[:, 0] / samples.sampled.L[:, 0], np.where(moved, 1.1, 1.0))
    assert [failure is None for failure in samples.result.failures] == moved.tolist()
    assert next(f for f in samples.result.failures if f).startswith("not relaxed: row")
    rows = np.flatnonzero(moved & (reward(samples.crystals) > 0.6))
    assert np.array_equal(kept(config).L, samples.crystals.L[rows])


def test_relaxation_and_reward_can_be_named(config):
    named = replace(config, rounds=1, reward=f"{__name__}:graded", relax=f"{__name__}:swollen")
    model = finetune(named, False)
    given = replace(config, rounds=1, run=config.run.with_name("given"))
    assert same(model.state_dict(), finetune(given, False, reward=graded, relax=swollen).state_dict())


def test_what_the_environment_cannot_build_is_not_learnt(config):
    def wild(crystals):
        A, L = crystals.A.copy(), crystals.L.copy()
        A[0::4][A[0::4] > 0] = 11  # not among the elements of the constraints
        L[1::4, :3] = 500.0
        return CrystalBatch(crystals.G, crystals.W, A, crystals.XYZ, L), np.full(len(A), None, object)

    finetune(replace(config, rounds=1), False, reward=lambda crystals: np.ones(len(crystals)), relax=wild)
    first = history(config)[0]
    assert (first["succeeded"], first["possible"]) == (100, 50)
    assert np.isin(kept(config).A, [0, 3, 9, 17]).all()
    assert kept(config).L.max() < 100


def test_the_best_of_equal_crystals_is_kept_on_request(config, base):
    crystals = base[0].sample(list(GROUPS), 200, seed=0, **OPTIONS)
    noise = np.random.default_rng(0).random(200)
    samples = ScoredSamples().extended(crystals, Scorer(lambda batch: batch.L[:, 0], 0.0))
    samples.result.total[:] += noise
    run = FinetuningLoop(config, {}, None, False)
    rows = keep(samples, run.distribution(crystals.G), distinct=True).rows
    best = {}
    for row, crystal in enumerate(crystals):
        if crystal.key() not in best or samples.result.total[row] > samples.result.total[best[crystal.key()]]:
            best[crystal.key()] = row
    assert sorted(best.values()) == rows.tolist()
    assert len(keep(samples, run.distribution(crystals.G), distinct=False).rows) == 200


def test_training_stops_early_and_keeps_the_best_weights(config):
    config = replace(
        config, samples=300, rounds=1, epochs=200, patience=3, validation_fraction=0.7, learning_rate=3e-3,
    )  # fmt: skip
    model = finetune(config, False, reward=graded)
    losses = [entry["validation_loss"] for entry in history(config)]
    best = int(np.argmin(losses))
    assert best > 0
    assert len(losses) == best + 1 + 3 < 200
    crystals = kept(config)
    held_out = np.random.default_rng([0, 0, 1]).permutation(len(crystals))[: int(0.7 * len(crystals))]
    assert -mean_log_prob(model, crystals[held_out], **OPTIONS)["total"] == pytest.approx(losses[best], abs=1e-4)


def test_a_model_that_only_gets_worse_is_left_as_it_was(config, base):
    config = replace(config, rounds=1, learning_rate=10.0, validation_fraction=0.5)
    assert same(finetune(config, False, reward=graded).state_dict(), base[0].state_dict())


def test_there_is_no_dropout(config, base, tmp_path):
    shaky = CrystalFormer(replace(CONFIG, dropout=0.5, attention_dropout=0.5))
    shaky.load_state_dict(base[0].state_dict())
    shaky.save_pretrained(tmp_path / "shaky")
    expected = finetune(replace(config, rounds=1), False, reward=graded).state_dict()
    config = replace(config, rounds=1, model=str(tmp_path / "shaky"), run=config.run.with_name("shaky"))
    assert same(finetune(config, False, reward=graded).state_dict(), expected)


def test_how_a_batch_is_cut_changes_nothing(config):
    models = [
        finetune(replace(config, run=config.run.with_name(str(n)), rounds=1, max_tokens=n), False, reward=graded)
        for n in (1, 60, 10_000)
    ]
    weights = [torch.cat([w.flatten() for w in model.state_dict().values()]) for model in models]
    assert all(float((weights[0] - other).abs().max()) < 1e-4 for other in weights[1:])


def test_the_papers_likelihood_can_be_learnt(config, base):
    config = replace(config, bins=0, constraints={"max_sites": 3}, rounds=1, epochs=1, validation_fraction=0)
    with pytest.raises(ValueError, match="'paper' takes no bins or constraints"):
        replace(config, likelihood="paper")
    config = replace(config, likelihood="paper", constraints={}, samples=20)
    finetune(config, False, reward=lambda crystals: np.ones(len(crystals)))
    expected = mean_log_prob(base[0], kept(config), likelihood="paper")["total"]
    assert history(config)[0]["train_loss"] == pytest.approx(-expected, rel=1e-5)


def test_nothing_global_is_changed(config, monkeypatch):
    def everything():
        numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return torch.get_rng_state().tolist(), numpy_state, torch.get_num_threads(), torch.is_grad_enabled(), handlers

    before = everything()
    at_step(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        finetune(config, False, reward=graded)
    assert everything() == before


def test_a_run_is_resumed_with_its_own_settings_only(config, monkeypatch):
    at_step(monkeypatch, 0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune(config, False, reward=graded)
    with pytest.raises(ValueError, match="has a checkpoint already"):
        finetune(config, False, reward=graded)
    resumed = FinetuneConfig.of_run(config.run)
    assert resumed == replace(config, resume=True)
    for change in ({"learning_rate": 0.1}, {"space_group": 225}, {"constraints": {}}, {"rounds": 3}):
        with pytest.raises(ValueError, match=f"cannot be resumed with {next(iter(change))} = "):
            finetune(replace(resumed, **change), False, reward=graded)
    with pytest.raises(ValueError, match="cannot be resumed with given_reward = None"):
        finetune(resumed, False)


@pytest.mark.parametrize("groups", [np.array([221, 225]), (221, 225), np.int64(225), np.ones(230)], ids=repr)
def test_space_groups_of_any_form_survive_a_run(config, groups):
    config = replace(config, space_group=groups, constraints={"elements": {3, 9}, "max_sites": 2})
    FinetuningLoop(config, {}, None, False)
    resumed = FinetuneConfig.of_run(config.run)
    assert np.array_equal(resumed.space_group, np.asarray(groups))
    assert resumed.plain() == {**config.plain(), "resume": True}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0), ("sample_batch_size", 0), ("epochs", 0), ("batch_size", 0), ("rounds", 0), ("patience", 0),
        ("max_tokens", 0), ("learning_rate", 0.0), ("learning_rate", float("nan")), ("max_grad_norm", -1.0),
        ("validation_fraction", 1.0), ("validation_fraction", -0.1), ("floor", float("inf")), ("seed", -1),
        ("likelihood", "best"), ("bins", 7), ("space_group", "agent"), ("space_group", 231), ("constraints", [1]),
        ("checkpoint_minutes", 0.0),
    ],
)  # fmt: skip
def test_settings_that_are_impossible_are_named(config, name, value):
    with pytest.raises(ValueError, match=name):
        replace(config, **{name: value})

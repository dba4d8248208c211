"""Pre-training learns, and an interruption, the cut of a batch or a second process change nothing of what comes out."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import CrystalFormer, CrystalFormerConfig, PretrainConfig
from agents import pretrain as run_pretraining
from agents.supervised.pretrain import _Run, learning_rate, mean_log_prob
from agents.training.run_folder import RunFolder
from crystal_env import Crystal, CrystalBatch

TINY = CrystalFormerConfig(
    n_layers=1, n_heads=2, key_size=8, model_size=16, embed_size=8, first_letter_size=8, n_frequencies=2,
    coordinate_components=3, lattice_components=2,
)  # fmt: skip
NO_DROPOUT = replace(TINY, dropout=0.0, attention_dropout=0.0)
GROUPS = np.array([1, 2, 12, 14, 62, 63, 139, 166, 186, 194, 221, 225])


@pytest.fixture(autouse=True)
def _interruptible():
    """Whoever runs the tests in the background may have switched interrupts off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


CRYSTALS = """
1-a-No-0.6611-0.3525-0.6831-a-Cn-0.2043-0.0247-0.3905-X-1.2657-1.0011-1.1382-41.2337-32.2919-66.6359
2-c-Be-0-0.5-0-g-Na-0-0.5-0.5-i-Se-0.393-0.5417-0.4369-X-1.3759-1.3532-1.5751-37.5391-80.0288-55.2558
12-a-Fr-0-0-0-d-Tm-0-0.5-0.5-e-Tm-0.25-0.25-0-f-Rb-0.25-0.25-0.5-X-2.0648-3.0098-2.2444-90-44.1988-90
14-a-Sc-0-0-0-e-Br-0.5089-0.6241-0.5898-e-Na-0.0726-0.0036-0.1835-e-Sr-0.8746-0.6799-0.1027-X-2.2202-3.7474-2.5874-90-86.1747-90
62-d-Lr-0.3872-0.6347-0.4768-X-1.5741-4.0752-3.1231-90-90-90
63-h-Gd-0.3001-0.9472-0.7962-X-2.6105-2.8452-2.1781-90-90-90
139-j-Br-0.9029-0.5-0-k-Sg-0.9636-0.4636-0.25-n-Ti-0-0.5096-0.5226-o-Es-0.7763-0.4392-0.6293-X-2.9423-2.9423-3.2298-90-90-90
166-g-Sn-0.5314-0-0.5-X-5.1143-5.1143-1.8565-90-90-120
186-c-Be-0.4262-0.5738-0.6582-d-Tb-0.1134-0.5433-0.6978-X-3.0531-3.0531-2.6811-90-90-120
194-l-P-0.3954-0.631-0.5922-X-3.4655-3.4655-3.5804-90-90-120
221-k-Au-0-0.1735-0.9468-X-2.1991-2.1991-2.1991-90-90-90
225-a-Ir-0-0-0-k-Hg-0.4791-0.4791-0.2946-X-3.6542-3.6542-3.6542-90-90-90
"""


@pytest.fixture(scope="module")
def crystals():
    return CrystalBatch.from_crystals(Crystal.from_string(line) for line in CRYSTALS.split())


@pytest.fixture(scope="module")
def data(crystals, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "crystals.npz"
    crystals.save(path)
    return path


@pytest.fixture(autouse=True)
def _no_curve(request, monkeypatch):
    if request.node.name != "test_the_folder_shows_what_was_done":  # drawing takes longer than training
        monkeypatch.setattr("agents.training.run_folder.draw_curve", lambda history, path: None)


@pytest.fixture
def config(data, tmp_path):
    """A run of nine steps in three epochs, in each of which no crystal is left over."""
    return PretrainConfig(
        data, tmp_path / "run", validation=data, model=TINY, epochs=3, batch_size=4, warmup=2, device="cpu"
    )


def pretrain(config):
    return run_pretraining(config, progress=False)


def state(config):
    return RunFolder(config.run).load_state(torch.device("cpu"))


def history(config):
    """Return the history without the time that it took."""
    return [{k: v for k, v in entry.items() if k != "hours"} for entry in RunFolder(config.run).history()]


def same(first, second):
    """Return whether two nested states are equal to the last bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def largest_difference(first, second):
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def gradients(config):
    """Return the gradient of a run of a single step, which is in Adam's first moment."""
    moments = state(config)["optimiser"]["state"]
    return {index: moment["exp_avg"] / (1 - config.betas[0]) for index, moment in moments.items()}


def before_step(monkeypatch, step, act):
    """Call a function before an optimiser step."""
    update = _Run._update

    def patched(self, rows):
        if self.step == step:
            act(self)
        return update(self, rows)

    monkeypatch.setattr(_Run, "_update", patched)


def fail(run):
    raise OSError("power cut")


def test_training_learns_crystals_by_heart(config, crystals):
    sizes = CrystalFormerConfig(
        n_layers=1, n_heads=2, key_size=8, model_size=64, embed_size=16, first_letter_size=0,
        coordinate_components=4, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    config = replace(
        config, validation=None, model=sizes, epochs=250, batch_size=len(crystals), learning_rate=1e-2, warmup=20,
        max_grad_norm=100.0, validate_every=50,
    )  # fmt: skip
    before = mean_log_prob(CrystalFormer(config.model, seed=config.seed).eval(), crystals)["total"]
    model = pretrain(config)
    after = mean_log_prob(model, crystals)["total"]
    losses = [entry["train_loss"] for entry in history(config)]
    assert losses[-1] == min(losses) < losses[0] - 5
    assert losses[-1] == pytest.approx(-after, abs=0.5)
    assert after > before + 25
    likely = model.sample(GROUPS, seed=0, temperature=0)
    assert np.array_equal(likely.W, crystals.W)
    assert np.array_equal(likely.A, crystals.A)
    off = np.abs(likely.XYZ - crystals.XYZ)
    assert np.minimum(off, 1 - off).max() < 0.1
    close = (np.abs(likely.L / crystals.L - 1) < 0.1).all(1)
    assert close.mean() > 0.6  # some lattices end between two components


@pytest.mark.parametrize("likelihood", ["exact", "paper"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_loss_is_the_mean_of_the_chosen_likelihood(config, crystals, likelihood, precision):
    config = replace(
        config, model=NO_DROPOUT, likelihood=likelihood, precision=precision, epochs=1, batch_size=len(crystals)
    )
    pretrain(config)
    untrained = CrystalFormer(config.model, seed=config.seed).eval()
    expected = mean_log_prob(untrained, crystals, likelihood)["total"]
    assert history(config)[0]["train_loss"] == pytest.approx(-expected, rel=1e-5 if precision == "float32" else 0.02)
    other = mean_log_prob(untrained, crystals, "paper" if likelihood == "exact" else "exact")["total"]
    assert abs(other - expected) > 0.05 * abs(expected)


def test_the_papers_likelihood_rises_too(config, crystals):
    config = replace(config, likelihood="paper", epochs=10, learning_rate=1e-2)
    pretrain(config)
    totals = [entry["validation_total"] for entry in history(config)]
    assert totals[-1] > totals[0] + 5


@pytest.mark.parametrize("augment", [False, True])
def test_an_interrupted_run_ends_like_one_that_was_not(config, monkeypatch, augment):
    config = replace(config, augment=augment)
    whole = replace(config, run=config.run.with_name("whole"))
    expected = pretrain(whole).state_dict()
    for step in (1, 5):  # in the middle of an epoch, and before its last batch
        with monkeypatch.context() as patch:
            before_step(patch, step, lambda run: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt, match=f"saved at step {step + 1}"):
                pretrain(config)
        assert state(config)["step"] == step + 1
        config = PretrainConfig.of_run(config.run)
    assert same(pretrain(config).state_dict(), expected)
    first, second = state(config), state(whole)
    assert first.pop("seconds") > 0
    assert second.pop("seconds") > 0
    assert same(first, second)
    assert len(history(whole)) == 3
    assert history(config) == history(whole)


def test_augmentation_and_dropout_change_what_is_learnt(config):
    runs = [config, replace(config, augment=True), replace(config, model=NO_DROPOUT), replace(config, seed=1)]
    weights = [pretrain(replace(c, run=config.run.with_name(str(i)))).state_dict() for i, c in enumerate(runs)]
    assert all(largest_difference(weights[0], other) > 1e-5 for other in weights[1:])


@pytest.mark.parametrize("stop", [None, 2], ids=["before the first checkpoint", "after it"])
def test_a_broken_run_forgets_what_came_after_its_checkpoint(config, monkeypatch, stop):
    whole = replace(config, run=config.run.with_name("whole"))
    expected = pretrain(whole).state_dict()
    if stop:
        with monkeypatch.context() as patch:
            before_step(patch, stop - 1, lambda run: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(KeyboardInterrupt):
                pretrain(config)
        config = PretrainConfig.of_run(config.run)
    with monkeypatch.context() as patch:
        before_step(patch, 7, fail)
        with pytest.raises(OSError, match="power cut"):
            pretrain(config)
    assert len(history(config)) == 2
    assert RunFolder(config.run).has_state == bool(stop)
    config = PretrainConfig.of_run(config.run)
    assert same(pretrain(config).state_dict(), expected)
    assert history(config) == history(whole)


def test_a_checkpoint_is_written_in_time(config, monkeypatch):
    before_step(monkeypatch, 4, fail)
    with pytest.raises(OSError, match="power cut"):
        pretrain(replace(config, checkpoint_minutes=1e-9))
    assert state(config)["step"] == 4


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_settings({})
    folder.save_state({"step": 1})
    with pytest.raises(Exception, match="pickle"):
        folder.save_state({"step": 2, "large": torch.zeros(10_000), "unwritable": lambda: None})
    assert folder.load_state(torch.device("cpu")) == {"step": 1}
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_a_finished_run_can_be_resumed_and_is_what_it_was(config):
    expected = pretrain(config).state_dict()
    before = history(config)
    assert same(pretrain(PretrainConfig.of_run(config.run)).state_dict(), expected)
    assert history(config) == before


def test_a_second_signal_breaks_at_once(config, monkeypatch):
    def twice(run):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before_step(monkeypatch, 1, twice)
    with pytest.raises(KeyboardInterrupt) as error:
        pretrain(config)
    assert "saved" not in str(error.value)
    assert not RunFolder(config.run).has_state


def test_nothing_global_is_changed(config, monkeypatch):
    def everything():
        numpy_state = np.random.get_state()  # noqa: NPY002
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        rng = torch.get_rng_state().tolist(), numpy_state[1].tolist()
        return rng, torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), handlers

    torch.manual_seed(3)
    before = everything()
    pretrain(config)
    assert everything() == before
    before_step(monkeypatch, 1, lambda run: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        pretrain(replace(config, run=config.run.with_name("interrupted")))
    assert everything() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_batch_has_the_same_gradient_however_it_is_cut(config, crystals):
    config = replace(config, model=NO_DROPOUT, epochs=1, batch_size=len(crystals))
    results = []
    for max_tokens in (10_000, 40, 1):
        run = replace(config, run=config.run.with_name(str(max_tokens)), max_tokens=max_tokens)
        pretrain(run)
        results.append(gradients(run))
    norm = torch.cat([gradient.flatten() for gradient in results[0].values()]).norm()
    assert float(norm) == pytest.approx(config.max_grad_norm, abs=1e-4)
    assert all(largest_difference(results[0], other) < 1e-5 for other in results[1:])


TWO = """
import sys
from pathlib import Path
from dataclasses import replace
from agents import PretrainConfig, pretrain
config = PretrainConfig.of_run(Path(sys.argv[1]))
model = pretrain(replace(config, run=Path(sys.argv[2]), resume=False), progress=False)
assert model.n_parameters > 0
"""


def test_two_processes_learn_what_one_does(config, tmp_path):
    config = replace(config, model=NO_DROPOUT, weight_decay=0.1)
    expected = pretrain(config).state_dict()
    script, run = tmp_path / "two.py", config.run.with_name("two")
    script.write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [*command, str(script), str(config.run), str(run)],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = CrystalFormer.from_pretrained(run / "model").state_dict()
    start = CrystalFormer(NO_DROPOUT, seed=config.seed).state_dict()
    assert largest_difference(start, expected) > 1e-3
    assert largest_difference(found, expected) < 1e-5
    for one, two in zip(history(config), history(replace(config, run=run)), strict=True):
        assert two == pytest.approx(one, abs=1e-3)


def test_a_folder_that_has_a_run_is_not_overwritten(config):
    pretrain(config)
    before = state(config)
    with pytest.raises(ValueError, match="has a checkpoint already"):
        pretrain(config)
    assert same(state(config), before)


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.1}, {"epochs": 4}, {"model": NO_DROPOUT}, {"betas": (0.8, 0.9)}, {"validation": None}],
    ids=str,
)
def test_a_run_is_not_resumed_with_other_settings(config, change, monkeypatch):
    before_step(monkeypatch, 0, lambda run: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        pretrain(config)
    with pytest.raises(ValueError, match=f"cannot be resumed with {next(iter(change))} = "):
        pretrain(replace(PretrainConfig.of_run(config.run), **change))


def test_the_settings_of_a_run_come_back(config):
    config = replace(config, epochs=1, betas=(0.8, 0.95), initial=None)
    pretrain(config)
    assert PretrainConfig.of_run(config.run) == replace(config, resume=True)


def test_what_is_no_run_cannot_be_resumed(tmp_path):
    for run in (tmp_path / "missing", tmp_path):
        with pytest.raises(ValueError, match="holds no run"):
            PretrainConfig.of_run(run)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"settings": {}}', '{"settings": 3}', '{"settings": {"data": "x"}}'], ids=repr
)
def test_a_damaged_description_of_a_run_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="holds no run"):
        PretrainConfig.of_run(tmp_path)


def test_settings_that_this_version_does_not_know_are_named(config):
    pretrain(replace(config, epochs=1))
    file = config.run / "run.json"
    content = json.loads(file.read_text())
    content["settings"]["momentum"] = 0.9
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="momentum"):
        PretrainConfig.of_run(config.run)


def test_a_batch_larger_than_the_data_is_refused(config, crystals):
    with pytest.raises(ValueError, match=f"batch_size must be at most the {len(crystals)} crystals, got 13"):
        pretrain(replace(config, batch_size=len(crystals) + 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 0), ("max_tokens", 0), ("validate_every", 0), ("learning_rate", 0.0),
        ("learning_rate", float("nan")), ("max_grad_norm", -1.0), ("checkpoint_minutes", float("inf")), ("warmup", -1),
        ("weight_decay", -0.1), ("weight_decay", float("nan")), ("seed", -1), ("schedule", "linear"),
        ("likelihood", "best"), ("precision", "float16"), ("betas", (0.9, 1.0)),
    ],
)  # fmt: skip
def test_settings_that_are_impossible_are_named(config, name, value):
    with pytest.raises(ValueError, match=f"^{name} must .*got"):
        replace(config, **{name: value})


def test_the_learning_rate_rises_linearly_and_falls_as_half_a_cosine(config):
    config = replace(config, learning_rate=3.0, warmup=4)
    steps = np.arange(20)
    rise = np.minimum((steps + 1) / 4, 1)
    rates = [learning_rate(config, step, 20) for step in range(20)]
    assert rates == pytest.approx(3 * rise * np.cos(np.pi * steps / 40) ** 2)
    constant = replace(config, schedule="constant")
    assert [learning_rate(constant, step, 20) for step in range(20)] == pytest.approx(3 * rise)
    assert learning_rate(replace(constant, warmup=0), 0, 20) == 3.0


def test_the_learning_rate_reaches_the_optimiser(config, monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def noted(self, *args):
        rates.extend(group["lr"] for group in self.param_groups[:1])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    pretrain(config)
    assert rates == [learning_rate(config, step, 9) for step in range(9)]


def test_a_gradient_that_is_no_number_changes_nothing(config, monkeypatch):
    weights = []

    def spoil(run):
        weights.append({name: value.clone() for name, value in run.model.state_dict().items()})
        weights.append({k: v["exp_avg"].clone() for k, v in run.optimiser.state_dict()["state"].items()})
        hooks.append(run.model.head.bias.register_hook(lambda gradient: gradient * float("nan")))

    def compare(run):
        hooks.pop().remove()
        assert same(run.model.state_dict(), weights[0])
        assert same({k: v["exp_avg"] for k, v in run.optimiser.state_dict()["state"].items()}, weights[1])

    hooks: list = []
    before_step(monkeypatch, 3, spoil)
    before_step(monkeypatch, 4, compare)
    model = pretrain(config)
    assert not hooks
    assert largest_difference(model.state_dict(), weights[0]) > 0
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_weight_decay_shrinks_matrices_only(config):
    rate = 0.5 / config.learning_rate
    config = replace(config, model=NO_DROPOUT, epochs=1, batch_size=12, warmup=0, weight_decay=rate, validation=None)
    before = CrystalFormer(config.model, seed=config.seed).state_dict()
    after = pretrain(config).state_dict()
    for name, weight in before.items():
        moved = (after[name] - weight * (0.5 if weight.dim() > 1 else 1.0)).abs().max()
        assert moved < 1.01 * config.learning_rate, name


@pytest.mark.parametrize(
    ("means", "best"), [([1, 3, 2], 1), ([2, 3, 3], 1), ([1, np.nan, -np.inf], 0), ([-np.inf, np.nan, -np.inf], 0)]
)
def test_the_best_model_on_the_validation_data_is_kept(config, monkeypatch, means, best):
    seen = []

    def validate(model, crystals, likelihood):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"total": float(means[len(seen) - 1])}

    monkeypatch.setattr(sys.modules[_Run.__module__], "mean_log_prob", validate)
    assert same(pretrain(config).state_dict(), seen[best])


def test_a_run_starts_from_a_given_model(config, tmp_path, crystals):
    initial = CrystalFormer(replace(NO_DROPOUT, model_size=8), seed=5)
    initial.save_pretrained(tmp_path / "initial")
    config = replace(config, initial=str(tmp_path / "initial"), learning_rate=1e-12, epochs=1)
    model = pretrain(config)
    assert model.config.model_size == 8
    assert largest_difference(model.state_dict(), initial.state_dict()) < 1e-9


def test_the_folder_shows_what_was_done(config, crystals):
    model = pretrain(config)
    assert not model.training
    files = {file.name for file in config.run.iterdir()}
    assert files == {"run.json", "checkpoint.pt", "history.jsonl", "curve.png", "skipped.csv", "model", "tensorboard"}
    assert (config.run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert any(file.name.startswith("events") for file in (config.run / "tensorboard").iterdir())
    assert same(CrystalFormer.from_pretrained(config.run / "model").state_dict(), model.state_dict())
    content = json.loads((config.run / "run.json").read_text())
    assert content["crystals"] == len(crystals)
    assert content["parameters"] == model.n_parameters
    assert content["versions"]["torch"] == torch.__version__
    entries = [json.loads(line) for line in (config.run / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [3, 6, 9]
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    parts = [f"validation_{name}" for name in ("letters", "elements", "coordinates", "lattice")]
    assert entries[0]["validation_total"] == pytest.approx(sum(entries[0][name] for name in parts), abs=1e-3)


def test_validation_comes_when_it_is_due_and_at_the_end(config):
    pretrain(replace(config, validate_every=2))
    assert [entry["epoch"] for entry in history(config)] == [2, 3]


def test_every_epoch_leaves_over_less_than_a_batch(config, crystals):
    run = _Run(replace(config, batch_size=5, augment=True), progress=False)
    seen, shown = [], []
    for rows in run._batches():
        seen.append(rows)
        shown.append(run.shown.XYZ.copy())
        run.step += 1
    assert [len(rows) for rows in seen] == [5] * 6
    epochs = [np.concatenate(seen[i : i + 2]) for i in (0, 2, 4)]
    assert all(len(set(epoch.tolist())) == 10 for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])
    assert [crystal.key() for crystal in run.shown] == [crystal.key() for crystal in crystals]

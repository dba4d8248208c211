import csv
import gzip
import json
import random
import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks.baselines as baselines
from agents import CrystalFormerPolicy, CrystalVecEnv
from benchmarks.baselines.element_substitution import Substitution
from benchmarks.baselines.genetic_algorithm import Breeding, GeneticAlgorithm
from benchmarks.baselines.marginal_sampler import TokenMarginals
from benchmarks.baselines.maskable_ppo_crystalformer import PartedPolicy
from benchmarks.baselines.search import BestSeen, best_of_groups, grammar_of, iteration_size, unit
from benchmarks.baselines.training_set import TrainingSet, load_training_set
from benchmarks.harness.agent_loading import load_agent
from benchmarks.harness.rollout import draw, keeps
from benchmarks.harness.session import Session
from benchmarks.tasks import find_task
from crystal_env import Crystal, CrystalBatch, sample_masked

BUDGET, SIZE = 12, 6
SMALL = {
    "RandomPolicy": {"num_envs": 8},
    "MarginalSampler": {"batch_size": 8},
    "ElementSubstitution": {"batch_size": 8},
    "GeneticAlgorithm": {"generations": 3},
    "BaseModel": {"batch_size": 8},
    "BaseModelRelaxed": {"steps": 2},
    "BestOfN": {"batch_size": 8},
    "SupervisedFineTuning": {"rounds": 2, "epochs": 1, "sample_batch_size": 8},
    "MCMC": {"steps": 3},
    "MaskablePPOMLP": {"num_envs": 4, "n_steps": 16, "batch_size": 32},
    "MaskablePPOCrystalFormer": {"num_envs": 4, "n_steps": 16, "batch_size": 32},
    "KLPPOPaper": {"iterations": 3, "n_epochs": 2},
    "KLPPOBest": {"iterations": 3},
    "TokenPPO": {"iterations": 3, "n_epochs": 2},
    "LeaveOneOutREINFORCE": {"iterations": 3},
}


@pytest.fixture(scope="module")
def training_set(data_folder, tmp_path_factory):
    """A file of 400 known crystals, 60 of them cubic perovskites or other crystals of their group."""
    with gzip.open(data_folder / "mp20_train.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    cubic = [row for row in rows if row["spacegroup"] == "221"][:60]
    path = tmp_path_factory.mktemp("known") / "known.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(cubic + rows[:: len(rows) // 340])
    return str(path)


@pytest.fixture(scope="module")
def known(training_set):
    return load_training_set(training_set)


@pytest.fixture
def perovskites(data_folder):
    return find_task("perovskites").resized(BUDGET, SIZE)


def agent(name, training_set):
    kwargs = SMALL[name]
    cls = getattr(baselines, name)
    if "training_set" in {field.name for field in fields(cls)}:
        kwargs = {**kwargs, "training_set": training_set}
    return cls(**kwargs)


def played(name, task, seed, training_set):
    session = Session(task, seed=seed)
    player = agent(name, training_set).train(session)
    return session, draw(player, task, seed)


def equal(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("G", "W", "A", "XYZ", "L"))


def test_every_baseline_has_plain_settings_that_make_it_again():
    assert set(SMALL) == set(baselines.__all__)
    for name in baselines.__all__:
        made = getattr(baselines, name)()
        assert is_dataclass(made)
        assert made.__dataclass_params__.frozen
        settings = json.loads(json.dumps(asdict(made)))
        again = load_agent(f"benchmarks.baselines:{name}", settings)
        assert json.loads(json.dumps(asdict(again))) == settings
    with pytest.raises(AttributeError, match="Nothing"):
        _ = baselines.Nothing


@pytest.mark.parametrize("name", SMALL)
def test_a_baseline_keeps_budget_constraints_and_seed(name, perovskites, training_set):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    session, drawn = played(name, perovskites, 0, training_set)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert session.oracle.calls == (BUDGET // 3 if name == "BaseModelRelaxed" else BUDGET)
    assert [failure for failure in drawn.failures if failure is not None] == []
    assert len(drawn.crystals) == SIZE
    assert keeps(session.oracle.crystals, perovskites).all()
    again, drawn_again = played(name, perovskites, 0, training_set)
    assert equal(session.oracle.crystals, again.oracle.crystals)
    assert equal(drawn.crystals, drawn_again.crystals)


@pytest.mark.parametrize("name", ["RandomPolicy", "GeneticAlgorithm", "BestOfN"])
def test_another_seed_gives_something_else(name, perovskites, training_set):
    crystals = [played(name, perovskites, seed, training_set)[0].oracle.crystals for seed in (0, 1)]
    assert not equal(*crystals)


@pytest.mark.parametrize("name", ["GeneticAlgorithm", "MarginalSampler", "SupervisedFineTuning"])
def test_a_baseline_draws_any_requested_group(name, training_set):
    session, drawn = played(name, find_task("validity").resized(BUDGET, SIZE), 0, training_set)
    assert session.oracle.calls == BUDGET
    assert [failure for failure in drawn.failures if failure is not None] == []
    assert np.array_equal(drawn.crystals.G, drawn.requested)


def test_breeding_finds_better_perovskites_than_playing_at_random(data_folder, training_set):
    task = find_task("perovskites").resized(300, SIZE)
    best = {}
    for name, kwargs in {"RandomPolicy": {}, "GeneticAlgorithm": {"training_set": training_set}}.items():
        session = Session(task, seed=0)
        getattr(baselines, name)(**kwargs).train(session)
        best[name] = np.sort(session.oracle.result().total)[-10:].mean()
    assert best["GeneticAlgorithm"] > best["RandomPolicy"] + 0.1


def test_the_marginal_sampler_draws_letters_and_elements_as_frequent_as_they_are(known):
    player = TokenMarginals(known, grammar_of(find_task("validity")), smoothing=0.0)
    drawn = player.sample(np.full(4000, 221), 0)
    rows = known.rows_of(221)
    for column in (known.crystals.W[rows][:, 0], known.crystals.n_sites()[rows] == 1):
        same = drawn.W[:, 0] if column.dtype != bool else drawn.n_sites() == 1
        for value in np.unique(column):
            assert (same == value).mean() == pytest.approx((column == value).mean(), abs=0.04)
    A, known_A = drawn.A[drawn.A > 0], known.crystals.A[rows][known.crystals.A[rows] > 0]
    assert (A == 8).mean() == pytest.approx((known_A == 8).mean(), abs=0.04)
    ratio = drawn.volume_per_atom().mean() / known.crystals.volume_per_atom()[rows].mean()
    assert 0.7 < ratio < 1.4


def test_substitutes_are_elements_that_crystals_show_in_each_others_places():
    texts = ["225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2", "225-a-K-0-0-0-b-Cl-1/2-1/2-1/2", "225-a-K-0-0-0-b-Br-1/2-1/2-1/2"]
    texts += ["221-a-Na-0-0-0-b-Br-1/2-1/2-1/2"]
    crystals = CrystalBatch.from_crystals([Crystal.from_string(f"{text}-X-5-5-5-90-90-90") for text in texts])
    substitutes = TrainingSet(crystals).substitutes
    known = {(int(a), int(b)) for a, b in np.argwhere(substitutes)}
    assert known == {(11, 19), (19, 11), (17, 35), (35, 17)}


def test_substitution_keeps_prototypes_and_puts_one_element_for_another(known):
    player = Substitution(known, grammar_of(find_task("validity")))
    prototypes = known.crystals[:200]
    new, fits = player.substituted(prototypes, np.random.default_rng(0))
    assert fits.all()
    assert np.array_equal(new.W, prototypes.W)
    assert (new.A != prototypes.A).any(1).all()
    for old, other in zip(prototypes, new, strict=True):
        assert len({*zip(old.A.tolist(), other.A.tolist(), strict=True)}) == len({*old.A.tolist()})
        assert len({*other.A.tolist()}) == len({*old.A.tolist()})


def test_substitution_reaches_a_given_formula(known):
    task = find_task("structure-prediction").case(0)
    player = Substitution(known, grammar_of(task))
    groups = grammar_of(task).sample_groups(50, np.random.default_rng(0))
    crystals = player.sample(groups, 1)
    assert np.array_equal(crystals.G, groups)
    assert {crystal.formula for crystal in crystals} == {"CoBr2"}
    assert keeps(crystals, task).all()


def test_children_have_the_sites_of_their_parent_and_one_change(known):
    task = find_task("validity")
    rng = np.random.default_rng(0)
    newcomers = Substitution(known, grammar_of(task))
    breeding = Breeding(GeneticAlgorithm(), Session(task), known, newcomers, rng)
    parents = known.crystals[:300]
    children = breeding.children(parents, known.crystals[rng.permutation(300)])
    assert np.array_equal(children.G, parents.G)
    assert np.array_equal(children.W, parents.W)
    elements = (children.A != parents.A).any(1)
    moved = (children.XYZ != parents.XYZ).any((1, 2))
    strained = ~np.isclose(children.L, parents.L).all(1)
    assert not (elements & moved).any()
    assert not (moved & strained).any()
    for changed in (elements, moved, strained & ~elements):
        assert changed.sum() > 15
    children.to_actions()  # the environment could build them


def test_an_update_in_parts_has_the_numbers_of_a_whole_one():
    env = CrystalVecEnv(Session(find_task("validity")).make_vec(24, bins=48))
    policies = [
        cls(env.observation_space, env.action_space, lambda _: 1e-4) for cls in (CrystalFormerPolicy, PartedPolicy)
    ]
    policies[1].load_state_dict(policies[0].state_dict())
    rng, rows = np.random.default_rng(0), []
    env.seed(0)
    observations = env.reset()
    for _ in range(12):
        masks = np.array(env.env_method("action_masks"))
        actions = sample_masked(masks, rng)
        rows.append((observations, actions, masks))
        observations = env.step(actions)[0]
    at = rng.permutation(288)[:60]
    batch = [torch.as_tensor(np.concatenate(column)[at]) for column in zip(*rows, strict=True)]
    for whole, parts in zip(*(policy.evaluate_actions(*batch) for policy in policies), strict=True):
        assert torch.allclose(whole, parts, atol=1e-4)


def session_with(totals, texts):
    """Return a session whose oracle was asked about crystals that are worth given totals."""
    session = Session(find_task("validity").resized(len(totals)))
    session.oracle.scorer.reward = lambda crystals: np.array([totals[str(crystal)] for crystal in crystals])
    session.score([Crystal.from_string(text) for text in texts])
    return session


class Nobody:
    def sample(self, space_groups, seed):
        return CrystalBatch.empty(len(space_groups))


def test_the_best_seen_come_first_and_of_one_kind_only_when_there_is_no_other():
    def text(group, element, a):
        return f"{group}-a-{element}-0-0-0-X-{a}-{a}-{a}-90-90-90"

    worth = {(225, "Cu", 3): 0.9, (225, "Cu", 4): 0.8, (225, "Ag", 3): 0.5, (221, "Cu", 3): 1.0, (225, "Au", 3): 0.1}
    totals = {str(Crystal.from_string(text(*place))): total for place, total in worth.items()}
    session = session_with(totals, [text(*place) for place in worth])
    drawn = BestSeen(session, Nobody()).sample(np.array([225, 225, 221, 225, 225, 225, 229]), 0)
    seen = [(crystal.G, crystal.formula, round(crystal.L[0])) for crystal in drawn[:6]]
    assert seen[:5] == [(225, "Cu", 3), (225, "Ag", 3), (221, "Cu", 3), (225, "Au", 3), (225, "Cu", 4)]
    assert drawn.n_sites()[5:].tolist() == [0, 0]  # left to others
    assert [crystal.formula for crystal in best_of_groups(session, 0.5)] == ["Cu", "Cu"]
    assert len(best_of_groups(session, 1.0)) == 5


def test_settings_come_in_units_of_the_task():
    stability = find_task("stability")
    assert baselines.KLPPOPaper().tau * unit(stability) == pytest.approx(0.1)  # arXiv:2504.02367, Table S1
    assert iteration_size(stability, 1000, 20) == 1000
    best = baselines.KLPPOBest()
    assert iteration_size(stability, best.batch_size, best.iterations) == 500
    low, high = (
        bound + sign * best.margin * unit(stability) for bound, sign in zip(stability.range, (-1, 1), strict=True)
    )
    assert (low, high) == pytest.approx((-2.0, 1.2))
    rates = [best.rate(iteration, iteration / 40) for iteration in range(41)]
    assert rates[0] == pytest.approx(best.learning_rate / 5)
    assert max(rates) == pytest.approx(best.learning_rate * 36 / 40)
    assert rates[-1] == 0


def test_a_missing_training_set_is_named():
    with pytest.raises(ValueError, match=r"training_set nowhere\.csv"):
        load_training_set("nowhere.csv")


def test_the_page_of_baselines_shows_code_that_runs():
    page = (Path(__file__).resolve().parents[2] / "docs" / "baselines.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found = {}
    exec(code, found)
    assert len(found["crystals"]) == found["task"].size == 50
    assert found["session"].oracle.calls == found["task"].budget == 200

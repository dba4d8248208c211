import numpy as np
import pytest
import torch

from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import RewardResult, Scorer, resolve_reward, reward_floor, stateful_parts


def first_length(crystals: CrystalBatch) -> np.ndarray:
    return crystals.L[:, 0]


def scaled(crystals: CrystalBatch, factor: float = 1.0) -> np.ndarray:
    return factor * crystals.L[:, 0]


class Scaled:
    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, crystals: CrystalBatch) -> np.ndarray:
        return self.factor * crystals.L[:, 0]


class NotCallable:
    pass


def result(total, **terms) -> RewardResult:
    total = np.asarray(total, float)
    columns = {name: np.asarray(values, float) for name, values in terms.items()}
    return RewardResult(total, columns, np.full(len(total), None, object))


def test_a_plain_function_is_a_reward(batch):
    scored = Scorer(first_length, floor=-1)(batch)
    assert scored.total.tolist() == batch.L[:, 0].tolist()
    assert scored.terms == {}
    assert scored.failures.tolist() == [None] * 3
    assert scored.success().tolist() == [True] * 3


def test_a_list_of_numbers_is_enough(batch):
    assert Scorer(lambda crystals: [1, 2, 3], floor=-1)(batch).total.tolist() == [1.0, 2.0, 3.0]


def test_an_empty_batch_gives_an_empty_result_without_a_call():
    def never(crystals):
        raise AssertionError("called")

    scored = Scorer(never, floor=0)(CrystalBatch.empty())
    assert scored.total.shape == scored.failures.shape == (0,)


def test_only_the_crystal_that_breaks_a_reward_gets_the_floor(batch):
    def breaks_on_oxides(crystals):
        if (crystals.A == 22).any():
            raise RuntimeError("no titanium")
        return crystals.L[:, 0]

    with pytest.warns(RuntimeWarning, match="RuntimeError: no titanium"):
        scored = Scorer(breaks_on_oxides, floor=-7)(batch)
    assert scored.total.tolist() == [5.64, -7.0, 3.25]
    assert scored.failures.tolist() == [None, "RuntimeError: no titanium", None]
    assert scored.success().tolist() == [True, False, True]


def test_each_kind_of_error_is_warned_of_once(batch, recwarn):
    def breaks(crystals):
        raise KeyError("missing")

    scorer = Scorer(breaks, floor=0)
    scorer(batch)
    scorer(batch)
    assert len(recwarn.list) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_become_the_floor(batch, value):
    scored = Scorer(lambda crystals: np.where(crystals.G == 221, value, 1.0), floor=-3)(batch)
    assert scored.total.tolist() == [1.0, -3.0, 1.0]
    assert scored.failures[1] == f"the reward is {value}"
    assert scored.failures[0] is None


def test_a_term_that_is_not_finite_fails_its_crystal(batch):
    scored = Scorer(lambda crystals: result([1, 2, 3], energy=[0.5, np.nan, 0.1], success=[1, 1, 0]), floor=-3)(batch)
    assert scored.terms["energy"].tolist() == [0.5, -3.0, 0.1]
    assert scored.total.tolist() == [1, -3, 3]
    assert scored.failures.tolist() == [None, "energy is nan", None]
    assert scored.success().tolist() == [True, False, False]


def test_a_reward_keeps_its_own_reason_for_a_total_of_nan(batch):
    def reward(crystals):
        reasons = np.array([None, "too dense", None], object)
        return RewardResult(np.array([1.0, np.nan, np.nan]), {}, reasons)

    scored = Scorer(reward, floor=-3)(batch)
    assert scored.failures.tolist() == [None, "too dense", "the reward is nan"]


def test_results_are_joined_in_order_and_lack_no_term():
    first, second = result([1, 2], energy=[0.5, 0.25]), result([3], success=[1])
    joined = RewardResult.concatenate([first, second], floor=-7, names=["volume"])
    assert joined.total.tolist() == [1, 2, 3]
    assert {name: values.tolist() for name, values in joined.terms.items()} == {
        "volume": [-7, -7, -7],
        "energy": [0.5, 0.25, -7],
        "success": [0, 0, 1],
    }
    assert joined.scored.tolist() == [True] * 3
    assert len(RewardResult.concatenate([], floor=0).total) == 0


def test_a_reward_of_the_wrong_length_is_called_crystal_by_crystal(batch):
    scored = Scorer(lambda crystals: crystals.L[:1, 0], floor=-3)(batch)
    assert scored.total.tolist() == batch.L[:, 0].tolist()


def test_a_reward_wrong_for_single_crystals_too_gets_the_floor(batch):
    with pytest.warns(RuntimeWarning, match=r"reward returned total of shape \(2,\) for 1 crystals"):
        scored = Scorer(lambda crystals: [1.0, 2.0], floor=-3)(batch)
    assert scored.total.tolist() == [-3.0] * 3


def test_terms_of_the_wrong_length_are_refused(batch):
    def wrong(crystals):
        return result(np.zeros(len(crystals)), energy=[1.0, 2.0])

    with pytest.warns(RuntimeWarning, match="reward returned energy of shape"):
        scored = Scorer(wrong, floor=-3)(batch)
    assert scored.total.tolist() == [-3.0] * 3


def test_the_names_of_the_terms_stay_the_same_once_known(batch):
    def fails_on_oxides(crystals):
        if (crystals.A == 22).any():
            raise RuntimeError
        return result(np.ones(len(crystals)), energy=np.zeros(len(crystals)))

    scorer = Scorer(fails_on_oxides, floor=-3)
    assert list(scorer(batch[:1]).terms) == ["energy"]
    with pytest.warns(RuntimeWarning):
        failed = scorer(batch[1:2])
    assert failed.terms["energy"].tolist() == [-3.0]
    assert list(scorer(CrystalBatch.empty()).terms) == ["energy"]


def test_order_does_not_matter(batch):
    order = np.array([2, 0, 1])
    scorer = Scorer(first_length, floor=0)
    assert scorer(batch[order]).total.tolist() == scorer(batch).total[order].tolist()


def test_the_term_success_decides_who_succeeded():
    scored = result([5.0, 5.0, 5.0], success=[1, 0, 1])
    scored.failures[2] = "broken"
    assert scored.success().tolist() == [True, False, False]


def test_info_of_one_crystal_holds_plain_numbers():
    info = result([1.0, 2.0], energy=[0.5, 0.25], success=[0, 1]).info(1)
    assert info == {"reward_terms": {"energy": 0.25, "success": 1.0}, "is_success": True, "reward_failure": None}
    assert type(info["is_success"]) is bool
    assert type(info["reward_terms"]["energy"]) is float


class OneRow(np.ndarray):
    """An array that gives single rows and nothing else."""

    def __getitem__(self, row):
        assert isinstance(row, int)
        return super().__getitem__(row)

    def __iter__(self):
        raise AssertionError("read as a whole")

    def __array_ufunc__(self, *args, **kwargs):
        raise AssertionError("read as a whole")


def test_info_of_one_crystal_reads_no_other():
    energy, success, failures = (np.array(values) for values in ([0.5, 0.25], [0.0, 1.0], [None, None]))
    whole = RewardResult(np.zeros(2), {"energy": energy, "success": success}, failures)
    guarded = RewardResult(
        np.zeros(2).view(OneRow),
        {name: values.view(OneRow) for name, values in whole.terms.items()},
        failures.view(OneRow),
    )
    assert [guarded.info(row)["is_success"] for row in range(2)] == [False, True]
    assert [guarded.info(row) for row in range(2)] == [whole.info(row) for row in range(2)]


def test_vector_info_spreads_over_the_sub_environments():
    info = result([1.0, 2.0], energy=[0.5, 0.25]).vector_info(np.array([3, 1]), num_envs=4)
    assert info["reward_terms"]["energy"].tolist() == [0.0, 0.25, 0.0, 0.5]
    assert info["is_success"].tolist() == [False, True, False, True]
    assert info["reward_failure"].tolist() == [None] * 4
    for mask in (info["_reward_terms"], info["_is_success"], info["_reward_failure"], info["reward_terms"]["_energy"]):
        assert mask.tolist() == [False, True, False, True]


def test_rewards_are_resolved_by_name_class_function_and_instance(batch):
    here = __name__
    lengths = batch.L[:, 0]
    assert resolve_reward(first_length) is first_length
    assert resolve_reward(f"{here}:first_length")(batch).tolist() == lengths.tolist()
    assert resolve_reward(f"{here}:scaled", {"factor": 2.0})(batch).tolist() == (2 * lengths).tolist()
    assert resolve_reward(f"{here}:Scaled", {"factor": 2.0})(batch).tolist() == (2 * lengths).tolist()
    assert resolve_reward(Scaled)(batch).tolist() == lengths.tolist()


@pytest.mark.parametrize(
    ("reward", "kwargs"),
    [
        (scaled, {"faktor": 2}),
        (Scaled, {"faktor": 2}),
        (Scaled(), {"faktor": 2}),
        (f"{__name__}:Scaled", {"faktor": 2}),
        (Scaled, ["factor"]),
        (scaled, 3),
    ],
)
def test_arguments_that_a_reward_does_not_take_are_refused(reward, kwargs):
    with pytest.raises(InputError, match=r"reward_kwargs .*(faktor|must be a dict)"):
        resolve_reward(reward, kwargs)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("rewards", "'module:attribute', got 'rewards'"),
        (":x", "'module:attribute'"),
        (".x:y", "'module:attribute'"),
        ("math.no_such_module:x", "cannot be imported"),
        ("x:", "'module:attribute'"),
        ("no_such_module:x", "'no_such_module:x' cannot be imported"),
        ("math:no_such_function", "cannot be imported"),
        ("math:pi", "reward must be callable"),
        (3, "reward must be callable, got 3"),
        (NotCallable, "instances of .* are not"),
    ],
)
def test_what_is_no_reward_is_refused(reward, message):
    with pytest.raises(ValueError, match=message):
        resolve_reward(reward)


def test_errors_inside_a_module_of_rewards_keep_their_traceback(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (("needs_another", "import no_such_package_at_all"), ("broken", "None.attribute")):
        (tmp_path / f"{name}.py").write_text(text)
        with pytest.raises((ModuleNotFoundError, AttributeError)) as caught:
            resolve_reward(f"{name}:reward")
        assert not isinstance(caught.value, InputError)


def test_numbers_that_are_none_give_the_floor_and_harm_no_later_batch(batch):
    def spells(crystals):
        words = np.array([crystal.formula for crystal in crystals])
        return RewardResult(np.ones(len(crystals)), {"formula": words}, np.full(len(crystals), None))

    scorer = Scorer(spells, floor=-3.0)
    with pytest.warns(RuntimeWarning, match="could not convert string"):
        result = scorer(batch)
    assert result.total.tolist() == [-3.0] * len(batch)
    assert result.terms == {}
    scorer.reward = lambda crystals: np.ones(len(crystals))
    assert scorer(batch).total.tolist() == [1.0] * len(batch)


def test_a_reward_may_change_its_batch_without_changing_the_crystals(batch):
    def vandal(crystals):
        crystals.A.fill(1)
        return np.ones(len(crystals))

    before = batch.A.copy()
    assert Scorer(vandal, floor=-1.0)(batch).total.tolist() == [1.0] * len(batch)
    assert np.array_equal(batch.A, before)


def test_a_failed_crystal_is_no_success_whatever_the_floor(batch):
    def only_salt(crystals):
        if any(crystal.formula != "NaCl" for crystal in crystals):
            raise ValueError("no salt")
        ones = np.ones(len(crystals))
        return RewardResult(ones, {"success": ones, "energy": ones}, np.full(len(crystals), None))

    with pytest.warns(RuntimeWarning, match="no salt"):
        result = Scorer(only_salt, floor=10.0)(batch)
    assert result.terms["success"].tolist() == [1.0, 0.0, 0.0]
    assert result.success().tolist() == [True, False, False]


class Memory:
    """A reward that remembers."""

    def __call__(self, crystals):
        return np.zeros(len(crystals))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        del state

    def score(self, crystals):
        return self(crystals)


class Holder:
    """A reward made of others, in several ways."""

    def __init__(self, *parts, **named):
        self.parts, self.named = parts, named

    def __call__(self, crystals):
        return np.zeros(len(crystals))


def test_stateful_parts_are_found_wherever_they_are_and_once():
    one, two, three = Memory(), Memory(), Memory()
    network = torch.nn.Linear(2, 2)
    whole = Holder(Scorer(one, 0.0), network, inner=Holder(two, text="x"), again=one, bound=three.score)
    found = stateful_parts(Scorer(whole, 0.0))
    assert found == {
        "reward.parts.0.reward": one,
        "reward.named.inner.parts.0": two,
        "reward.named.bound": three,
    }
    assert stateful_parts(lambda crystals: crystals) == {}


def test_a_reward_states_its_floor_as_a_finite_number():
    def with_floor(floor):
        reward = Scaled()
        reward.floor = floor
        return reward

    assert reward_floor(with_floor(-10)) == -10.0
    assert reward_floor(with_floor(np.float32(2.5))) == 2.5
    for other in (None, np.nan, -np.inf, "low", True, lambda: -1.0):
        assert reward_floor(with_floor(other)) is None
    assert reward_floor(first_length) is None

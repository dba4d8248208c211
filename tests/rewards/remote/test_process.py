import copy
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.reward import RewardResult
from rewards.remote.process import ProcessReward, serve
from rewards.validity import Validity

COMMON = """
import json, os, sys, time
def volume(request):
    a, b, c = request["cell"]
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return abs(sum(x * y for x, y in zip(cross, c))) / len(request["numbers"])
def reply(request, **others):
    print(json.dumps({"id": request["id"], "reward": volume(request), **others}), flush=True)
def requests():
    return (json.loads(line) for line in sys.stdin if line.strip())
"""


def program(tmp_path: Path, body: str) -> list[str]:
    """A program that knows nothing of this project."""
    path = tmp_path / "program.py"
    path.write_text(COMMON + textwrap.dedent(body))
    return [sys.executable, "-I", "-S", str(path)]


def volumes(crystals: CrystalBatch) -> np.ndarray:
    return np.array([atoms.get_volume() / len(atoms) for atoms in crystals.to_atoms()])


def is_gone(pid: int) -> bool:
    """Whether no process has the number, not even as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_program_that_knows_no_crystals_scores_their_cells(tmp_path, crystals):
    command = program(tmp_path, 'for r in requests(): reply(r, terms={"atoms": len(r["numbers"])})')
    with ProcessReward(command) as reward:
        for batch in (crystals, crystals[::-1]):
            result = reward(batch)
            np.testing.assert_allclose(result.total, volumes(batch), rtol=1e-12)
            assert result.terms["atoms"].tolist() == batch.n_atoms(primitive=True).tolist()
            assert list(result.failures) == [None] * 5


def test_requests_hold_the_crystal_in_all_its_forms(tmp_path, crystals):
    log = tmp_path / "log"
    command = program(
        tmp_path,
        f"""
        log = open({str(log)!r}, "w")
        for r in requests():
            print(json.dumps(r), file=log, flush=True)
            reply(r)
        """,
    )
    with ProcessReward(command) as reward:
        reward(crystals)
        reward(crystals[:1])
    requests = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({request["id"] for request in requests}) == 6
    for request, crystal in zip(requests, [*crystals, crystals[0]], strict=True):
        atoms = crystal.to_atoms()
        assert Crystal.from_string(request["crystal"]) == crystal
        assert request["numbers"] == atoms.numbers.tolist()
        assert request["positions"] == atoms.positions.tolist()
        assert request["cell"] == atoms.cell.array.tolist()


def test_batches_end_with_an_empty_line_and_replies_come_in_any_order(tmp_path, crystals):
    command = program(
        tmp_path,
        """
        waiting = []
        for line in sys.stdin:
            if line.strip():
                waiting.append(json.loads(line))
            else:
                for r in reversed(waiting): reply(r, terms={"together": len(waiting)})
                waiting = []
        """,
    )
    with ProcessReward(command, batch_size=3) as reward:
        result = reward(crystals)
    np.testing.assert_allclose(result.total, volumes(crystals), rtol=1e-12)
    assert result.terms["together"].tolist() == [3, 3, 3, 2, 2]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_crystal_that_takes_too_long_gets_the_floor(tmp_path, crystals, batch_size):
    command = program(
        tmp_path,
        """
        for r in requests():
            if 57 in r["numbers"]:
                print("lanthanum is hard", file=sys.stderr, flush=True)
                time.sleep(60)
            reply(r)
        """,
    )
    with ProcessReward(command, timeout=1.0, batch_size=batch_size, floor=-2.0) as reward:
        reward(crystals[:1])
        first = reward.pid()
        result = reward(crystals)
        assert is_gone(first)
    others = [0, 1, 2, 4]
    np.testing.assert_allclose(result.total[others], volumes(crystals)[others])
    assert list(result.failures[others]) == [None] * 4
    assert result.total[3] == -2.0
    assert result.failures[3] == "no reply in time; last line on standard error: lanthanum is hard"


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_crystals_at_which_the_program_ends_get_the_floor(tmp_path, crystals, batch_size):
    command = program(
        tmp_path,
        """
        for r in requests():
            if 57 in r["numbers"] or 22 in r["numbers"]:
                sys.exit("I cannot do this")
            reply(r)
        """,
    )
    with ProcessReward(command, batch_size=batch_size) as reward:
        result = reward(crystals)
    assert [row for row, failure in enumerate(result.failures) if failure is not None] == [1, 3]
    np.testing.assert_allclose(result.total[[0, 2, 4]], volumes(crystals)[[0, 2, 4]])
    ended = "the program ended with exit code 1; last line on standard error: I cannot do this"
    assert result.failures[1] == result.failures[3] == ended


def test_program_killed_from_outside_is_started_again(tmp_path, crystals):
    with ProcessReward(program(tmp_path, "for r in requests(): reply(r)")) as reward:
        reward(crystals)
        os.kill(reward.pid(), 9)
        result = reward(crystals)
    np.testing.assert_allclose(result.total, volumes(crystals))
    assert list(result.failures) == [None] * 5


def test_program_that_never_works_is_started_no_more_than_allowed(tmp_path, crystals):
    log = tmp_path / "starts"
    command = program(tmp_path, f'open({str(log)!r}, "a").write("x"); sys.exit("no licence")')
    with ProcessReward(command, restarts=2, floor=-2.0) as reward:
        result = reward(crystals)
    assert log.read_text() == "xxx"
    assert result.total.tolist() == [-2.0] * 5
    ended = "the program ended with exit code 1; last line on standard error: no licence"
    assert set(result.failures) == {f"the program failed 3 times in a row: {ended}"}


def test_other_lines_on_standard_output_are_ignored(tmp_path, crystals):
    command = program(
        tmp_path,
        r"""
        sys.stdout.buffer.write(b"hello \xff\n[1, 2]\n\n17\n" + b"[" * 5000 + b"\n")
        for r in requests():
            print(json.dumps({"id": r["id"] + 1000, "reward": 5.0}), json.dumps({"id": [r["id"]]}), sep="\n")
            reply(r)
            reply(r)
        """,
    )
    with ProcessReward(command) as reward:
        result = reward(crystals)
    np.testing.assert_allclose(result.total, volumes(crystals))


def test_program_that_only_talks_fails_with_what_it_said(tmp_path, crystals):
    command = program(tmp_path, 'while True: print("let me think", flush=True); time.sleep(0.01)')
    with ProcessReward(command, timeout=0.4, restarts=0) as reward:
        start = time.monotonic()
        result = reward(crystals[:1])
    assert time.monotonic() - start < 5
    assert "no reply in time; last line not understood: let me think" in result.failures[0]


@pytest.mark.parametrize(
    ("reply", "total", "reason"),
    [
        ('"reward": NaN', -2, "the reward is nan"),
        ('"reward": 1e999', -2, "the reward is inf"),
        ('"failure": "too big"', -2, "too big"),
        ('"reward": 4, "failure": "too big"', 4, "too big"),
        ('"reward": "4"', -2, "the reply is not understood"),
        ('"rewards": 4', -2, "the reply is not understood"),
        ('"reward": 1, "terms": [1]', -2, "the reply is not understood"),
        ('"reward": 1, "terms": {"a": "b"}', -2, "the reply is not understood"),
        (f'"reward": 1{"0" * 400}', -2, "the reply is not understood"),
    ],
)
def test_reply_without_a_proper_number_is_a_failure(tmp_path, crystals, reply, total, reason):
    body = f"""for r in requests(): print('{{"id": %d, {reply}}}' % r["id"], flush=True)"""
    with ProcessReward(program(tmp_path, body), floor=-2.0) as reward:
        result = reward(crystals[:1])
    assert result.total.tolist() == [total]
    assert result.failures[0].startswith(reason)


def test_a_term_that_is_not_finite_is_a_failure(tmp_path, crystals):
    command = program(
        tmp_path,
        """
        for r in requests():
            reply(r, terms={"a": float("nan"), "c": 5, "success": 1} if 11 in r["numbers"] else {"b": 2})
        """,
    )
    with ProcessReward(command, floor=-2.0) as reward:
        result = reward(crystals[:2])
    assert {name: values.tolist() for name, values in result.terms.items()} == {
        "a": [-2, -2], "c": [5, -2], "success": [0, 0], "b": [-2, 2]
    }  # fmt: skip
    assert result.failures.tolist() == ["a is nan", None]
    assert result.total[0] == -2.0


def test_crystal_without_finite_numbers_is_not_sent(tmp_path, crystals):
    crystals.L[1] = np.nan
    with ProcessReward(program(tmp_path, "for r in requests(): reply(r)")) as reward:
        result = reward(crystals)
    assert result.total[1] == -10.0
    assert result.failures[1] == "it has numbers that are not finite"
    np.testing.assert_allclose(result.total[[0, 2]], volumes(crystals[[0, 2]]))


def test_more_requests_than_a_pipe_can_hold_block_nothing(tmp_path, crystals):
    many = crystals[np.arange(1500) % 5]
    command = program(
        tmp_path,
        """
        print("x" * 300_000, file=sys.stderr)
        for r in requests(): reply(r, terms={"t" * 100: 1})
        """,
    )
    with ProcessReward(command, batch_size=1500, timeout=20) as reward:
        np.testing.assert_allclose(reward(many).total, volumes(many))


def test_no_process_is_left(tmp_path, crystals):
    command = program(tmp_path, "for r in requests(): reply(r)\nwhile True: time.sleep(1)")
    pids = []
    reward = ProcessReward(command)
    assert reward.pid() is None
    reward(crystals)
    pids.append(reward.pid())
    del reward
    deaf = program(tmp_path, "import signal; signal.signal(15, signal.SIG_IGN)\nfor r in requests(): reply(r)")
    with ProcessReward(deaf) as reward:
        reward(crystals)
        pids.append(reward.pid())
    assert reward.pid() is None
    assert [is_gone(pid) for pid in pids] == [True, True]


def test_what_the_program_has_started_ends_with_it(tmp_path, crystals):
    body = "for r in requests(): print(os.getpid(), file=sys.stderr, flush=True); reply(r, terms={'pid': os.getpid()})"
    inner = program(tmp_path, f"import signal; signal.signal(1, signal.SIG_IGN)\n{body}\ntime.sleep(60)")
    with ProcessReward(["sh", "-c", '"$@"; exit 0', "sh", *inner]) as reward:
        pid = int(reward(crystals[:1]).terms["pid"][0])
        assert pid != reward.pid()
    end = time.monotonic() + 5
    while not is_gone(pid) and time.monotonic() < end:
        time.sleep(0.01)  # orphans are buried by someone else
    assert is_gone(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda reward: pickle.loads(pickle.dumps(reward))])
def test_copy_has_a_program_of_its_own(tmp_path, crystals, duplicate):
    with ProcessReward(program(tmp_path, "for r in requests(): reply(r)")) as reward:
        reward(crystals)
        with duplicate(reward) as other:
            assert other.pid() is None
            np.testing.assert_allclose(other(crystals).total, volumes(crystals))
            assert other.pid() != reward.pid()


def test_served_reward_is_the_reward(crystals):
    command = [sys.executable, "-m", "rewards.remote.process", "rewards:Density", "--kwargs", '{"target": 2.0}']
    from rewards.density import Density

    with ProcessReward(command, batch_size=3) as reward:
        result = reward(crystals)
    expected = Density(target=2.0)(crystals)
    assert result.total.tolist() == expected.total.tolist()  # to the last bit
    assert {name: values.tolist() for name, values in result.terms.items()} == {
        name: values.tolist() for name, values in expected.terms.items()
    }


def test_server_answers_line_by_line(crystals, capsys):
    def sites(batch: CrystalBatch) -> RewardResult:
        print("I am printing")
        if (batch.A == 22).any():
            raise RuntimeError("titanium")
        total = batch.n_sites().astype(float)
        return RewardResult(total, {"twice": 2 * total}, np.full(len(batch), None, object))

    requests = [
        json.dumps({"id": 0, "crystal": str(crystals[0])}),
        json.dumps({"id": 1, "crystal": "no crystal"}),
        json.dumps({"id": 2, "crystal": str(crystals[1])}),
        "",
        "nonsense",
        json.dumps({"crystal": str(crystals[0])}),
        json.dumps({"id": 3, "crystal": str(crystals[3])}),
    ]
    stdout = io.StringIO()
    with pytest.warns(RuntimeWarning, match="titanium"):
        serve(sites, [line + "\n" for line in requests], stdout, floor=-2.0)
    replies = {reply["id"]: reply for reply in map(json.loads, stdout.getvalue().splitlines())}
    assert replies[0] == {"id": 0, "reward": 2.0, "terms": {"twice": 4.0}, "failure": None}
    assert replies[1]["failure"].startswith("ValueError: text form must be")
    assert replies[2]["failure"] == "RuntimeError: titanium"
    assert replies[3]["reward"] == 3.0
    assert len(replies) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "a line is no request: nonsense" in err
    assert "I am printing" in err


def test_server_ends_with_its_input_and_native_prints_are_no_replies(crystals):
    code = (
        "import os, numpy as np; import rewards.remote.process as p, sys;"
        "sys.modules['mine'] = p; p.noisy = lambda c: (os.write(1, b'native'), np.ones(len(c)))[1];"
        "p.main(['mine:noisy'])"
    )
    request = json.dumps({"id": 5, "crystal": str(crystals[0])}) + "\n"
    done = subprocess.run([sys.executable, "-c", code], input=request, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"id": 5, "reward": 1.0, "terms": {}, "failure": None}
    assert "native" in done.stderr


def test_nothing_is_started_for_no_crystals():
    reward = ProcessReward([sys.executable])
    assert len(reward([]).total) == 0
    assert reward.pid() is None


def test_command_may_be_a_string(crystals):
    with ProcessReward(f"'{sys.executable}' -m rewards.remote.process rewards:Validity", batch_size=5) as reward:
        assert reward(crystals).total.tolist() == Validity()(crystals).total.tolist()


def test_wrong_arguments_are_value_errors():
    for command in ("", [], "no-such-program --x"):
        with pytest.raises(ValueError, match="command must start with a program"):
            ProcessReward(command)
    for arguments in ({"timeout": 0}, {"restarts": -1}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            ProcessReward([sys.executable], **arguments)

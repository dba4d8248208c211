"""Facts beside numbers: commands that others can run, and digests of content."""

import pytest

from benchmarks.provenance import command, file_digest


def test_commands_name_no_folder_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSTALGEN_MODELS", "/mnt/models/")
    monkeypatch.setenv("CRYSTALGEN_DATA", "/mnt/data")
    monkeypatch.setenv("HOME", "/home/someone")
    words = ["--cross-check", "matgl:/mnt/models/M3GNet", "--reference", "/mnt/data/a.csv", "/mnt/data-2/b.csv"]
    words += ["--out", f"{tmp_path}/runs/x", "--hull", "/home/someone/hull.npz", "--agent-kwargs", '{"model": "./m"}']
    assert command("crystalgen", *words) == (
        "crystalgen --cross-check matgl:$CRYSTALGEN_MODELS/M3GNet --reference $CRYSTALGEN_DATA/a.csv /mnt/data-2/b.csv "
        '--out runs/x --hull ~/hull.npz --agent-kwargs \'{"model": "./m"}\''
    )


@pytest.mark.parametrize("value", [None, "", "/", "."])
def test_a_variable_that_names_no_folder_is_left_out(value, monkeypatch):
    monkeypatch.delenv("CRYSTALGEN_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("CRYSTALGEN_DATA", value)
    assert command("crystalgen", "evaluate", "/a/b.csv") == "crystalgen evaluate /a/b.csv"


def test_digest_of_a_folder_is_of_its_content(tmp_path):
    for name, content in (("one", "a"), ("two", "a"), ("three", "b")):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text(content)
    one, two, three = (file_digest(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three

"""The page of the environment follows its docstrings."""

from pathlib import Path

from crystal_env.build.docs import PAGE, page


def test_page_is_up_to_date():
    root = Path(__file__).resolve().parents[3]
    assert (root / PAGE).read_text() == page(), "run python -m crystal_env.build.docs"

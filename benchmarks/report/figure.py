"""A figure of the page: data and layout of plotly.js, with colours as names of the page's style."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BLUE, ORANGE, GREEN, RED = "var(--blue)", "var(--orange)", "var(--green)", "var(--red)"
INK, MUTED, FAINT, LINE = "var(--ink)", "var(--muted)", "var(--faint)", "var(--line)"


@dataclass(frozen=True)
class Figure:
    """A plotly figure in words of its JSON.

    Colours may be ``var(--NAME)``, a property of ``page.css``: the page inserts its value in light and dark.

    Attributes:
        name: id on the page.
        title: heading.
        caption: description, as plain text.
        data: traces.
        layout: without fonts, colours and margins, which are the same for all.
        height: in pixels.
    """

    name: str
    title: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 380


def rounded(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """Return numbers (N,) for JSON, with None for what is not finite."""
    array = np.asarray(values, np.float64)
    return [round(value, digits) if np.isfinite(value) else None for value in array.tolist()]


def rate_text(count: float, total: float) -> str:
    """Return a rate in words, such as ``"12 of 40 (30.0 %)"``."""
    return f"{count:,.0f} of {total:,.0f} ({100 * count / max(total, 1):.1f} %)"


def straight_line(axis: str, at: float, text: str, colour: str = ORANGE) -> dict[str, list[dict[str, Any]]]:
    """Return shapes and annotations of a dashed line across the figure at a value of the axis ``"x"`` or ``"y"``."""
    other = "y" if axis == "x" else "x"
    shape = {"type": "line", f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    place = {axis: at, other: 1, f"{other}ref": "paper", "showarrow": False, "text": text,
             "font": {"color": colour}, "bgcolor": "var(--veil)"}  # fmt: skip
    anchors = {"xanchor": "left", "yanchor": "top"} if axis == "x" else {"xanchor": "right", "yanchor": "bottom"}
    return {
        "shapes": [shape | {"line": {"color": colour, "width": 1.5, "dash": "dash"}}],
        "annotations": [place | anchors],
    }

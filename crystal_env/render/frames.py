"""Frames of `render`: the text form of a crystal under construction, or its picture."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crystal_env.crystal import Crystal
from crystal_env.elements import SYMBOLS
from crystal_env.grammar.state import CrystalStates
from crystal_env.render import picture
from crystal_env.text import number
from crystal_env.vocabulary import Phase
from crystal_env.wyckoff import LETTERS, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OPEN = "..."  # undecided parts


def text_frame(states: CrystalStates, row: int) -> str:
    """Return the text form of a crystal as far as it is decided."""
    crystal = states.crystals(np.array([row]))[0]
    if states.phase[row] == Phase.DONE:
        return str(crystal)
    parts = [str(crystal.G)] if crystal.G else []
    for index, letter in enumerate(crystal.W):
        parts.append(LETTERS[letter - 1])
        if crystal.A[index]:
            parts += [SYMBOLS[crystal.A[index]], *_coordinates(states, row, crystal, index)]
    if states.phase[row] >= Phase.A:
        decided = min(int(states.phase[row] - Phase.A), 6)
        parts += ["X", *(number(crystal.L[i]) for i in range(decided) if tables().free_lattice[crystal.G, i])]
    return "-".join([*parts, _OPEN])


def picture_frame(states: CrystalStates, row: int) -> NDArray[np.uint8]:
    """Return a picture (640, 640, 3): the unit cell of a finished crystal, else the decisions so far as text."""
    if states.phase[row] == Phase.DONE:
        return picture.rgb_array(states.crystals(np.array([row]))[0])
    phase = Phase(states.phase[row]).name.lower().replace("_", " ")
    group = f"space group {states.G[row]}" if states.G[row] else "no space group yet"
    crystal = states.crystals(np.array([row]))[0]
    sites = []
    for index, letter in enumerate(crystal.W):
        element = SYMBOLS[crystal.A[index]] if crystal.A[index] else "?"
        coordinates = " ".join(_coordinates(states, row, crystal, index)) if crystal.A[index] else ""
        sites.append(f"{LETTERS[letter - 1]}  {element:<2}  {coordinates}")
    return picture.rgb_array_progress([group, *sites, f"next: {phase}"])


class Window:
    """A window that shows pictures; without a display it renders off screen."""

    def __init__(self) -> None:
        from matplotlib import pyplot

        self._figure: Figure = pyplot.figure(figsize=(6.4, 6.4))
        self._axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show a picture (H, W, 3)."""
        self._axes.clear()
        self._axes.axis("off")
        self._axes.imshow(picture)
        manager: Any = self._figure.canvas.manager
        if self._figure.canvas.required_interactive_framework:
            manager.show()
            self._figure.canvas.draw()
            self._figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window."""
        from matplotlib import pyplot

        pyplot.close(self._figure)


def _coordinates(states: CrystalStates, row: int, crystal: Crystal, site: int) -> list[str]:
    """Return the coordinates of a site; those of the site under construction as far as they are decided."""
    xyz = crystal.XYZ[site]
    if site < states.site[row]:
        return [number(x) for x in xyz]
    decided = int(states.phase[row] - Phase.X)
    free = tables().free_coordinates[crystal.G, crystal.W[site]]
    return [number(xyz[i]) if i < decided and free[i] else _OPEN for i in range(3)]

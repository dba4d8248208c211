"""Pictures: the conventional cell of a crystal in perspective, and the decisions of an unfinished one as text.

Figures are drawn on matplotlib's Agg canvas, independent of the state of pyplot.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crystal_env import geometry
from crystal_env.crystal import Crystal
from crystal_env.elements import SYMBOLS, covalent_radii
from crystal_env.errors import InputError
from crystal_env.render.bonding import (
    Atoms,
    atoms_around_cell,
    find_bonds,
    find_neighbours,
    find_polyhedra,
)
from crystal_env.wyckoff import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AZIMUTH, _ELEVATION = np.radians(24), np.radians(14)  # of the viewer: a comes forward, b goes right, c goes up
_PERSPECTIVE = 7.0  # distance of the viewer in units of the scene's radius
_ATOM_SCALE = 0.42  # radius of the drawn atom over its covalent radius
_MAX_SHAPES = 3_000
_LABELS = ("a", "b", "c", r"$\alpha$", r"$\beta$", r"$\gamma$")
_AXIS_COLOURS = ("#c0392b", "#27864a", "#2c5fa8")
_CELL_COLOUR = (0.25, 0.25, 0.25, 1.0)
_INK = "#333333"

_Colour = tuple[float, float, float]


class _Shapes:
    """Filled polygons with an outline, painted from back to front."""

    def __init__(self) -> None:
        self.polygons: list[NDArray[np.float64]] = []
        self.depth: list[float] = []
        self.faces: list[tuple[float, ...]] = []
        self.edges: list[tuple[float, ...]] = []
        self.widths: list[float] = []

    def add(
        self,
        polygon: NDArray[np.float64],
        depth: float,
        face: tuple[float, ...],
        edge: tuple[float, ...] = (0, 0, 0, 0),
        width: float = 0.0,
    ) -> None:
        self.polygons.append(polygon)
        self.depth.append(depth)
        self.faces.append(face)
        self.edges.append(edge)
        self.widths.append(width)

    def paint(self, axes: "Axes") -> None:
        from matplotlib.collections import PolyCollection

        order = np.argsort(self.depth, kind="stable")
        axes.add_collection(
            PolyCollection(
                [self.polygons[i] for i in order],
                facecolors=[self.faces[i] for i in order],
                edgecolors=[self.edges[i] for i in order],
                linewidths=[self.widths[i] for i in order],
                joinstyle="round",
            )
        )


class _View:
    """The perspective: points (..., 3) in Å become points on the page (..., 2), and depths towards the viewer."""

    def __init__(self, lattice: NDArray[np.float64]) -> None:
        forward = [np.cos(_ELEVATION) * np.cos(_AZIMUTH), np.cos(_ELEVATION) * np.sin(_AZIMUTH), np.sin(_ELEVATION)]
        right = [-np.sin(_AZIMUTH), np.cos(_AZIMUTH), 0.0]
        self.axes = np.array([right, np.cross(forward, right), forward])
        self.centre = lattice.sum(0) / 2
        corners = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3) @ lattice
        self.radius = float(np.linalg.norm(corners - self.centre, axis=1).max())

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        seen = (points - self.centre) @ self.axes.T
        return seen[..., :2] * self.magnification(seen[..., 2])[..., None], seen[..., 2]

    def magnification(self, depth: NDArray[np.float64]) -> NDArray[np.float64]:
        distance = _PERSPECTIVE * self.radius
        return distance / np.maximum(distance - depth, 0.2 * distance)


def rgb_array(crystal: Crystal, size: tuple[int, int] = (640, 640)) -> NDArray[np.uint8]:
    """Draw a crystal.

    Args:
        crystal: the crystal to draw.
        size: height and width in pixels.

    Returns:
        The picture (height, width, 3).
    """
    figure = _figure(size)
    draw_on(figure.add_axes((0, 0, 1, 1)), crystal)
    return _pixels(figure)


def save(crystal: Crystal, path: str | Path, size: tuple[int, int] = (1280, 1280)) -> None:
    """Draw a crystal into a file; the suffix decides the format (png, pdf, svg ...)."""
    figure = _figure(size)
    draw_on(figure.add_axes((0, 0, 1, 1)), crystal)
    figure.savefig(path, dpi=figure.dpi)


def rgb_array_progress(lines: "Sequence[str]", size: tuple[int, int] = (640, 640)) -> NDArray[np.uint8]:
    """Draw lines of text, such as the sites of a crystal that has no lattice yet.

    Args:
        lines: the first is the heading; long texts are set in smaller type.
        size: height and width in pixels.

    Returns:
        The picture (height, width, 3).
    """
    figure = _figure(size)
    heading, *body = lines or [""]
    width, height = figure.get_size_inches() * 72  # points
    longest = max((len(line) for line in body), default=1)
    type_size = min(15.0, 0.9 * width / (0.62 * max(longest, 1)), 0.8 * height / (1.5 * max(len(body), 1)))
    figure.text(0.05, 0.94, heading, size=min(18.0, 0.9 * width / (0.62 * max(len(heading), 1))), va="top", color=_INK,
                weight="bold", parse_math=False)  # fmt: skip
    for row, line in enumerate(body):
        y = 0.85 - row * 1.5 * type_size / height
        figure.text(0.05, y, line, size=type_size, va="top", color=_INK, family="monospace", parse_math=False)
    return _pixels(figure)


def draw_on(axes: "Axes", crystal: Crystal) -> None:
    """Draw a crystal on matplotlib axes: atoms, bonds, coordination polyhedra, cell, legend and title."""
    lattice = geometry.lattice_vectors(crystal.L[None])[0]
    view, atoms = _View(lattice), atoms_around_cell(crystal, lattice)
    neighbours = find_neighbours(atoms)
    shown = atoms.core.copy()
    shapes = _Shapes()
    for centre, ligands in find_polyhedra(atoms, neighbours):
        shown[ligands] = True
        _add_polyhedron(shapes, view, atoms, centre, ligands)
    _add_cell(shapes, view, lattice, atoms, np.flatnonzero(shown))
    for first, second in find_bonds(atoms, neighbours, shown):
        _add_bond(shapes, view, atoms, first, second)
    _add_atoms(shapes, view, atoms, np.flatnonzero(shown))
    shapes.paint(axes)
    _frame(axes, shapes)
    _add_triad(axes, view, lattice)
    _add_legend(axes, crystal)
    axes.text(0.5, 0.975, _title(crystal), transform=axes.transAxes, ha="center", va="top", size=17, color=_INK)
    axes.text(0.5, 0.915, _cell_text(crystal), transform=axes.transAxes, ha="center", va="top", size=11, color=_INK)


def _figure(size: tuple[int, int]) -> "Figure":
    from matplotlib.figure import Figure

    height, width = size
    if min(size) < 32:
        raise InputError(f"size must be a height and width of at least 32 pixels, got {size}")
    dpi = min(size) / 6.4  # type grows with the picture
    return Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")


def _pixels(figure: "Figure") -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _colour(number: int) -> _Colour:
    from ase.data.colors import jmol_colors

    red, green, blue = jmol_colors[min(number, len(jmol_colors) - 1)].tolist()  # the table ends before Og
    return red, green, blue


def _disc(centre: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    return centre + radius * np.stack([np.cos(angle), np.sin(angle)], -1)


def _mixed(colour: _Colour, other: float, fraction: float) -> _Colour:
    """Mix a colour with white (``other`` 1) or black (0)."""
    red, green, blue = ((1 - fraction) * c + fraction * other for c in colour)
    return red, green, blue


def _add_atoms(shapes: _Shapes, view: _View, atoms: Atoms, which: NDArray[np.int64]) -> None:
    """Paint every atom as discs that grow lighter towards the lamp, upper left."""
    centres, depth = view.project(atoms.positions[which])
    radii = _ATOM_SCALE * covalent_radii()[atoms.numbers[which]]
    drawn = radii * view.magnification(depth)
    layers = int(np.clip(_MAX_SHAPES // max(len(which), 1), 1, 16))
    for number, centre, z, radius in zip(atoms.numbers[which], centres, depth, drawn, strict=True):
        colour = _colour(int(number))
        outline = (*_mixed(colour, 0, 0.65), 1.0)
        shapes.add(_disc(centre, radius), z, (*_mixed(colour, 0, 0.22), 1.0), outline, 0.7)
        for layer in range(1, layers):
            t = layer / layers
            lit = _mixed(_mixed(colour, 0, 0.22 * (1 - t)), 1, 0.75 * t**3)
            shapes.add(_disc(centre + 0.36 * t * radius * np.array([-1, 1]), radius * (1 - t) ** 0.8), z, (*lit, 1.0))


def _add_bond(shapes: _Shapes, view: _View, atoms: Atoms, first: int, second: int) -> None:
    """Paint a stick in two halves, each in the colour of its atom."""
    start, end = atoms.positions[first], atoms.positions[second]
    length = max(float(np.linalg.norm(end - start)), 1e-9)
    trim = 0.8 * _ATOM_SCALE * covalent_radii()[atoms.numbers[[first, second]]] / length
    points = start + np.array([min(trim[0], 0.5), 0.5, 1 - min(trim[1], 0.5)])[:, None] * (end - start)
    page, depth = view.project(points)
    along = page[2] - page[0]
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9)
    half = 0.09 * view.magnification(depth)[:, None] * across
    for piece, atom in enumerate((first, second)):
        quad = np.array([page[piece] + half[piece], page[piece + 1] + half[piece + 1],
                         page[piece + 1] - half[piece + 1], page[piece] - half[piece]])  # fmt: skip
        colour = _mixed(_colour(int(atoms.numbers[atom])), 0, 0.08)
        shapes.add(quad, float(depth[piece : piece + 2].mean()), (*colour, 1.0), (*_mixed(colour, 0, 0.55), 1.0), 0.5)


def _add_polyhedron(shapes: _Shapes, view: _View, atoms: Atoms, centre: int, ligands: list[int]) -> None:
    """Paint the faces of the convex hull of the ligands, unless these lie in a plane."""
    from scipy.spatial import ConvexHull, QhullError

    corners = atoms.positions[ligands]
    try:
        hull = ConvexHull(corners)
    except QhullError:
        return
    colour = _colour(int(atoms.numbers[centre]))
    for plane in np.unique(np.round(hull.equations, 3), axis=0):
        on_face = corners[np.abs(corners @ plane[:3] + plane[3]) < 0.02]
        middle = on_face.mean(0)
        u = on_face[0] - middle
        angle = np.arctan2((on_face - middle) @ np.cross(plane[:3], u), (on_face - middle) @ u)
        polygon, depth = view.project(on_face[angle.argsort()])
        light = 0.35 * float(plane[:3] @ (view.axes[2] + view.axes[1] - view.axes[0])) / np.sqrt(3)
        face = _mixed(colour, 1, 0.25 + max(light, 0)) if light > 0 else _mixed(colour, 0, -0.3 * light)
        shapes.add(polygon, float(depth.mean()), (*face, 0.30), (*_mixed(colour, 0, 0.25), 0.55), 0.8)


def _add_cell(
    shapes: _Shapes, view: _View, lattice: NDArray[np.float64], atoms: Atoms, which: NDArray[np.int64]
) -> None:
    """Paint the twelve edges piece by piece, leaving out what is inside an atom."""
    radii = _ATOM_SCALE * covalent_radii()[atoms.numbers[which]]
    steps = np.linspace(0, 1, 25)[:, None]
    for axis in range(3):
        for corner in np.ndindex(2, 2):
            edge = (np.insert(np.array(corner, float), axis, 0.0) + steps * np.eye(3)[axis]) @ lattice
            middle = (edge[1:] + edge[:-1]) / 2
            inside = np.linalg.norm(middle[:, None] - atoms.positions[which], axis=2) < 0.9 * radii
            page, depth = view.project(edge)
            for k in np.flatnonzero(~inside.any(1)):
                shapes.add(page[k : k + 2], float(depth[k : k + 2].min()) - 0.1, (0, 0, 0, 0), _CELL_COLOUR, 0.9)


def _frame(axes: "Axes", shapes: _Shapes) -> None:
    """Fit what was drawn into the middle of the axes, with room for the title above and the legend below."""
    points = np.concatenate(shapes.polygons)
    low, high = points.min(0), points.max(0)
    box = axes.get_window_extent()
    per_pixel = max((high[0] - low[0]) / (0.90 * box.width), (high[1] - low[1]) / (0.72 * box.height))
    middle = (low + high) / 2
    axes.set_xlim(middle[0] - per_pixel * box.width * 0.5, middle[0] + per_pixel * box.width * 0.5)
    axes.set_ylim(middle[1] - per_pixel * box.height * 0.48, middle[1] + per_pixel * box.height * 0.52)
    axes.set_axis_off()


def _add_triad(axes: "Axes", view: _View, lattice: NDArray[np.float64]) -> None:
    """Draw the directions of a, b and c in the lower left corner."""
    box = axes.get_window_extent()
    directions = (lattice / np.linalg.norm(lattice, axis=1, keepdims=True)) @ view.axes.T
    reach = 0.075 * min(box.width, box.height) / np.array([box.width, box.height])
    origin = np.array([0.03, 0.05]) + reach * [0.6, 0.4]
    for i in np.argsort(directions[:, 2]):
        colour, step = _AXIS_COLOURS[i], directions[i, :2] * reach
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tuple(origin + step), tuple(origin), "axes fraction", "axes fraction", arrowprops=arrow)
        x, y = origin + 1.3 * step
        axes.text(x, y, _LABELS[i], transform=axes.transAxes, ha="center", va="center", size=12, style="italic",
                  color=colour)  # fmt: skip


def _add_legend(axes: "Axes", crystal: Crystal) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for number in dict.fromkeys(crystal.A.tolist()):
        colour, radius = _colour(number), float(covalent_radii()[number])
        handles.append(Line2D([], [], linestyle="none", marker="o", markersize=7 + 4 * radius, markerfacecolor=colour,
                              markeredgecolor=_mixed(colour, 0, 0.65), label=SYMBOLS[number]))  # fmt: skip
    axes.legend(handles=handles, loc="lower right", ncols=min(len(handles), 7), frameon=False, fontsize=13,
                handletextpad=0.1, columnspacing=1.0, borderaxespad=0.8, labelcolor=_INK)  # fmt: skip


def _title(crystal: Crystal) -> str:
    import re

    from moyopy import SpaceGroupType

    formula = re.sub(r"(\d+)", r"$_{\1}$", crystal.formula)
    symbol = SpaceGroupType(crystal.G).hm_short.replace(" ", "")
    symbol = re.sub(r"-(\d)", r"\\overline{\1}", symbol)
    symbol = re.sub(r"([A-Za-z]+)", lambda m: m[0] if m[0] == "overline" else rf"\mathit{{{m[0]}}}", symbol)
    return rf"{formula}    ${symbol}$ ({crystal.G})"


def _cell_text(crystal: Crystal) -> str:
    """Return the free lattice parameters, such as ``a = 5.640 Å``."""
    free = tables().free_lattice[crystal.G]
    units = (" Å", "°")
    parts = [f"$ {_LABELS[i]} $ = {crystal.L[i]:.{3 - i // 3}f}{units[i // 3]}" for i in np.flatnonzero(free)]
    return "   ".join(parts).replace("$ $", "$")

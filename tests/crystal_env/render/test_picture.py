import io
import time

import matplotlib as mpl
import numpy as np
import pytest
from ase.data.colors import jmol_colors
from matplotlib.figure import Figure

from crystal_env.crystal import Crystal
from crystal_env.render import picture

AWKWARD = {
    "one atom": "229-a-Fe-0-0-0-X-2.87-2.87-2.87-90-90-90",
    "hundreds of atoms": "225-l-La-0.1-0.2-0.33-l-O-0.15-0.4-0.3-l-H-0.05-0.12-0.2-X-15-15-15-90-90-90",
    "very dense": "229-l-Cs-0.1-0.2-0.33-l-O-0.15-0.4-0.3-X-1.5-1.5-1.5-90-90-90",
    "tiny": "1-a-Cs-0.1-0.2-0.33-X-0.5-0.5-0.5-90-90-90",
    "huge": "1-a-La-0.1-0.2-0.33-a-O-0.15-0.4-0.3-X-90-80-120-90-100-90",
    "flat": "1-a-Cs-0.1-0.2-0.33-X-5-5-50-20-30-45",
    "planar coordination": "123-a-Pt-0-0-0-f-O-0-1/2-0-X-4-4-5-90-90-90",
    "noble gas and superheavy": "225-a-He-0-0-0-b-Og-1/2-1/2-1/2-X-5-5-5-90-90-90",
    "twenty elements": "1-" + "-".join(f"a-{e}-0.{k}-0.{k}1-0.{99 - k}" for k, e in enumerate(
        "H Li Be B C N O F Na Mg Al Si P S Cl K Ca Sc Ti V".split(), 10)) + "-X-9-8-7-80-85-95",
}  # fmt: skip


def has_colour(image: np.ndarray, number: int) -> bool:
    """Whether some pixels have the hue of an element, between its shade and its highlight."""
    colour = 255 * 0.85 * jmol_colors[number]
    return bool((np.abs(image - colour).max(-1) < 40).sum() > 50)


def test_a_picture_is_an_array_of_the_given_size(perovskite):
    for size in ((640, 640), (300, 500), (64, 48)):
        image = picture.rgb_array(perovskite, size)
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8
        assert image.flags.writeable


def test_elements_are_seen_in_their_colours(rock_salt):
    image = picture.rgb_array(rock_salt).astype(float)
    assert has_colour(image, 11)
    assert has_colour(image, 17)
    assert not has_colour(image, 8)


def test_pictures_do_not_depend_on_what_was_drawn_before(rock_salt, perovskite):
    first = picture.rgb_array(rock_salt)
    picture.rgb_array(perovskite)
    assert np.array_equal(picture.rgb_array(rock_salt), first)


def test_the_margin_stays_white(rock_salt):
    image = picture.rgb_array(rock_salt)
    for edge in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
        assert (edge == 255).all()


@pytest.mark.parametrize("name", AWKWARD)
def test_any_crystal_can_be_drawn_in_little_time(name):
    crystal = Crystal.from_string(AWKWARD[name])
    start = time.perf_counter()
    image = picture.rgb_array(crystal, (320, 320))
    assert time.perf_counter() - start < 10  # a bound on the work, generous for a busy machine
    assert (image != 255).any()


def test_real_crystals_can_be_drawn(mp20):
    for crystal in mp20[:300:30]:
        picture.rgb_array(crystal, (160, 160))


def test_the_title_names_formula_group_and_cell(perovskite, wurtzite):
    axes = Figure().add_axes((0, 0, 1, 1))
    picture.draw_on(axes, perovskite)
    shown = " ".join(text.get_text() for text in axes.texts)
    assert "SrTiO$_{3}$" in shown
    assert "(221)" in shown
    assert "3.905 Å" in shown
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Sr", "Ti", "O"]
    assert "5.210 Å" in picture._cell_text(wurtzite)


def test_every_space_group_symbol_can_be_typeset(random_crystal):
    figure = Figure()
    rng = np.random.default_rng(0)
    for row, G in enumerate(range(1, 231)):
        figure.text(0, row / 231, picture._title(random_crystal(G, rng)))
    figure.savefig(io.BytesIO(), format="png")


def test_nothing_global_of_matplotlib_changes(rock_salt):
    import matplotlib.pyplot as plt

    backend, figures, before = mpl.get_backend(), plt.get_fignums(), mpl.rcParams.copy()
    picture.rgb_array(rock_salt)
    picture.rgb_array_progress(["225", "a Na 0 0 0"])
    assert mpl.rcParams == before
    assert plt.get_fignums() == figures
    assert mpl.get_backend() == backend


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_pictures_are_saved_in_the_format_of_the_suffix(rock_salt, tmp_path, suffix):
    path = tmp_path / f"rock_salt.{suffix}"
    picture.save(rock_salt, path, (320, 320))
    assert path.read_bytes()[:4] in (b"\x89PNG", b"%PDF", b"<?xm")


def test_progress_shows_the_lines_it_is_given():
    few = picture.rgb_array_progress(["225 F m -3 m", "a  La  0 0 0"])
    more = picture.rgb_array_progress(["225 F m -3 m", "a  La  0 0 0", "c  H  1/4 1/4 1/4"])
    assert few.shape == more.shape == (640, 640, 3)
    assert (more != 255).sum() > (few != 255).sum()


@pytest.mark.parametrize("lines", [[], [""], ["$x_", "a $ b"], ["h" * 90, *["x" * 90] * 40]])
def test_progress_fits_any_text_into_the_picture(lines):
    image = picture.rgb_array_progress(lines, (500, 400))
    assert image.shape == (500, 400, 3)
    assert (image[:, -3:] == 255).all()
    assert (image[-3:] == 255).all()


def test_pictures_without_room_are_refused(rock_salt):
    with pytest.raises(ValueError, match="at least 32 pixels"):
        picture.rgb_array(rock_salt, (640, 0))

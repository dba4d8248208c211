"""Frames of the environment: the text form so far, or a picture."""

import gymnasium as gym
import numpy as np

from crystal_env import Crystal
from crystal_env.grammar.constraints import constraints
from crystal_env.grammar.feasibility import compile_grammar
from crystal_env.grammar.state import CrystalStates
from crystal_env.render import frames
from crystal_env.vocabulary import Vocabulary

SALT = Crystal.from_string("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90")


def test_text_frames_follow_the_episode():
    env = gym.make("CrystalGen-v0", reward=None, space_group=225, render_mode="ansi")
    env.reset()
    shown = [env.render()]
    for action in SALT.to_actions():
        *_, info = env.step(action)
        shown.append(env.render())
    assert shown[:4] == ["225-...", "225-a-...", "225-a-Na-0-0-0-...", "225-a-Na-0-0-0-b-..."]
    assert shown[-2] == "225-a-Na-0-0-0-b-Cl-0.5-0.5-0.5-X-..."
    assert shown[-1] == str(info["crystal"])


def test_picture_frames_show_the_decisions_and_then_the_cell():
    env = gym.make("CrystalGen-v0", reward=None, space_group=225, render_mode="rgb_array")
    env.reset()
    first = env.render()
    for action in SALT.to_actions():
        env.step(action)
    last = env.render()
    for picture in (first, last):
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.std() > 0
    assert not np.array_equal(first, last)


def texts(string, vocabulary=None):
    """Return the text frames on the way to a crystal."""
    crystal, vocabulary = Crystal.from_string(string), vocabulary or Vocabulary()
    states, row = CrystalStates(1, vocabulary), np.array([0])
    choice = "agent" if vocabulary.chooses_group else crystal.G
    group = np.array([0 if vocabulary.chooses_group else crystal.G])
    states.reset(row, compile_grammar(constraints(space_group=choice)), group)
    shown = [frames.text_frame(states, 0)]
    for token in crystal.to_actions(vocabulary):
        assert states.step(row, np.array([token])).all()
        shown.append(frames.text_frame(states, 0))
    return shown


def test_every_frame_of_text_is_the_start_of_the_text_form():
    shown = texts("14-e-Fe-0.25-0.5-0.75-e-O-1/3-0.25-0.5-X-5.1-6.2-7.3-90-100-90", Vocabulary(48))
    assert shown[:7] == [
        "14-...",
        "14-e-...",
        "14-e-Fe-...-...-...-...",
        "14-e-Fe-0.25-...-...-...",
        "14-e-Fe-0.25-0.5-...-...",
        "14-e-Fe-0.25-0.5-0.75-...",
        "14-e-Fe-0.25-0.5-0.75-e-...",
    ]
    assert str(Crystal.from_string(shown[-1])) == shown[-1]
    for frame in shown[5:-1]:
        decided = frame.split("-X-")[0].split("-...")[0]
        assert shown[-1].startswith(decided)


def test_a_group_that_is_not_chosen_is_open():
    shown = texts("225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90", Vocabulary(48, chooses_group=True))
    assert shown[:3] == ["...", "225-...", "225-a-..."]


def test_a_window_shows_pictures_without_a_display():
    import matplotlib.pyplot as plt

    before, window = plt.get_fignums(), frames.Window()
    window.show(np.zeros((8, 8, 3), np.uint8))
    window.show(np.full((8, 8, 3), 255, np.uint8))
    assert len(plt.get_fignums()) == len(before) + 1
    window.close()
    assert plt.get_fignums() == before

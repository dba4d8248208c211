"""``CrystalGen-v0``: one crystal, decision by decision."""

from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from crystal_env.episodes import EpisodeOptions, Episodes, Outcome, ShowsEpisodes, check_actions
from crystal_env.errors import InputError

_ROW = np.zeros(1, np.int64)


class CrystalGenEnv(ShowsEpisodes, gym.Env):
    """A crystal is written down token by token and scored when it is complete.

    ## Description

    The agent builds a crystal as a materials scientist writes it: a space group (drawn by the environment or chosen by
    the agent), then for every symmetry-inequivalent site a Wyckoff letter, an element and the free fractional
    coordinates, then STOP, then the free lattice parameters. Only real decisions are asked for: what follows by
    symmetry is filled in. Action masks enforce crystallography and all constraints, exactly: an allowed action never
    leads to a dead end, and no crystal that meets the constraints is out of reach.

    ## Action space

    `Discrete(V)` with one real decision a step; `V = 146 + bins`, 1,106 by default:

    | id | meaning |
    |---|---|
    | 0 | STOP: no more sites |
    | 1 ... 27 | Wyckoff letters a ... z, A |
    | 28 ... 145 | elements H ... Og: id = 27 + atomic number |
    | 146 ... 145 + bins | bin b = id - 146 of the number that the phase asks for |
    | 146 + bins ... 375 + bins | space groups 1 ... 230, only with `space_group="agent"` |

    A fractional coordinate is b / bins; a cell length is n^(1/3) · 0.7 Å · (40 / 0.7)^((b + 1/2) / bins), with n atoms
    in the conventional cell; a cell angle is 30° + 120° · b / bins. `action_masks()` and `info["action_mask"]` tell
    which ids are allowed.

    With `action_mode="continuous"` the space is `Box([0, 0], [145, 1])`: the id of a symbol, rounded, and a number u in
    [0, 1] that takes the place of b / bins (or (b + 1/2) / bins). In a numeric phase the id is ignored, in the others
    the number is. `value_bounds()` gives the allowed interval of u.

    ## Observation space

    `Box` of `int32`, one-dimensional, length 109 (110 with `space_group="agent"`): space group (0 until it is chosen),
    phase, then id + 1 of every decision so far, then 0. The whole prefix is there, so the state is Markov for given
    constraints. Phases: 0 space group, 1 letter, 2 element, 3 ... 5 coordinates x, y, z, 6 ... 8 lengths a, b, c,
    9 ... 11 angles alpha, beta, gamma, 12 finished. In continuous mode the box is of `float32` and holds the numbers u
    themselves.

    ## Rewards

    0 until the crystal is complete, then what `reward` says. An action that is not allowed gives `invalid_reward`; so
    does a crystal whose reward raises an error or is not finite, and `info["reward_failure"]` then says why.

    ## Starting state

    A space group and no sites. The group is drawn from `space_group` with the environment's own generator.

    ## Episode end

    `terminated` after the last lattice parameter, at most 107 decisions (108 with the choice of the group), or at an
    action that is not allowed; never `truncated`. The last info holds

    | key | value |
    |---|---|
    | `invalid_action` | bool |
    | `is_success` | bool, by the reward's own criterion; absent if `reward` is None |
    | `crystal` | the `crystal_env.Crystal`; absent after an invalid action |
    | `reward_terms` | dict of floats, what the reward is made of, always the same keys; only for a scored `crystal` |
    | `reward_failure` | None, or why the crystal could not be scored; only with `reward_terms` |

    ## Arguments

    All constraints can also be given for one episode, as `reset(options={...})`.

    - `reward`: a callable from a batch of crystals to scores, or `"module:attribute"`, resolved when first needed;
      None leaves crystals unscored. `reward_kwargs` go to it.
    - `action_mode`: `"discrete"` or `"continuous"`.
    - `bins`: numeric bins, a multiple of 24.
    - `invalid_action`: `"terminate"` ends the episode, `"raise"` raises a ValueError and changes nothing.
    - `invalid_reward`: the reward of an action that is not allowed and of a crystal that cannot be scored. An explicit
      number wins. By default it is -1, or the lowest total that the reward can give (its attribute `floor`) if that is
      lower, so that breaking the rules never pays more than the worst crystal; a reward that is named by a string is
      asked when its floor is first needed.
    - `mask_in_info`: put the mask into every info.
    - `render_mode`: `"ansi"`, `"rgb_array"` or `"human"`.
    - `space_group`: a number, a list of numbers, 230 weights, `"mp20"` (their frequencies in MP-20) or `"agent"`.
    - `elements`, `exclude_radioactive`: which elements may be used; `required_elements`: which must be.
    - `formula`: the composition up to a multiple, for crystal structure prediction.
    - `max_sites`: inequivalent sites, up to 20; `max_atoms`: atoms of the primitive cell.
    - `site_elements`: the elements that the first, second ... site may hold; `tied_sites`: groups of sites that hold
      the same element; `wyckoff_letters`: the letters of all sites.

    ## Version history

    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array", "human"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        *,
        mask_in_info: bool = True,
        render_mode: str | None = None,
        **options: Unpack[EpisodeOptions],
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InputError(f"render_mode must be None or in {self.metadata['render_modes']}, got {render_mode!r}")
        self.render_mode = render_mode
        self.mask_in_info = mask_in_info
        self._episodes = Episodes(1, **options)
        self.action_space = self._episodes.action_space
        self.observation_space = self._episodes.observation_space
        self._window: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start a new crystal.

        Args:
            seed: of the generator that draws the space group.
            options: constraints of this episode, instead of the ones of the same name that the environment has.

        Raises:
            ValueError: if an option is unknown or malformed, or no crystal meets the constraints.
        """
        grammar = self._episodes.grammar_for(options)
        super().reset(seed=seed)
        self._episodes.start(_ROW, [self.np_random], grammar)
        self._show()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Take one decision.

        Raises:
            ValueError: if the action has the wrong dtype or shape, or is not allowed under ``invalid_action="raise"``.
            gymnasium.error.ResetNeeded: if the episode has ended.
        """
        outcome = self._episodes.play(_ROW, check_actions(action, self.action_space, None))
        ended = bool(outcome.ended[0])
        info = self._info()
        if ended:
            info.update(_end_info(outcome))
        self._show()
        return self._observation(), float(outcome.rewards[0]), ended, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which ids are allowed now (V,)."""
        return self._episodes.states.masks[0].copy()

    def value_bounds(self) -> tuple[float, float]:
        """Return the interval that the number u of the next action must be in (continuous mode)."""
        return self._episodes.states.normalised_bounds(0)

    def render(self) -> Any:
        """Return the text form so far ("ansi") or a picture (H, W, 3) ("rgb_array"), or show it ("human")."""
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode, such as gym.make('CrystalGen-v0', render_mode='ansi')")
            return None
        return self._show() if self.render_mode == "human" else self._frame()

    def close(self) -> None:
        """Close the window of render mode "human"."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _observation(self) -> NDArray[Any]:
        return self._episodes.states.observations[0].copy()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._episodes.states.masks[0].view(np.int8).copy()} if self.mask_in_info else {}

    def _frame(self) -> Any:
        from crystal_env.render import frames

        draw = frames.text_frame if self.render_mode == "ansi" else frames.picture_frame
        return draw(self._episodes.states, 0)

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        from crystal_env.render import frames

        if self._window is None:
            self._window = frames.Window()
        self._window.show(self._frame())


def _end_info(outcome: Outcome) -> dict[str, Any]:
    info: dict[str, Any] = {"invalid_action": bool(outcome.invalid[0])}
    if info["invalid_action"]:
        return info | {"is_success": False}
    info["crystal"] = outcome.crystals[0]
    return info if outcome.result is None else info | outcome.result.info(0)

"""``CrystalGen-v0``: one crystal, decision by decision."""

from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from crystal_env.episodes import CrystalEnvBase, EpisodeOptions, Episodes, StepResult, check_actions
from crystal_env.errors import InputError
from crystal_env.render import frames

_ROW = np.zeros(1, np.int64)


class CrystalGenEnv(CrystalEnvBase, gym.Env):
    """Build a crystal, one decision a step; the finished crystal is scored.

    ## Description

    An episode builds one crystal in the order of crystallographic notation: a space group (sampled by the environment
    or chosen by the agent), then for every symmetry-inequivalent site a Wyckoff letter, an element and the free
    fractional coordinates, then STOP, then the free lattice parameters. Every step is a real decision: coordinates and
    parameters that follow by symmetry are filled in. Action masks enforce crystallography and all constraints exactly:
    no allowed action leads to a dead end, and every crystal that meets the constraints can be built.

    ## Action space

    `Discrete(V)` with one real decision a step; `V = 146 + bins`, 1,106 by default:

    | id | meaning |
    |---|---|
    | 0 | STOP: no more sites |
    | 1 ... 27 | Wyckoff letters a ... z, A |
    | 28 ... 145 | elements H ... Og: id = 27 + atomic number |
    | 146 ... 145 + bins | bin b = id - 146 of a coordinate, length or angle, depending on the phase |
    | 146 + bins ... 375 + bins | space groups 1 ... 230, only with `space_group="agent"` |

    A fractional coordinate is b / bins; a cell length is n^(1/3) · 0.7 Å · (40 / 0.7)^((b + 1/2) / bins), with n atoms
    in the conventional cell; a cell angle is 30° + 120° · b / bins. `action_masks()` and `info["action_mask"]` hold the
    allowed ids.

    With `action_mode="continuous"` the space is `Box([0, 0], [145, 1])`: the id of a symbol, rounded, and a normalised
    value u in [0, 1] in place of b / bins (for a length, of (b + 1/2) / bins). Numeric phases ignore the id, all others
    ignore u. `value_bounds()` returns the allowed interval of u.

    ## Observation space

    `Box` of `int32`, one-dimensional, length 109 (110 with `space_group="agent"`): space group (0 until it is chosen),
    phase, then id + 1 of every decision so far, then 0. It is the whole prefix, so the state is Markov for given
    constraints. Phases: 0 space group, 1 letter, 2 element, 3 ... 5 coordinates x, y, z, 6 ... 8 lengths a, b, c,
    9 ... 11 angles alpha, beta, gamma, 12 finished. In continuous mode the box is of `float32` and holds the normalised
    values u of numeric decisions.

    ## Rewards

    0 until the crystal is complete, then its `reward`. An action that is not allowed earns `invalid_reward`; so does a
    crystal whose reward raises an error or is not finite, with the reason in `info["reward_failure"]`.

    ## Starting state

    A space group and no sites. The group is sampled from `space_group` with the environment's own generator.

    ## Episode end

    `terminated` after the last lattice parameter, at most 107 decisions (108 with the choice of the group), or at an
    action that is not allowed; never `truncated`. The last info contains

    | key | value |
    |---|---|
    | `invalid_action` | bool |
    | `is_success` | bool, by the reward's own criterion; absent if `reward` is None |
    | `crystal` | the `crystal_env.Crystal`; absent after an invalid action |
    | `reward_terms` | dict of floats, the terms of the reward, always the same keys; absent if `reward` is None |
    | `reward_failure` | None, or the reason why the crystal could not be scored; only with `reward_terms` |

    ## Arguments

    Every constraint can also be set for one episode, as `reset(options={...})`.

    - `reward`: a callable from a batch of crystals to scores, or `"module:attribute"`, resolved when first needed; None
      leaves crystals unscored. `reward_kwargs`: its keyword arguments.
    - `action_mode`: `"discrete"` or `"continuous"`.
    - `bins`: numeric bins, a multiple of 24.
    - `invalid_action`: `"terminate"` ends the episode, `"raise"` raises a ValueError and changes nothing.
    - `invalid_reward`: the reward of an action that is not allowed and of a crystal that cannot be scored. The default
      None means -1, or the lowest total that the reward can give (its attribute `floor`) if that is lower, so that an
      invalid action never earns more than the worst crystal; a reward given by name is resolved when its floor is first
      needed. An explicit number wins.
    - `mask_in_info`: include the mask in every info.
    - `render_mode`: `"ansi"`, `"rgb_array"` or `"human"`.
    - `space_group`: a number, a list of numbers, 230 weights, `"mp20"` (their frequencies in MP-20) or `"agent"`.
    - `elements`, `exclude_radioactive`: the allowed elements; `required_elements`: those that every crystal contains.
    - `formula`: the composition up to a multiple, for crystal structure prediction.
    - `max_sites`: the largest number of inequivalent sites, up to 20; `max_atoms`: of atoms in the primitive cell.
    - `site_elements`: the allowed elements of the first, second ... site; `tied_sites`: groups of sites with the same
      element; `wyckoff_letters`: the letters of all sites.

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
        self._window: frames.Window | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start a new crystal.

        Args:
            seed: of the generator that samples the space group.
            options: constraints of this episode, in place of the environment's of the same name.

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
        result = self._episodes.step(_ROW, check_actions(action, self.action_space, None))
        ended = bool(result.ended[0])
        info = self._info()
        if ended:
            info.update(_end_info(result))
        self._show()
        return self._observation(), float(result.rewards[0]), ended, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the allowed ids (V,)."""
        return self._episodes.states.masks[0].copy()

    def value_bounds(self) -> tuple[float, float]:
        """Return the interval of the normalised values u that are allowed next (continuous mode)."""
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
        frame = frames.text_frame if self.render_mode == "ansi" else frames.picture_frame
        return frame(self._episodes.states, 0)

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        if self._window is None:
            self._window = frames.Window()
        self._window.show(self._frame())


def _end_info(result: StepResult) -> dict[str, Any]:
    info: dict[str, Any] = {"invalid_action": bool(result.invalid[0])}
    if info["invalid_action"]:
        return info | {"is_success": False}
    info["crystal"] = result.crystals[0]
    return info if result.scores is None else info | result.scores.info(0)

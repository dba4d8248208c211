"""CrystalFormer as a policy of the continuous environment: mixture densities, as in the paper."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from agents.crystalformer.config import N_SPECIES
from agents.crystalformer.distribution import Distribution, any_crystal
from agents.crystalformer.mixtures import LatticeMixture, lattice_bounds, log_normal_mass
from agents.crystalformer.random_streams import RandomStreams
from agents.crystalformer.sampler import N_UNIFORMS, BatchSampler
from agents.crystalformer.temperature import Temperature, Temperatures
from agents.crystalformer.tokens import normalised_lattice
from agents.sb3.discrete_policy import ModelSource, constructor_parameters, model_of
from agents.sb3.prefix_cache import Prefixes
from crystal_env.errors import InputError
from crystal_env.vocabulary import N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import tables


class ContinuousCrystalFormerPolicy(BasePolicy):
    """The network as the policy of ``CrystalGen-v0`` with ``action_mode="continuous"``, for `KLPPO`.

    An action is a token id and a number in [0, 1]. Step by step, it samples crystals of the same density as
    `CrystalFormer.sample` does.

    Args:
        observation_space: of the continuous environment.
        action_space: likewise.
        lr_schedule: learning rate by remaining progress.
        model: what `CrystalFormer.from_pretrained` takes, a model, which is copied, or the sizes of a new one.
        optimizer_class: by default Adam.
        optimizer_kwargs: its arguments, the learning rate apart.
        temperature: of sampling, one number or one for each part: see `Temperatures`.
        recommended_temperature: becomes that of the model, by default its own; see `CrystalFormer.temperature`.

    Raises:
        ValueError: if the spaces are not those of the continuous environment, or a temperature is out of range.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: ModelSource = "mp20",
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        temperature: Temperature = 1.0,
        recommended_temperature: Temperature | None = None,
    ) -> None:
        super().__init__(
            observation_space, action_space, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs
        )
        self.temperature: Temperature = Temperatures.of(temperature)
        self.vocabulary = Vocabulary(0)
        expected = spaces.Box(np.zeros(2, np.float32), np.array([N_SYMBOLS - 1, 1], np.float32))
        if action_space != expected or observation_space.shape != (2 + self.vocabulary.max_decisions,):
            raise InputError(
                "the spaces must be those of CrystalGen-v0 with action_mode='continuous', without wrappers that change "
                f"them, got {observation_space} and {action_space}"
            )
        self.model = model_of(model, recommended_temperature)
        self.rng = np.random.default_rng()
        self._prefixes: Prefixes | None = None
        self.optimizer = self.optimizer_class(self.parameters(), **{"lr": lr_schedule(1), **self.optimizer_kwargs})

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return constructor_parameters(self)

    def train(self, mode: bool = True) -> "ContinuousCrystalFormerPolicy":
        """Set the mode of all parts but the network, which has no dropout here."""
        super().train(mode)
        self.model.eval()
        return self

    def predict(  # type: ignore[override]
        self,
        observation: NDArray[Any],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], None]:
        """Return actions (N, 2), or (2,) for a single observation.

        Args:
            observation: (N, T) or (T,).
            state: not used.
            episode_start: not used.
            deterministic: take the most likely letter, element and component, and its centre.
            action_masks: (N, V) ids that are allowed, by default those of the bare grammar.
        """
        observations = np.atleast_2d(np.asarray(observation))
        masks = None if action_masks is None else np.reshape(action_masks, (len(observations), -1)).astype(bool)
        with torch.inference_mode():
            actions = self._choose(observations, masks, deterministic)
        return (actions if np.ndim(observation) > 1 else actions[0]), None

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return torch.from_numpy(self.predict(np.asarray(observation), deterministic=deterministic)[0])

    def _choose(
        self, observations: NDArray[Any], masks: NDArray[np.bool_] | None, deterministic: bool
    ) -> NDArray[np.float32]:
        if self._prefixes is None or not self._prefixes.continues(self.model, len(observations)):
            self._prefixes = Prefixes(self.model, self.vocabulary, len(observations))
        self._prefixes.catch_up(observations)
        distribution = Distribution(any_crystal(), 0.0 if deterministic else self.temperature)
        uniforms = RandomStreams(self.rng).uniforms(np.arange(len(observations)), N_UNIFORMS)
        sampler = BatchSampler(self._prefixes.decoder, distribution, uniforms)
        states, actions = sampler.decoder.states, np.zeros((len(observations), 2), np.float32)
        by_grammar = states.masks.copy()
        if masks is not None:
            states.masks &= masks
        rows = np.flatnonzero(states.phase < Phase.A)
        actions[rows] = np.stack(sampler.choose(rows), axis=1)  # type: ignore[arg-type]
        states.masks[:] = by_grammar
        rows = np.flatnonzero((states.phase >= Phase.A) & (states.phase < Phase.DONE))
        actions[rows, 1] = self._lattice(sampler, rows)
        for row in np.flatnonzero(states.phase == Phase.GAMMA):  # rounded to float32 it must still be inside
            actions[row, 1] = np.clip(actions[row, 1], *np.array(states.normalised_bounds(int(row)), np.float32))
        return actions

    def _lattice(self, sampler: BatchSampler, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Draw the next lattice parameters of ``rows`` (n,) as units, given those before them.

        A lattice is one component for all its numbers, so those that are known say how likely each component is.
        """
        states, K = sampler.decoder.states, self.model.config.lattice_components
        output = sampler.decoder.output[torch.from_numpy(rows), N_SPECIES : N_SPECIES + 13 * K]
        mixture = sampler.distribution.lattice(output)
        parameter = states.phase[rows] - Phase.A
        crystals = states.crystals(rows)
        known = tables().free_lattice[crystals.G] & (np.arange(6) < parameter[:, None])
        L = torch.from_numpy(normalised_lattice(crystals)).to(output)
        log_weights = _posterior(mixture, L, torch.from_numpy(known).to(output.device))
        component = sampler.lattice_components(rows, log_weights)
        return sampler.lattice_values(rows, *sampler.lattice_gaussians(rows, mixture, component))


def _posterior(mixture: LatticeMixture, L: Tensor, known: Tensor) -> Tensor:
    """Return the log weights (n, K) of the components, given which parameters (n, 6) of lattices (n, 6) are known."""
    low, high = ((lattice_bounds(L)[..., None, :, i] - mixture.means) / mixture.scales for i in range(2))
    density = (mixture.components(L) - log_normal_mass(low, high)).masked_fill(~known[..., None, :], 0.0)
    return torch.log_softmax(mixture.log_weights + density.sum(-1), dim=-1)

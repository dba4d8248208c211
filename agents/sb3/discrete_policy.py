"""CrystalFormer as the policy of sb3-contrib's ``MaskablePPO``, on the discrete environment."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.maskable.distributions import MaskableDistribution
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from agents.crystalformer.config import N_SPECIES, CrystalFormerConfig
from agents.crystalformer.decoder import token_position
from agents.crystalformer.distribution import Distribution, any_crystal
from agents.crystalformer.mixtures import LatticeMixture
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.temperature import Temperature, Temperatures
from agents.crystalformer.tokens import Tokens
from agents.sb3.prefix_cache import Prefixes, start_groups
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import mp20_group_counts
from crystal_env.grammar.state import CrystalStates
from crystal_env.vocabulary import FIRST_ELEMENT, N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import N_GROUPS, N_LETTERS, tables

ModelSource = str | Path | CrystalFormerConfig | CrystalFormer

_NEVER = -1e8  # logit of what is not allowed, as in sb3-contrib


class CrystalFormerPolicy(MaskableActorCriticPolicy):
    """The network as an exact categorical distribution over the action ids, with a value function.

    Use it as ``MaskablePPO(CrystalFormerPolicy, env, policy_kwargs={"model": "mp20"})``. Probabilities of numbers are
    the mixtures on the bins; the product over an episode is what `CrystalFormer.log_prob` with ``bins`` scores.
    Rollouts keep what the network has computed for the prefix of each crystal; updates compute it again. There is no
    dropout.

    Args:
        observation_space: of ``CrystalGen-v0`` or one of its variants, in discrete mode.
        action_space: likewise.
        lr_schedule: learning rate by remaining progress.
        model: what `CrystalFormer.from_pretrained` takes, a model, which is copied, or the sizes of a new one.
        optimizer_class: by default Adam.
        optimizer_kwargs: its arguments, the learning rate apart.
        temperature: of sampling, one number or one for each part: see `Temperatures`.
        recommended_temperature: becomes that of the model, by default its own; see `CrystalFormer.temperature`.

    Raises:
        ValueError: if the spaces are not those of the discrete environment, or a temperature is out of range.
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
        self.temperature: Temperature = Temperatures.of(temperature)
        self.vocabulary = _vocabulary(observation_space, action_space)
        self._make_model = partial(model_of, model, recommended_temperature)
        self._prefixes: Prefixes | None = None
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self.model = self._make_model()
        config = self.model.config
        self.value_net = nn.Linear(config.model_size, 1)
        self.first_value_net = nn.Linear(config.embed_size, 1)  # before there is a token
        for net in (self.value_net, self.first_value_net):
            nn.init.zeros_(net.weight)
            nn.init.zeros_(net.bias)
            net.to(self.model.head.weight.dtype)
        if self.vocabulary.chooses_group:
            counts = torch.from_numpy(mp20_group_counts() + 1.0).to(self.model.real_dtype)
            self.group_logits = nn.Parameter(counts.log())
        self.optimizer = self.optimizer_class(self.parameters(), **{"lr": lr_schedule(1), **self.optimizer_kwargs})

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return constructor_parameters(self)

    def train(self, mode: bool = True) -> "CrystalFormerPolicy":
        """Set the mode of all parts but the network, which has no dropout here."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(
        self, obs: Tensor, deterministic: bool = False, action_masks: NDArray[np.bool_] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (N,), values (N, 1) and log probabilities (N,) for observations (N, T)."""
        distribution, values = self._evaluate(obs, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (N, 1), log probabilities (N,) of actions (N,), and entropies (N,)."""
        distribution, values = self._evaluate(obs, action_masks)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any, action_masks: NDArray[np.bool_] | None = None) -> MaskableDistribution:
        """Return the distribution of actions."""
        return self._evaluate(obs, action_masks)[0]

    def predict_values(self, obs: Any) -> Tensor:
        """Return values (N, 1)."""
        return self._evaluate(obs, None)[1]

    def _evaluate(self, obs: Tensor, action_masks: Any) -> tuple[MaskableDistribution, Tensor]:
        observations = obs.long().cpu().numpy()
        if torch.is_grad_enabled():
            states, hidden, output = self._whole(observations)
        else:
            if self._prefixes is None or not self._prefixes.continues(self.model, len(observations)):
                self._prefixes = Prefixes(self.model, self.vocabulary, len(observations))
            self._prefixes.catch_up(observations)
            decoder = self._prefixes.decoder
            states, hidden, output = decoder.states, decoder.hidden, decoder.output
        distribution = self.action_dist.proba_distribution(action_logits=self._logits(states, output))
        if action_masks is not None:
            distribution.apply_masking(action_masks)
        first = torch.from_numpy((states.site == 0) & (states.phase <= Phase.LETTER)).to(hidden.device)
        groups = torch.from_numpy(states.G).to(hidden.device)
        first_values = self.first_value_net(self.model.group_embedding(groups))
        return distribution, torch.where(first[:, None], first_values, self.value_net(hidden))

    def _whole(self, observations: NDArray[np.int64]) -> tuple[CrystalStates, Tensor, Tensor]:
        """Pass whole prefixes through the network; return states, hidden (N, D) and output (N, O) at their ends."""
        states = CrystalStates(len(observations), self.vocabulary)
        states.reset(np.arange(len(states)), any_crystal(), start_groups(observations, self.vocabulary))
        for column in (observations[:, 2:] - 1).T:
            rows = np.flatnonzero(column >= 0)
            states.step(rows, column[rows])
        last = torch.from_numpy(token_position(states)).to(self.model.device)
        hidden = self.model.hidden(Tokens.from_states(states, self.model.real_dtype, self.model.device))
        hidden = hidden[torch.arange(len(last), device=last.device), last.clamp(min=0)]
        output = self.model.read(hidden)
        first = torch.nn.functional.pad(
            self.model.first_letters(torch.from_numpy(states.G).to(last.device)), (0, output.shape[1] - N_LETTERS)
        )
        return states, hidden, torch.where((last < 0)[:, None], first, output)

    def _logits(self, states: CrystalStates, output: Tensor) -> Tensor:
        """Return the log probabilities (N, V) of all actions, by the bare grammar."""
        logits = output.new_full((len(states), self.vocabulary.size), _NEVER)
        rules = Distribution(any_crystal(), self.temperature, bins=self.vocabulary.bins)
        masks, bins = torch.from_numpy(states.masks).to(output.device), self.vocabulary.bins
        numbers = slice(N_SYMBOLS, N_SYMBOLS + bins)
        rows = _rows(states.phase == Phase.LETTER, output)
        logits[rows, :N_LETTERS] = rules.letters(output[rows, :N_LETTERS], masks[rows, :N_LETTERS]).clamp(min=_NEVER)
        rows = _rows(states.phase == Phase.ELEMENT, output)
        logits[rows, FIRST_ELEMENT:N_SYMBOLS] = rules.elements(output[rows, 1:N_SPECIES])
        rows = _rows((states.phase >= Phase.X) & (states.phase <= Phase.Z), output)
        mixture = rules.coordinate(output[rows, : 3 * self.model.config.coordinate_components])
        logits[rows, numbers] = torch.logsumexp(mixture.log_weights[..., None] + mixture.bins(bins), dim=1)
        for parameter in range(6):
            rows = _rows(states.phase == Phase.A + parameter, output)
            if len(rows):
                log_probs = self._lattice_log_probs(parameter, states, rows, output[rows], masks[rows, numbers])
                logits[rows, numbers] = log_probs.clamp(min=_NEVER)
        if self.vocabulary.chooses_group:
            rows = _rows(states.phase == Phase.SPACE_GROUP, output)
            logits[rows, self.vocabulary.first_group :] = self.group_logits.log_softmax(-1)
        return logits

    def _lattice_log_probs(
        self, parameter: int, states: CrystalStates, rows: Tensor, output: Tensor, allowed: Tensor
    ) -> Tensor:
        """Return log probabilities (n, bins) of one lattice parameter, given those before it."""
        bins = self.vocabulary.bins
        lattice = slice(N_SPECIES, N_SPECIES + 13 * self.model.config.lattice_components)
        mixture = Distribution(any_crystal(), self.temperature).lattice(output[:, lattice])
        at = rows.cpu().numpy()
        free = tables().free_lattice[states.G[at]]
        chosen = states.observations[at, 2:].astype(np.int64) - 1
        ends = (chosen >= 0).sum(1)
        weights = mixture.log_weights
        for earlier in range(parameter):
            which = np.flatnonzero(free[:, earlier])
            back = free[which, earlier:parameter].sum(1)
            token = torch.from_numpy(chosen[which, ends[which] - back] - N_SYMBOLS).to(output.device)
            rows_ = torch.from_numpy(which).to(output.device)
            part = LatticeMixture(*(array[rows_] for array in mixture))
            index = token[:, None, None].expand(-1, weights.shape[1], 1)
            weights = weights.index_add(0, rows_, part.bins(earlier, bins).gather(-1, index)[..., 0])
        weights = weights.log_softmax(-1)
        return torch.logsumexp(weights[..., None] + mixture.bins(parameter, bins, allowed).clamp(min=_NEVER), dim=1)


def model_of(source: ModelSource, recommended: Temperature | None = None) -> CrystalFormer:
    """Return a new network, in evaluation mode, which recommends given temperatures instead of its own."""
    if isinstance(source, CrystalFormer):
        model = copy.deepcopy(source).eval()
    elif isinstance(source, CrystalFormerConfig):
        model = CrystalFormer(source).eval()
    else:
        model = CrystalFormer.from_pretrained(source)
    if recommended is not None:
        model.temperature = Temperatures.of(recommended)
    return model


def constructor_parameters(policy: Any) -> dict[str, Any]:
    """Return the arguments that make a policy of the same kind and sizes, for a file that has its weights."""
    return {
        "observation_space": policy.observation_space,
        "action_space": policy.action_space,
        "lr_schedule": policy._dummy_schedule,
        "model": policy.model.config,
        "temperature": policy.temperature,
        "recommended_temperature": policy.model.temperature,
        "optimizer_class": policy.optimizer_class,
        "optimizer_kwargs": policy.optimizer_kwargs,
    }


def _rows(where: NDArray[np.bool_], like: Tensor) -> Tensor:
    return torch.from_numpy(np.flatnonzero(where)).to(like.device)


def _vocabulary(observation_space: spaces.Space, action_space: spaces.Space) -> Vocabulary:
    """Return the vocabulary that the spaces of a discrete environment tell."""
    if isinstance(action_space, spaces.Discrete) and isinstance(observation_space, spaces.Box):
        for chooses_group in (False, True):
            bins = int(action_space.n) - N_SYMBOLS - N_GROUPS * chooses_group
            if bins > 0 and bins % 24 == 0:
                vocabulary = Vocabulary(bins, chooses_group)
                if observation_space.shape == (2 + vocabulary.max_decisions,):
                    return vocabulary
    raise InputError(
        "the spaces must be those of CrystalGen-v0 in discrete mode, without wrappers that change them, got "
        f"{observation_space} and {action_space}"
    )

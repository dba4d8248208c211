"""What a network has computed for unfinished crystals that stable-baselines3 shows it as observations."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.crystalformer.decoder import Decoder
from agents.crystalformer.distribution import any_crystal
from agents.crystalformer.network import Network
from crystal_env.vocabulary import Vocabulary


class Prefixes:
    """The decoder of N environments, good for as long as the network's weights stay as they are.

    Attributes:
        decoder: unfinished crystals beside what the network says of them.
    """

    def __init__(self, model: Network, vocabulary: Vocabulary, size: int) -> None:
        self.decoder = Decoder(model, vocabulary, any_crystal(), np.ones(size, np.int64))
        self._started = np.zeros(size, bool)
        self._weights = _fingerprint(model)

    def continues(self, model: Network, size: int) -> bool:
        """Return whether what is kept holds for this model and number of environments."""
        return len(self.decoder.states) == size and self._weights == _fingerprint(model)

    def catch_up(self, observations: NDArray[Any]) -> None:
        """Bring all crystals to where observations (N, 2 + T) are, each from where it was if it is on the way."""
        states = self.decoder.states
        wanted, phase = observations[:, 2:], observations[:, 1].astype(np.int64)
        groups, place = start_groups(observations, states.vocabulary), np.arange(wanted.shape[1])
        is_known = place < states.n_decisions[:, None]
        differs = ((states.observations[:, 2:] != wanted) & is_known).any(1) | ~self._started
        differs |= groups != start_groups(states.observations, states.vocabulary)
        differs |= (states.phase > phase) & ~((wanted != 0) & ~is_known).any(1)  # it has gone too far
        rows = np.flatnonzero(differs)
        self._started[:] = True
        self.decoder.restart(rows, any_crystal(), groups[rows])
        places = states.n_decisions[:, None] + place
        ahead = np.take_along_axis(wanted, np.minimum(places, wanted.shape[1] - 1), axis=1)
        self.decoder.replay(np.arange(len(states)), np.where(places < wanted.shape[1], ahead, 0), phase)


def start_groups(observations: NDArray[Any], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the groups (N,) that episodes began with, 0 where the agent chooses."""
    return np.zeros(len(observations), np.int64) if vocabulary.chooses_group else observations[:, 0].astype(np.int64)


def _fingerprint(model: Network) -> tuple[int, ...]:
    """Return what changes with the weights, where they are, and inference mode, whose tensors no other mode takes."""
    return (torch.is_inference_mode_enabled(), *(x for p in model.parameters() for x in (p._version, p.data_ptr())))

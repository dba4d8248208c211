"""The settings of Markov chains."""

from dataclasses import dataclass, field
from typing import Any, Literal

from agents.crystalformer.config import GroupChoice
from agents.crystalformer.distribution import check_constraints
from agents.crystalformer.temperature import TemperatureChoice, check_temperature
from crystal_env.arguments import choice, finite_number, integer
from crystal_env.vocabulary import Vocabulary


@dataclass(frozen=True)
class MCMCConfig:
    """Settings of `agents.search.mcmc.mcmc`.

    Attributes:
        chains: Number of chains, which advance together.
        steps: Moves of each chain.
        tau: Temperature of the reward, in its units.
        tau_start: Temperature of the first step, by default ``tau``; from there it falls or rises geometrically.
        anneal_steps: Steps from ``tau_start`` to ``tau``.
        base_temperature: Temperature of the base model, both of its density and of the crystals sampled from it: a
            number, or JSON such as '{"letters": 0.6}' for parts of a crystal, or None for what the model recommends.
        moves: ``"template"`` changes elements, coordinates and lattices and keeps groups and letters; ``"crystal"``
            also proposes whole new crystals of the base model.
        p_independent: Probability that a step of ``"crystal"`` proposes a whole new crystal.
        coordinate_scale: Standard deviation of a coordinate's step, in fractions of an axis.
        lattice_scale: Standard deviation of a lattice step, in Å per cube root of the atoms and in radians.
        burn_in: Steps before samples are kept.
        thin: Steps between samples that are kept.
        space_group: A number, a list of numbers, 230 weights or ``"mp20"``, their frequencies in MP-20.
        constraints: Constraints as for the environment, as JSON.
        bins: Number of bins for coordinates and lattice, as on the discrete environment; 0 for densities.
        floor: Reward of a crystal that cannot be scored.
        seed: Random seed. A chain depends on the seed and on its index alone.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    chains: int = 100
    steps: int = 1000
    tau: float = 0.1
    tau_start: float | None = None
    anneal_steps: int = 0
    base_temperature: TemperatureChoice = 1.0
    moves: Literal["template", "crystal"] = "crystal"
    p_independent: float = 0.3
    coordinate_scale: float = 0.05
    lattice_scale: float = 0.05
    burn_in: int = 0
    thin: int = 10
    space_group: GroupChoice = "mp20"
    constraints: dict[str, Any] = field(default_factory=dict)
    bins: int = 0
    floor: float = -10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("chains", 1), ("steps", 1), ("anneal_steps", 0), ("burn_in", 0), ("thin", 1), ("seed", 0)):
            integer(name, getattr(self, name), least)
        for name in ("tau", "coordinate_scale", "lattice_scale"):
            finite_number(name, getattr(self, name), above=0)
        if self.tau_start is not None:
            finite_number("tau_start", self.tau_start, above=0)
        choice("moves", self.moves, ("template", "crystal"))
        finite_number("p_independent", self.p_independent, least=0, most=1)
        finite_number("floor", self.floor)
        check_temperature("base_temperature", self.base_temperature)
        Vocabulary(self.bins)  # checks the bins
        check_constraints(self.space_group, self.constraints)

    def temperature(self, step: int) -> float:
        """Return the temperature of a step, counted from 0."""
        if self.tau_start is None or step >= self.anneal_steps:
            return self.tau
        return self.tau_start * (self.tau / self.tau_start) ** (step / self.anneal_steps)

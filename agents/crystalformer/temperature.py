"""Temperatures of the parts of a crystal: what they sharpen in sampling they sharpen in scoring."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from crystal_env.arguments import finite_number
from crystal_env.errors import InputError

_BOTH = {
    "coordinates": ("coordinate_weights", "coordinate_concentrations"),
    "lattice": ("lattice_weights", "lattice_variances"),
}


@dataclass(frozen=True, kw_only=True)
class Temperatures:
    """A temperature for each part of a crystal's distribution, 1 by default; 0 takes what is most likely.

    Attributes:
        letters: divides the logits of letters, STOP included.
        elements: divides the logits of elements.
        coordinate_weights: divides the logits of the components of a coordinate.
        coordinate_concentrations: divides the concentrations of its von Mises components.
        lattice_weights: divides the logits of the components of a lattice.
        lattice_variances: multiplies the variances of its Gaussians.

    Raises:
        ValueError: naming the temperature that is negative or not finite.
    """

    letters: float = 1.0
    elements: float = 1.0
    coordinate_weights: float = 1.0
    coordinate_concentrations: float = 1.0
    lattice_weights: float = 1.0
    lattice_variances: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            finite_number(f"temperature of {name}", value, least=0)

    @classmethod
    def of(cls, given: "Temperature") -> Self:
        """Return temperatures from one number for all parts, or a mapping of some of them.

        In a mapping, ``coordinates`` and ``lattice`` stand for their weights and widths together, unless these are
        given too; parts that are not named have temperature 1.

        Raises:
            ValueError: naming the part that does not exist, or the temperature that is out of range.
        """
        names = [f.name for f in fields(cls)]
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            return cls(**dict.fromkeys(names, finite_number("temperature", given, least=0)))
        if unknown := [name for name in given if name not in (*names, *_BOTH)]:
            raise InputError(
                f"temperature must be a number or map some of {[*names, *_BOTH]} to numbers, got {unknown}"
            )
        both = {name: given[part] for part, pair in _BOTH.items() if part in given for name in pair}
        return cls(**{**both, **{name: given[name] for name in names if name in given}})

    @property
    def are_one(self) -> bool:
        """Whether nothing is sharpened or flattened."""
        return set(vars(self).values()) == {1}

    @property
    def have_densities(self) -> bool:
        """Whether continuous numbers have densities: at temperature 0 they are certain."""
        return self.coordinate_concentrations > 0 and self.lattice_variances > 0

    def to_dict(self) -> dict[str, float]:
        """Return the temperatures by name."""
        return asdict(self)

    def in_words(self) -> str:
        """Return the temperatures that are not 1, weights and widths together where they are equal."""
        values: dict[str, Any] = vars(self).copy()
        for part, (weights, widths) in _BOTH.items():
            if values[weights] == values[widths]:
                values[part] = values.pop(weights)
                del values[widths]
        if len({*values.values()}) == 1:
            return f"{self.letters:g}"
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values.items() if value != 1)


Temperature = float | Mapping[str, float] | Temperatures
"""One temperature for all parts of a crystal, or one for each."""

TemperatureChoice = float | dict[str, float] | None
"""Temperatures as the command line takes them; None is what the model recommends."""


def check_temperature(name: str, given: Any) -> None:
    """Raise a ValueError, under the argument's name, if temperatures are malformed; None is not."""
    try:
        Temperatures.of(1.0 if given is None else given)
    except InputError as error:
        raise InputError(str(error).replace("temperature", name, 1)) from None

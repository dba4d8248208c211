"""The sizes of the network."""

from dataclasses import asdict, dataclass, fields
from typing import Literal

from crystal_env.errors import InputError
from crystal_env.wyckoff import N_ELEMENTS, N_LETTERS

N_SPECIES = N_ELEMENTS + 1
"""Elements and the pad."""


GroupChoice = int | Literal["mp20"] | tuple[int, ...] | tuple[float, ...]
"""Space groups as the command line takes them: a number, several, 230 weights, or their frequencies in MP-20."""


@dataclass(frozen=True)
class CrystalFormerConfig:
    """Sizes of the network; the defaults are those of the paper (Table S1), 4,833,575 parameters.

    Attributes:
        n_layers: transformer layers.
        n_heads: attention heads.
        key_size: width of a head, even; independent of the model size.
        model_size: width of the residual stream.
        embed_size: width of the embeddings of groups, letters and elements.
        first_letter_size: hidden width of the network for the first letter; 0 makes it a table.
        n_frequencies: Fourier frequencies of a coordinate.
        coordinate_components: von Mises components of a coordinate's density.
        lattice_components: Gaussian components of the lattice's density.
        dropout: rate on the outputs of attention and feed-forward layers, in training.
        attention_dropout: rate on the attention weights, in training.

    Raises:
        ValueError: naming the size that is not possible.
    """

    n_layers: int = 16
    n_heads: int = 16
    key_size: int = 64
    model_size: int = 64
    embed_size: int = 32
    first_letter_size: int = 256
    n_frequencies: int = 5
    coordinate_components: int = 16
    lattice_components: int = 4
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float:
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                    raise InputError(f"{field.name} must be a number in [0, 1), got {value!r}")
                continue
            least = 0 if field.name == "first_letter_size" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{field.name} must be an integer of at least {least}, got {value!r}")
        if self.key_size % 2:
            raise InputError(f"key_size must be even for rotary positions, got {self.key_size}")

    @property
    def output_size(self) -> int:
        """Width of the output, which every kind of token reads its own way."""
        lattice = N_SPECIES + 13 * self.lattice_components
        return max(lattice, 3 * self.coordinate_components, N_LETTERS)

    def to_dict(self) -> dict[str, int | float]:
        """Return the sizes by name."""
        return asdict(self)

"""CrystalFormer as its users see it: loading, saving, sampling and scoring."""

from collections.abc import Iterable
from pathlib import Path
from typing import Unpack

import torch

from agents.crystalformer import checkpoint
from agents.crystalformer.distribution import Distribution, compile_constraints, sample_groups
from agents.crystalformer.kv_cache import shares_values
from agents.crystalformer.likelihood import Likelihood, LogProb, check_crystals, log_prob
from agents.crystalformer.network import Network
from agents.crystalformer.random_streams import RandomStreams, Seed
from agents.crystalformer.sampler import sample_crystals
from agents.crystalformer.temperature import Temperature, Temperatures
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.errors import InputError
from crystal_env.grammar.constraints import ConstraintOptions, SpaceGroup
from crystal_env.grammar.feasibility import Grammar
from crystal_env.wyckoff import N_SLOTS

_MIN_BATCH, _MAX_BATCH_CPU, _MAX_BATCH_CUDA = 128, 512, 8192  # crystals that are sampled together
_BYTES_CPU = 10_000_000  # of one token of all crystals, keys and values in all layers
_TOKENS = 5 * N_SLOTS  # of the longest crystal


class CrystalFormer(Network):
    """The network with loading, saving, sampling and scoring.

    Args:
        config: the sizes, by default those of the paper (Table S1).
        seed: of the weights.

    Attributes:
        temperature: recommended temperatures of sampling, which `sample` and `log_prob` use unless they are told
            otherwise. They are saved with the model and 1 for a new one.

    Example:
        >>> model = CrystalFormer.from_pretrained("mp20")
        >>> crystals = model.sample([225, 225], formula="NaCl", seed=0)
        >>> crystals[0].formula
        'NaCl'
        >>> model.log_prob(crystals, formula="NaCl").total.shape
        torch.Size([2])
    """

    temperature: Temperatures = Temperatures()

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **sizes: int) -> "CrystalFormer":
        """Return a trained model, in evaluation mode, on the CPU.

        Args:
            name_or_path: a model that ships with the package (``"mp20"``), a folder that `save_pretrained` wrote, or a
                checkpoint file of the paper's code.
            sizes: of a checkpoint of the paper's code, those that its arrays do not tell, by default the paper's:
                ``key_size`` (64) or ``n_heads``, and ``coordinate_components`` (16).

        Raises:
            ValueError: if there is no such model, or it is damaged; the message says in which way.
        """
        config, temperature, state = checkpoint.read(name_or_path, **sizes)
        model = cls(config)
        model.load_state_dict(state)
        model.temperature = temperature
        return model.eval()

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``config.json``, with the recommended temperatures, and ``model.safetensors`` into a folder."""
        checkpoint.save(self, path, self.temperature)

    def log_prob(
        self,
        crystals: CrystalBatch | Iterable[Crystal],
        likelihood: Likelihood = "exact",
        *,
        bins: int = 0,
        temperature: Temperature | None = None,
        top_p: float = 1.0,
        **constraints: Unpack[ConstraintOptions],
    ) -> LogProb:
        """Return the log-likelihood of crystals, given their space groups.

        Exact are the densities that `sample` uses with the same arguments: of the free coordinates (per unit of
        a fractional coordinate) and of the free lattice parameters together (lengths per cube root of the atoms in the
        conventional cell, in Å, and angles in radians, truncated at the environment's bounds). What cannot be sampled
        has -inf. A gradient reaches the parameters unless it is switched off.

        Args:
            crystals: B crystals.
            likelihood: ``"paper"`` is what the paper's code scores: dependent coordinates too, per radian, and every
                lattice parameter by itself, without bounds.
            bins: score the bins of the discrete environment instead of densities; a number stands for its bin.
            temperature: see `sample`.
            top_p: see `sample`.
            constraints: see `sample`.

        Returns:
            Nats, each (B,): ``total``, and ``letters``, ``elements``, ``coordinates`` and ``lattice``, its parts.

        Raises:
            ValueError: if numbers of a crystal are out of their tables, or an argument or constraint is malformed.
        """
        batch = CrystalBatch.from_crystals(crystals)
        if likelihood not in ("exact", "paper"):
            raise InputError(f"likelihood must be 'exact' or 'paper', got {likelihood!r}")
        if likelihood == "paper" and (bins or temperature is not None or top_p != 1 or constraints):
            raise InputError("likelihood 'paper' takes no bins, temperature, top_p or constraints")
        check_crystals(batch)
        grammar = compile_constraints(batch.G, constraints)
        return log_prob(self, batch, self.distribution(grammar, temperature, top_p, bins), likelihood)

    def sample(
        self,
        space_groups: SpaceGroup = "mp20",
        size: int | None = None,
        *,
        seed: Seed = None,
        bins: int = 0,
        temperature: Temperature | None = None,
        top_p: float = 1.0,
        batch_size: int | None = None,
        progress: bool = False,
        **constraints: Unpack[ConstraintOptions],
    ) -> CrystalBatch:
        """Sample crystals.

        Args:
            space_groups: of the crystals, one each; or, where ``size`` is given, what to sample them from: a number, a
                list of numbers, 230 weights, or ``"mp20"``, their frequencies in MP-20.
            size: number of crystals.
            seed: an integer, a generator, which is advanced by the same amount whatever is sampled, or None for other
                crystals each time. Nothing else is random: a crystal depends on the seed and on its index alone, so
                that the first of many are those of a few.
            bins: numbers are sampled from that many bins, as on the discrete environment; 0 for continuous ones.
            temperature: one number, or a mapping of some of ``letters``, ``elements``, ``coordinates`` and ``lattice``
                to numbers, the others being 1; by default what the model recommends, `CrystalFormer.temperature`. It
                divides logits and concentrations, and multiplies the variances of the lattice; 0 takes the most likely
                letter, element and component every time, and its centre. `Temperatures` has weights and widths apart.
            top_p: letters, elements and components come from the most likely ones that together have this probability
                (without the temperature).
            batch_size: crystals of a pass of the network, by default 128 to 512 on a CPU, and what fits into half of a
                GPU. It changes the last digits of a crystal's numbers at most.
            progress: show a bar with the time left.
            constraints: constraints of the crystals, as for the environment: ``elements``, ``required_elements``,
                ``formula``, ``max_sites``, ``max_atoms``, ``site_elements``, ``tied_sites``, ``wyckoff_letters``,
                ``exclude_radioactive``.

        Raises:
            ValueError: if an argument is malformed, or no crystal of a space group meets the constraints.
        """
        streams = RandomStreams(seed)
        groups = sample_groups(space_groups, size, streams, constraints)
        distribution = self.distribution(compile_constraints(groups, constraints), temperature, top_p, bins)
        batch_size = self.default_batch_size() if batch_size is None else batch_size
        return sample_crystals(self, groups, distribution, streams, batch_size, progress=progress).crystals

    def distribution(
        self, grammar: Grammar, temperature: Temperature | None = None, top_p: float = 1.0, bins: int = 0
    ) -> Distribution:
        """Return what `sample` and `log_prob` use for a grammar and these arguments of theirs.

        Raises:
            ValueError: naming the argument that is out of range.
        """
        return Distribution(grammar, self.temperature if temperature is None else temperature, top_p, bins)

    def default_batch_size(self) -> int:
        """Return how many crystals to sample together: what a CPU's cache or half of a GPU's free memory holds."""
        c, size = self.config, self.head.weight.element_size()
        inner = c.n_heads * c.key_size
        token = size * c.n_layers * (inner + (c.model_size if shares_values(c) else inner))
        if self.device.type != "cuda":
            return max(_MIN_BATCH, min(_MAX_BATCH_CPU, _BYTES_CPU // token))
        return max(_MIN_BATCH, min(_MAX_BATCH_CUDA, torch.cuda.mem_get_info(self.device)[0] // (2 * _TOKENS * token)))

"""Energy models under one interface, and how to get one by name.

`interface` is the contract; `chgnet`, `orb`, `sevennet`, `matgl` and `ase` fulfil it, `mp2020` adds the Materials
Project's corrections. `batching` evaluates graphs in batches of bounded cost, `bond_graph` finds neighbours,
`matgl_graphs` and `matgl_files` are the graphs and files of matgl.
"""

from typing import Any

from crystal_env.errors import InputError
from rewards.potentials.ase import ASEPotential
from rewards.potentials.chgnet import CHGNetPotential
from rewards.potentials.interface import MP2020, PBE, Energies, ForceField, Forces, Potential
from rewards.potentials.matgl import MatglPotential
from rewards.potentials.mp2020 import Corrected
from rewards.potentials.orb import OrbPotential
from rewards.potentials.sevennet import SevenNetPotential

__all__ = ["MP2020", "PBE", "Energies", "ForceField", "Forces", "Potential", "load_potential"]

_FAMILIES = (
    "'chgnet', 'orb-v2' or another model of orb-models, 'sevennet-l3i5', 'sevennet-0', 'matgl:<folder or name>', "
    "'ase:<module>:<attribute>'"
)
_CORRECTED = "+MP2020"


def load_potential(potential: str | Potential, **options: Any) -> Potential:
    """Return a potential from its name, or the given object.

    Names are ``"chgnet"``, those of orb-models (``"orb"`` stands for ``"orb-v2"``), ``"sevennet-0"`` and
    ``"sevennet-l3i5"`` (``"sevennet"`` stands for the latter), ``"matgl:<folder or name>"`` and
    ``"ase:<module>:<attribute>"`` for a callable that returns an ASE calculator. With ``"+MP2020"`` at the end, the
    energies get the corrections of the Materials Project: ``"orb-v2+MP2020"``. Nothing heavy is loaded by this.

    Args:
        potential: the name, or an object with ``name``, ``scale`` and ``energies``.
        options: arguments of the potential, such as ``device="cuda"`` or ``weights="orb-v2.ckpt"``.

    Raises:
        ValueError: if there is no potential of that name, or the object is not a potential.
    """
    if not isinstance(potential, str):
        if options or not isinstance(potential, Potential):
            raise InputError(f"potential must be a name or an object with name, scale and energies, got {potential!r}")
        return potential
    if potential.endswith(_CORRECTED):
        return Corrected(load_potential(potential.removesuffix(_CORRECTED), **options))
    family, _, rest = potential.partition(":")
    if potential == "chgnet":
        return CHGNetPotential(**options)
    if family == "matgl" and rest:
        return MatglPotential(rest, **options)
    if family == "ase" and rest:
        return ASEPotential(rest, **options)
    if family.startswith("orb") and not rest:
        return OrbPotential("orb-v2" if potential == "orb" else potential, **options)
    if family.startswith("sevennet") and not rest:
        return SevenNetPotential("sevennet-l3i5" if potential == "sevennet" else potential, **options)
    raise InputError(f"potential must be {_FAMILIES}, or an object with name, scale and energies, got {potential!r}")

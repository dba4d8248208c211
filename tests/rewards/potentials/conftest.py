"""Real architectures with random weights, as files."""

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def orb_weights(tmp_path_factory):
    """Return a folder of random weights, one file a model."""
    pytest.importorskip("orb_models")
    from orb_models.forcefield import pretrained
    from orb_models.forcefield.atomic_system import SystemConfig

    models = {
        "orb-v2": ("orb_v2_architecture", 20),
        "orb-v3-conservative-20-mpa": ("orb_v3_conservative_architecture", 20),
        "orb-v3-conservative-inf-mpa": ("orb_v3_conservative_architecture", 120),
    }
    folder, state = tmp_path_factory.mktemp("orb"), torch.get_rng_state()
    torch.manual_seed(0)
    for name, (architecture, neighbors) in models.items():
        config = SystemConfig(radius=6.0, max_num_neighbors=neighbors)
        model = getattr(pretrained, architecture)(device="cpu", system_config=config)
        torch.save(model.state_dict(), folder / f"{name}.ckpt")
    torch.set_rng_state(state)
    return folder


@pytest.fixture(scope="session")
def random_models(tmp_path_factory):
    """A potential and a property model with random weights and a note that they are new."""
    pytest.importorskip("matgl")
    from matgl.apps.pes import Potential
    from matgl.config import DEFAULT_ELEMENTS
    from matgl.models import M3GNet

    from rewards.potentials.matgl_files import metadata

    folder, state = tmp_path_factory.mktemp("matgl"), torch.get_rng_state()
    torch.manual_seed(0)
    network = M3GNet(element_types=DEFAULT_ELEMENTS, is_intensive=False)
    Potential(network, data_std=3.0, element_refs=np.linspace(-5, 0, 89)).save(folder / "pes", metadata=metadata())
    Potential(network, data_std=3.0, element_refs=np.linspace(-5, 0, 89)).save(folder / "unknown")
    M3GNet(element_types=DEFAULT_ELEMENTS, is_intensive=True, ntargets=6).save(folder / "six", metadata=metadata())
    torch.set_rng_state(state)
    return folder

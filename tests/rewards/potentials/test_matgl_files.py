"""Files of matgl are loaded with the convention of their training, or refused."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms

from rewards.potentials.matgl import MatglPotential, MatglProperty
from rewards.potentials.matgl_files import _classes, load_matgl

pytest.importorskip("matgl")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def atoms(crystals):
    found = crystals[:4].to_atoms()
    for seed, one in enumerate(found):
        one.rattle(0.05, seed=seed)
    return found


FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


KNOWN = {
    "NaCl": Atoms("NaCl", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=5.69 * FCC, pbc=True),
    "MgO": Atoms("MgO", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=4.26 * FCC, pbc=True),
    "CaF2": Atoms("CaF2", scaled_positions=[(0, 0, 0), (0.25,) * 3, (0.75,) * 3], cell=5.51 * FCC, pbc=True),
}


def test_old_potential_gives_the_known_energies_of_compounds(models_folder):
    energies = MatglPotential(models_folder / "M3GNet-MP-2021.2.8-PES").energies(list(KNOWN.values()))
    per_atom = energies.total / [len(a) for a in KNOWN.values()]
    assert per_atom == pytest.approx([-3.368, -5.956, -5.816], abs=1e-3)


def test_old_gap_model_gives_the_known_gaps(models_folder):
    model = MatglProperty(models_folder / "MEGNet-MP-2019.4.1-BandGap-mfi")
    values, failures = model([KNOWN["NaCl"], KNOWN["CaF2"]])
    assert list(failures) == [None, None]
    assert values[:, 0] == pytest.approx([5.03, 6.61], abs=0.01)


def test_old_files_with_the_new_convention_predict_nonsense(models_folder):
    new = MatglPotential(models_folder / "M3GNet-MP-2021.2.8-PES", aggregation="source").energies([KNOWN["NaCl"]])
    assert new.total[0] / 2 == pytest.approx(-1.30, abs=0.05)


def test_messages_at_the_target_are_a_loop_over_edges():
    from matgl.layers._graph_convolution import M3GNetGraphConv, MEGNetGraphConv

    generator = torch.Generator().manual_seed(0)
    edges = torch.tensor([[0, 0, 1, 2, 2], [1, 2, 0, 0, 1]])
    feature, node, u = (torch.rand(n, 4, generator=generator) for n in (5, 3, 3))
    layer = MEGNetGraphConv(None, lambda x: x, None)
    layer.__class__ = _classes()["MEGNetGraphConv", "target"]
    found = layer.node_update_(edges, feature, node, u, 3)
    for i in range(3):
        mean = torch.stack([feature[e] for e in range(5) if edges[1, e] == i]).mean(0)
        torch.testing.assert_close(found[i], torch.cat([node[i], mean, u[i]]))
    layer = M3GNetGraphConv.__new__(M3GNetGraphConv)
    torch.nn.Module.__init__(layer)
    layer.include_state = False
    layer.node_update_func, layer.node_weight_func = lambda x: x[:, :4] + 2 * x[:, 4:8], lambda x: x
    layer.__class__ = _classes()["M3GNetGraphConv", "target"]
    found = layer.node_update_(edges, feature, node, feature, None, 3)
    for i in range(3):
        messages = [(node[edges[0, e]] + 2 * node[i]) * feature[e] for e in range(5) if edges[1, e] == i]
        torch.testing.assert_close(found[i], torch.stack(messages).sum(0))


def test_a_model_of_unknown_training_needs_the_argument(random_models, atoms):
    with pytest.raises(ValueError, match=r"the convention of .*unknown cannot be detected.*aggregation='source'"):
        MatglPotential(random_models / "unknown").energies(atoms)
    given = MatglPotential(random_models / "unknown", aggregation="source").energies(atoms)
    known = MatglPotential(random_models / "pes").energies(atoms)
    other = MatglPotential(random_models / "unknown", aggregation="target").energies(atoms)
    np.testing.assert_allclose(given.total, known.total, atol=1e-4)
    assert np.abs(other.total - known.total).max() > 1e-3


def test_another_network_of_unknown_training_needs_it_too(tmp_path, atoms):
    from matgl.apps.pes import Potential
    from matgl.config import DEFAULT_ELEMENTS
    from matgl.models import TensorNet

    Potential(TensorNet(element_types=DEFAULT_ELEMENTS, is_intensive=False)).save(tmp_path)
    with pytest.raises(
        ValueError, match=r"the TensorNet .* may be older than matgl 3.0 .* misses the energies of NaCl, MgO, CaF2"
    ):
        MatglPotential(tmp_path).energies(atoms)
    given = MatglPotential(tmp_path, aggregation="source").energies(atoms)
    assert list(given.failures) == [None] * len(atoms)
    with pytest.raises(ValueError, match="older ones cannot be restored"):
        MatglPotential(tmp_path, aggregation="target").energies(atoms)


def test_loading_leaves_the_settings_of_torch_as_found(random_models):
    before = torch.get_default_dtype(), torch.get_rng_state(), set(torch.serialization.get_safe_globals())
    load_matgl(random_models / "pes")
    assert torch.get_default_dtype() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert set(torch.serialization.get_safe_globals()) == before[2]


def test_wrong_folders_and_names_say_what_is_missing(random_models, atoms, tmp_path, monkeypatch):
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is no matgl model: it has no model.pt, state.pt"):
        MatglPotential(tmp_path).energies(atoms)
    for name in ("model.pt", "state.pt"):
        (tmp_path / name).write_text("nothing")
    (tmp_path / "model.json").write_text(json.dumps({"@class": "M3GNet", "@module": "matgl.models"}))
    with pytest.raises(ValueError, match="is no model that this matgl can load"):
        MatglPotential(tmp_path).energies(atoms)
    with pytest.raises(FileNotFoundError, match=r"there is no folder ./gone"):
        MatglPotential("./gone").energies(atoms)
    with pytest.raises(ValueError, match="is a property model, no potential"):
        MatglPotential(random_models / "six").energies(atoms)
    with pytest.raises(ValueError, match="is a potential, no property model"):
        MatglProperty(random_models / "pes")(atoms)
    with pytest.raises(ValueError, match=r"^aggregation must be one of .*got 'left'"):
        load_matgl(random_models / "pes", "left")
    with pytest.raises(ValueError, match=r"^precision must be"):
        MatglPotential("x", precision="half")


def test_a_model_that_cannot_be_fetched_names_its_files(monkeypatch, atoms):
    import matgl.utils.io

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(matgl.utils.io, "hf_hub_download", offline)
    with pytest.raises(FileNotFoundError, match=r"'M3GNet-Nowhere' is no folder and could not be fetched.*model.json"):
        MatglPotential("M3GNet-Nowhere").energies(atoms)

"""Graphs of matgl against its own converter, and what has no graph."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms

from rewards.potentials.matgl_graphs import evaluate_graphs, graph_of

pytest.importorskip("matgl")
pytestmark = pytest.mark.filterwarnings("ignore")

NETWORK = SimpleNamespace(element_types=("O", "Sr", "Ti", "Na", "Cl"), cutoff=5.0)


def test_edges_are_those_of_ases_neighbour_list(crystals):
    from ase.neighborlist import neighbor_list

    for atoms in crystals[:2].to_atoms():
        graph, cost = graph_of(atoms, NETWORK, "float64")
        i, j, shifts = neighbor_list("ijS", atoms, NETWORK.cutoff)
        expected = sorted(zip(i.tolist(), j.tolist(), shifts.tolist(), strict=True))
        edges = zip(*graph.edge_index.tolist(), graph.pbc_offset.int().tolist(), strict=True)
        assert sorted(edges) == expected
        assert cost == len(i)
        symbols = [NETWORK.element_types[index] for index in graph.node_type.tolist()]
        assert symbols == atoms.get_chemical_symbols()


def test_structures_without_a_graph_are_value_errors():
    gold, lonely = Atoms("Au", cell=np.eye(3) * 3, pbc=True), Atoms("O", cell=np.eye(3) * 20, pbc=True)
    lost = Atoms("O", positions=[[np.nan, 0, 0]], cell=np.eye(3) * 3, pbc=True)
    for atoms, reason in (
        (gold, "does not know Au"), (lonely, "no two atoms are within 5 Å"), (lost, "must be finite"),
        (Atoms(cell=np.eye(3)), "there are no atoms"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            graph_of(atoms, NETWORK)


def test_a_batch_of_graphs_gives_what_each_gives_alone(random_models, crystals):
    from rewards.potentials.matgl_files import load_matgl

    model = load_matgl(random_models / "pes")
    graphs = [graph_of(atoms, model.model)[0] for atoms in crystals[:4].to_atoms()]
    together = evaluate_graphs(model, graphs, "cpu", forces=True)
    for graph, (energy, forces, stress) in zip(graphs, together, strict=True):
        alone = evaluate_graphs(model, [graph], "cpu", forces=True)[0]
        assert energy == pytest.approx(alone[0], abs=1e-3)
        np.testing.assert_allclose(forces, alone[1], atol=1e-3)
        np.testing.assert_allclose(stress, alone[2], atol=1e-4)
        assert evaluate_graphs(model, [graph], "cpu")[0] == pytest.approx(alone[0], abs=1e-3)

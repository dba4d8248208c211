"""Figures S1 to S3 against plain loops, on tiny data."""

from dataclasses import replace

from benchmarks.paper.dataset import element_counts, fig_s1, fig_s2, fig_s3
from rewards import Validity


def test_fig_s1_and_s2_count_the_training_set(work, known, monkeypatch):
    monkeypatch.setattr(work, "settings", replace(work.settings, size=None))
    groups = fig_s1(work).data["counts"]
    crystals = list(work.training.crystals)
    assert len(crystals) == 30
    assert {group: count for group, count in groups.items() if count} == {
        group: [crystal.G for crystal in crystals].count(group) for group in {crystal.G for crystal in crystals}
    }
    elements = fig_s2(work).data["counts"]
    for symbol in ("Na", "K", "Cl", "F", "O"):
        assert elements[symbol] == sum(symbol in crystal.to_structure().symbol_set for crystal in crystals)
    assert element_counts(known).sum() == sum(len(crystal.to_structure().symbol_set) for crystal in known)


def test_fig_s3_counts_the_valid_ones(work):
    outcome = fig_s3(work)
    for name, short in (("mp20", "MP-20"), ("rl", "RL")):
        terms = Validity()(work.crystals(name, 12)).terms
        for kind in ("structural", "compositional"):
            assert outcome.data[short][kind] == sum(value > 0 for value in terms[kind])
            assert outcome.estimates[f"{kind}ly valid, {short} (%)"].value == 100 * sum(terms[kind]) / 12
    assert outcome.estimates["structurally valid, Alex-20 (%)"].value is None

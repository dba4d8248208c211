import pytest
from scipy.stats import binomtest

from benchmarks.report.folder import read
from benchmarks.report.samples import energies, group_symbol, groups, totals


def test_energies_are_counted_in_their_bins(folder, rows_of):
    known = [
        row["e_above_hull"] for seed in range(3) for row in rows_of(seed, True) if row.get("e_above_hull", "") != ""
    ]
    figure = energies(read(folder))
    (bars,) = figure.data
    assert sum(bars["y"]) == len(known)
    for middle, count in zip(bars["x"][1:-1], bars["y"][1:-1], strict=True):
        assert count == sum(middle - 0.025 <= energy < middle + 0.025 for energy in known), middle
    assert figure.caption.startswith(f"{sum(energy <= 0.1 for energy in known)} of 147 ")
    assert [shape["x0"] for shape in figure.layout["shapes"]] == [0.1]


def test_bars_of_groups_are_sun_rates_with_wilson_intervals(folder, rows_of):
    hits, attempts = {221: 0, 225: 0}, {221: 0, 225: 0}
    for seed in range(3):
        seen = set()
        for row in rows_of(seed, True):
            group = row["requested_space_group"]
            attempts[group] += 1
            energy = row.get("e_above_hull", "")
            if energy != "" and energy <= 0.1 and row["label"] not in seen:
                seen.add(row["label"])
                hits[group] += row["novel"]
    figure = groups(read(folder))
    (bars,) = figure.data
    assert bars["y"] == ["Pm-3m  221", "Fm-3m  225"]
    assert bars["customdata"] == [[hits[group], attempts[group]] for group in (221, 225)]
    for i, group in enumerate((221, 225)):
        interval = binomtest(hits[group], attempts[group]).proportion_ci(method="wilson")
        assert bars["x"][i] - bars["error_x"]["arrayminus"][i] == pytest.approx(100 * interval.low, abs=1e-3)
        assert bars["x"][i] + bars["error_x"]["array"][i] == pytest.approx(100 * interval.high, abs=1e-3)


def test_symbols_of_groups():
    assert [group_symbol(number) for number in (2, 14, 225)] == ["P-1", "P2₁/c", "Fm-3m"]


def test_totals_have_the_line_of_success(tmp_path, write_results):
    results = read(write_results(tmp_path / "one", energetic=False, threshold=0.05))
    figure = totals(results)
    assert sum(figure.data[0]["y"]) == 3 * 48
    assert [shape["x0"] for shape in figure.layout["shapes"]] == [0.05]
    assert energies(results) is None

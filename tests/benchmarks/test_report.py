"""The page shows what the folder holds, needs nothing else, and works in a browser."""

import base64
import csv
import gzip
import json
import os
import re
import select
import shutil
import subprocess
import time
from html import unescape

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from scipy.stats import binomtest

from benchmarks.report import report
from benchmarks.report.chemistry import elements, sunburst
from benchmarks.report.crystals import best, scene
from benchmarks.report.curves import learning, over_seeds, scatter
from benchmarks.report.folder import read
from benchmarks.report.samples import energies, group_symbol, groups, totals
from crystal_env.crystal import Crystal, CrystalBatch

ALKALIS, HALOGENS = ("Li", "Na", "K", "Rb"), ("F", "Cl", "Br", "N")
ROCK_SALT = "225-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90"
CAESIUM_CHLORIDE = "221-a-{}-0-0-0-b-{}-1/2-1/2-1/2-X-{a}-{a}-{a}-90-90-90"


def rows_of(seed, energetic):
    """Return attempts: two dozen crystals of two groups, some twice, and one attempt without a crystal."""
    rng, rows, first = np.random.default_rng(seed), [], {}
    for row in range(48):
        text = (ROCK_SALT, CAESIUM_CHLORIDE)[row % 2].format(
            rng.choice(ALKALIS), rng.choice(HALOGENS), a=(5.6, 3.5)[row % 2]
        )
        crystal = Crystal.from_string(text)
        energy = rng.normal(0.1, 0.15)
        rows.append(
            {
                "row": row,
                "case": 0,
                "formula": crystal.formula,
                "space_group": crystal.G,
                "requested_space_group": crystal.G,
                "crystal": str(crystal),
                "cif": crystal.to_structure().to(fmt="cif"),
                "total": -energy,
                "e_above_hull": energy if energetic and row % 7 else "",
                "structural": 1,
                "compositional": row % 3 // 2,
                "novel": int(rng.random() < 0.7),
                "label": first.setdefault(text, row),
            }
        )
    rows.append({"row": 48, "case": 0, "requested_space_group": 221})
    return rows


def entry_of(seed):
    share = {"count": 12 + seed, "of": 49, "share": (12 + seed) / 49, "interval": [0.1, 0.4]}
    calls = [10, 20, 30]
    curve = {"calls": calls, **{f"top-{k}": [-0.3, -0.1 - seed / 100, 0.05 * seed] for k in (1, 10, 100)}}
    return {
        "seed": seed,
        "score": 0.2 + seed / 100,
        "calls": 30,
        "budget": 30,
        "seconds": {"training": 100.0, "drawing": 2.0, "evaluation": 3.0},
        "details": [{}],
        "attempts without a crystal": {"an action that is not allowed": 1},
        "summary": {
            "shares": {"valid": share, "S.U.N. (≤ 0.1 eV/atom)": share},
            "mean e_above_hull": 0.12,
            "intervals": {"mean e_above_hull": [0.1, 0.14]},
            "variety": {"formulas": 16.0},
        },
        "efficiency": {"auc top-10": 0.5, "calls to 1": None},
        "curve": curve | {"mean": [-1.0, -0.5, -0.2]},
        "checks": [
            {"name": "holes", "passed": seed != 1, "value": 0.1, "limit": "at most 1%", "detail": f"{seed} crystals"},
            {"name": "forces", "passed": None, "value": None, "limit": "", "detail": "nothing was relaxed"},
        ],
    }


def write_results(folder, seeds=(0, 1, 2), energetic=True, name="An agent", **task):
    """Write a folder as ``crystalgen benchmark run`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [entry_of(seed) for seed in seeds]
    scores = [entry["score"] for entry in entries]
    results = {
        "schema": "crystalgen-results/1",
        "task": {
            "id": "CrystalGen-Stability-v1",
            "summary": "stable crystals",
            "reward": "rewards:EnergyAboveHull" if energetic else "rewards:Validity",
            "score": "S.U.N.",
            "threshold": -0.1,
            "range": [-1.0, 0.2],
            "size": 49,
            "cases": [{}],
            "digest": "0123456789abcdef",
            **task,
        },
        "agent": {"name": name, "source": "module:Agent", "settings": {"tau": 0.1}},
        "score": {
            "name": task.get("score", "S.U.N."),
            "value": float(np.mean(scores)),
            "interval": [min(scores), max(scores)] if len(scores) > 1 else None,
            "per_seed": scores,
        },
        "seeds": entries,
        "flags": ["holes"] if 1 in seeds else [],
        "provenance": {"hashes": {"hull": "abc"}, "versions": {"numpy": "2"}, "hardware": {"cores": 2}, "seconds": 300},
    }
    (folder / "results.json").write_text(json.dumps(results))
    for seed in seeds:
        place = folder / f"seed-{seed}"
        place.mkdir(exist_ok=True)
        rows = rows_of(seed, energetic)
        with gzip.open(place / "samples.csv.gz", "wt", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), restval="")
            table.writeheader()
            table.writerows(rows)
        np.savez(place / "trace.npz", total=np.linspace(-1, 0.1, 30), failure=np.array(["", "broken"] * 15))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="module")
def page(folder):
    return report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "PLOTLY")


def drawn_data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_everything_it_needs(folder, page):
    assert page.count("PLOTLY") == 1
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert not re.search(r"<link|@import|url\(|\bsrc=", page)
    assert "default-src 'none'" in page
    assert (folder / "report.html").stat().st_size < 12e6
    assert {path.name for path in folder.iterdir()} == {"results.json", "report.html", "seed-0", "seed-1", "seed-2"}


def test_equal_folders_give_equal_pages(folder, page):
    assert report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "PLOTLY") == page


def test_plotly_knows_every_property_of_the_figures(page):
    figures = drawn_data(re.sub(r"var\(--[\w-]+\)", "#123456", page))["figures"]
    assert list(figures) == ["learning", "energies", "groups", "scatter", "sunburst", "elements"]
    for figure in figures.values():
        go.Figure(figure["data"], figure["layout"])


def test_every_colour_is_one_of_the_style_in_light_and_dark(page):
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    light, dark = page.split("@media (prefers-color-scheme: dark)", 1)
    assert used <= set(re.findall(r"(--[\w-]+):", light)) & set(re.findall(r"(--[\w-]+):", dark.split("\n}\n")[0]))


def test_energies_are_counted_in_their_bins(folder):
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


def test_bars_of_groups_are_sun_shares_with_wilson_intervals(folder):
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


def test_curves_are_means_with_bands_and_answers_that_did_not_fail(folder):
    traces = {trace.get("name"): trace for trace in learning(read(folder)).data}
    assert traces["best 1"]["y"] == pytest.approx([-0.3, -0.11, 0.05])
    assert len(traces["answers"]["x"]) == 45
    assert set(traces["answers"]["x"]) == set(range(1, 31, 2))


def test_intervals_of_curves():
    two = np.array([[0.0, 1.0], [2.0, 1.0]])
    np.testing.assert_array_equal(over_seeds(two), [[1, 1], [0, 1], [2, 1]])
    values = np.random.default_rng(0).normal(size=(8, 400))
    middle, low, high = over_seeds(values)
    np.testing.assert_allclose(middle, np.sort(values, axis=0)[2:6].mean(0))
    assert (low <= middle).all()
    assert (middle <= high).all()
    covered = ((low < 0) & (high > 0)).mean()
    assert 0.8 < covered < 0.99  # the bootstrap of eight values is a little too narrow


def test_elements_and_groups_are_counted(folder):
    results = read(folder)
    texts = [row["crystal"] for seed in range(3) for row in rows_of(seed, True) if "crystal" in row]
    empty, full = elements(results).data
    places = np.argwhere(np.array(full["text"]) == "Na")
    assert places.tolist() == [[2, 0]]
    assert full["z"][2][0] == pytest.approx(100 * np.mean(["-Na-" in text for text in texts]), abs=1e-3)
    assert sum(text != "" for row in empty["text"] + full["text"] for text in row) == 118
    burst = dict(zip(sunburst(results).data[0]["ids"], sunburst(results).data[0]["values"], strict=True))
    assert burst == {"cubic": 144, "221": 72, "225": 72}


def test_symbols_of_groups():
    assert [group_symbol(number) for number in (2, 14, 225)] == ["P-1", "P2₁/c", "Fm-3m"]


def test_the_best_are_sun_and_then_by_reward(folder):
    results = read(folder)
    what, counted = results.counted
    assert what == "S.U.N."
    rows = [row for seed in range(3) for row in rows_of(seed, True)]
    ordered = sorted(np.flatnonzero(counted), key=lambda i: -rows[i]["total"])
    expected = list(dict.fromkeys((rows[i]["formula"], rows[i]["space_group"]) for i in ordered))[:6]
    assert [(one["formula"], int(one["group"].split("(")[1][:-1])) for one in best(results)] == expected


def test_crystals_can_be_downloaded(page):
    from pymatgen.core import Composition, Structure

    cards = re.findall(r'download="([^"]+)" href="data:chemical/x-cif;base64,([^"]+)"', page)
    assert len(cards) == 6
    for name, text in cards:
        structure = Structure.from_str(base64.b64decode(text).decode(), fmt="cif")
        formula, group = name.removesuffix(".cif").rsplit("-", 1)
        assert structure.get_space_group_info(0.01)[1] == int(group)
        assert structure.composition.reduced_formula == Composition(formula).reduced_formula


def test_a_scene_has_the_atoms_in_and_on_the_cell():
    crystal = Crystal.from_string(ROCK_SALT.format("Na", "Cl", a=5.64))
    drawn = scene(crystal)
    atoms = {element["symbol"]: np.array(element["atoms"]) for element in drawn["elements"]}
    inside = {name: ((at > -0.1) & (at < 5.74)).all(1).sum() for name, at in atoms.items()}
    assert inside == {"Na": 14, "Cl": 13}
    np.testing.assert_allclose(drawn["cell"], 5.64 * np.eye(3), atol=1e-3)
    lengths = [2 * np.linalg.norm(np.subtract(start, end)) for start, end, _ in drawn["sticks"]]
    np.testing.assert_allclose(lengths, 2.82, atol=0.01)


def test_sodium_nitride_is_a_formula(folder):
    assert "NaN" in set(read(folder).table["formula"])


def test_metrics_checks_and_flags_are_on_the_page(page):
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))
    interval = binomtest(12 + 13 + 14, 3 * 49).proportion_ci(method="wilson")
    assert f"{100 * 39 / 147:.1f} % {100 * interval.low:.1f} to {100 * interval.high:.1f}" in text
    assert "1 check has failed: this score is doubtful. holes: seed 1: 1 crystals. Allowed: at most 1%." in text
    assert "seed 0 passed seed 1 failed seed 2 passed" in text
    assert "0.2100 95 %: 0.2000 to 0.2200" in text
    assert "an action that is not allowed 3" in text


def test_names_are_text(tmp_path):
    name = '<img src=x onerror="alert(1)"></script>'
    page = report(write_results(tmp_path / "odd", name=name)).read_text(encoding="utf-8")
    assert name not in page
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in page


def test_what_is_missing_is_left_out(tmp_path):
    folder = write_results(tmp_path / "bare", seeds=(0,), energetic=False, score="valid and unique")
    (folder / "seed-0" / "trace.npz").unlink()
    page = report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert list(drawn_data(page)["figures"]) == ["learning", "totals", "groups", "scatter", "sunburst", "elements"]
    assert "one seed" in page
    shutil.rmtree(folder / "seed-0")
    page = report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert list(drawn_data(page)["figures"]) == ["learning"]
    assert drawn_data(page)["crystals"] == []
    results = json.loads((folder / "results.json").read_text())
    results["seeds"][0]["curve"] = {"calls": [], "top-1": [], "top-10": [], "top-100": [], "mean": []}
    results["seeds"][0]["checks"] = []
    (folder / "results.json").write_text(json.dumps(results))
    assert drawn_data(report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), ""))["figures"] == {}


def test_rewards_of_two_terms_have_lines_of_equal_worth(folder):
    results = read(folder)
    n = len(results.table)
    table = results.table.assign(**{"term:band_gap": np.linspace(0, 8, n), "term:dielectric_constant": 12.0})
    task = {**results.task, "threshold": 30.0}
    figure = scatter(type(results)(folder, results.values | {"task": task}, table, results.trace))
    lines = [trace for trace in figure.data if trace["mode"] == "lines+text"]
    assert [trace["text"][-1] for trace in lines] == ["7.5 eV", "15 eV", "30 eV", "60 eV"]
    for trace in lines:
        merit = float(trace["text"][-1].removesuffix(" eV"))
        np.testing.assert_allclose(np.multiply(trace["x"], trace["y"]), merit, rtol=1e-3)
    table = results.table.assign(**{"term:bulk_modulus": np.linspace(0, 300, n), "term:e_above_hull": 0.2})
    front = scatter(type(results)(folder, results.values, table, results.trace)).data[-1]
    valid = results.column("compositional") > 0
    assert front["x"] == pytest.approx([table["term:bulk_modulus"][valid].max()], abs=1e-3)


def test_totals_have_the_line_of_success(tmp_path):
    results = read(write_results(tmp_path / "one", energetic=False, threshold=0.05))
    figure = totals(results)
    assert sum(figure.data[0]["y"]) == 3 * 48
    assert [shape["x0"] for shape in figure.layout["shapes"]] == [0.05]
    assert energies(results) is None


def test_cases_have_a_table(tmp_path):
    folder = write_results(tmp_path / "cases", cases=[{"formula": "NaCl"}, {"formula": "KBr"}])
    results = json.loads((folder / "results.json").read_text())
    for entry in results["seeds"]:
        entry["details"] = [{"rank of the match": 3, "formula": "NaCl"}, {"rank of the match": None, "formula": "KBr"}]
    (folder / "results.json").write_text(json.dumps(results))
    text = report(folder).read_text(encoding="utf-8")
    assert "<tr><td>NaCl</td>" + 3 * "<td>rank of the match: 3</td>" + "</tr>" in text
    assert "<tr><td>KBr</td>" + 3 * "<td>rank of the match: –</td>" + "</tr>" in text


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"folder must have a results\.json"):
        report(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": "crystalgen-results/9"}')
    with pytest.raises(ValueError, match="must be of the schema 'crystalgen-results/1', got 'crystalgen-results/9'"):
        report(tmp_path)


def test_the_crystals_of_the_table_are_those_that_were_written(folder):
    texts = [row["crystal"] for seed in range(3) for row in rows_of(seed, True) if "crystal" in row]
    expected = CrystalBatch.from_crystals([Crystal.from_string(text) for text in texts])
    np.testing.assert_array_equal(read(folder).crystals.A, expected.A)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """Headless Chromium, spoken to in the DevTools protocol over a pair of pipes."""

    def __init__(self, profile):
        theirs_in, self.ours_out = os.pipe()
        self.ours_in, theirs_out = os.pipe()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader",
                   f"--user-data-dir={profile}", "--remote-debugging-pipe"]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.session, self.asked, self.unread, self.events = {}, 0, b"", []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, method, **params):
        self.asked += 1
        message = {"id": self.asked, "method": method, "params": params, **self.session}
        os.write(self.ours_out, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.asked:
            self.events.append(answer)
        return answer["result"]

    def read(self):
        while b"\0" not in self.unread:
            assert select.select([self.ours_in], [], [], 60)[0], "the browser is silent"
            part = os.read(self.ours_in, 1 << 20)
            assert part, "the browser has gone"
            self.unread += part
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def value(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        os.close(self.ours_in)
        os.close(self.ours_out)


@pytest.fixture
def browser(tmp_path):
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def wait_for(browser, expression):
    deadline = time.monotonic() + 120
    while not browser.value(expression):
        assert browser.value("document.documentElement.dataset.problem") is None
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


def test_a_browser_draws_it_on_a_phone_in_the_dark_without_a_network(folder, page, browser):
    for domain in ("Page", "Network", "Runtime", "Log"):
        browser.ask(f"{domain}.enable")
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.ask("Page.navigate", url=(folder / "report.html").as_uri())
    wait_for(browser, "document.documentElement.dataset.figures === '6'")
    for number in range(6):
        browser.value(f"document.getElementById('crystal-{number}').scrollIntoView()")
        wait_for(browser, f"document.querySelector('#crystal-{number} canvas') !== null")
    wait_for(browser, "document.documentElement.dataset.crystals === '6'")
    assert browser.value("document.documentElement.scrollWidth") == 390
    assert browser.value("document.querySelectorAll('.plot .main-svg').length") >= 6
    assert (
        browser.value("getComputedStyle(document.querySelector('#energies .xtick text')).fill") == "rgb(230, 234, 240)"
    )
    asked = [one["params"]["request"]["url"] for one in browser.events if one["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert [url for url in asked if url.startswith("file:")] == [(folder / "report.html").as_uri()]
    assert not [one for one in browser.events if one["method"] == "Runtime.exceptionThrown"]
    entries = [one["params"]["entry"] for one in browser.events if one["method"] == "Log.entryAdded"]
    assert not [entry for entry in entries if entry["level"] == "error"]
    said = [one["params"] for one in browser.events if one["method"] == "Runtime.consoleAPICalled"]
    assert not [one for one in said if one["type"] in ("error", "warning")]

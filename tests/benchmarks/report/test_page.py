"""The page shows what the folder holds, needs nothing else, and works in a browser."""

import json
import os
import re
import select
import shutil
import subprocess
import time

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from benchmarks.report import report


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


def test_names_are_text(tmp_path, write_results):
    name = '<img src=x onerror="alert(1)"></script>'
    page = report(write_results(tmp_path / "odd", name=name)).read_text(encoding="utf-8")
    assert name not in page
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in page


def test_what_is_missing_is_left_out(tmp_path, write_results):
    folder = write_results(tmp_path / "bare", seeds=(0,), energetic=False, score="valid_unique")
    (folder / "seed-0" / "trace.npz").unlink()
    page = report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert list(drawn_data(page)["figures"]) == ["learning", "totals", "groups", "scatter", "sunburst", "elements"]
    assert "one seed" in page
    shutil.rmtree(folder / "seed-0")
    page = report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert list(drawn_data(page)["figures"]) == ["learning"]
    assert drawn_data(page)["crystals"] == []
    results = json.loads((folder / "results.json").read_text())
    results["seeds"][0]["curve"] = {"calls": [], "top_1": [], "top_10": [], "top_100": [], "mean": []}
    results["seeds"][0]["checks"] = []
    (folder / "results.json").write_text(json.dumps(results))
    assert drawn_data(report(folder).read_text(encoding="utf-8").replace(get_plotlyjs(), ""))["figures"] == {}


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
        self.session, self.sent, self.unread, self.events = {}, 0, b"", []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, method, **params):
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params, **self.session}
        os.write(self.ours_out, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.sent:
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
    requests = [
        one["params"]["request"]["url"] for one in browser.events if one["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    assert [url for url in requests if url.startswith("file:")] == [(folder / "report.html").as_uri()]
    assert not [one for one in browser.events if one["method"] == "Runtime.exceptionThrown"]
    entries = [one["params"]["entry"] for one in browser.events if one["method"] == "Log.entryAdded"]
    assert not [entry for entry in entries if entry["level"] == "error"]
    said = [one["params"] for one in browser.events if one["method"] == "Runtime.consoleAPICalled"]
    assert not [one for one in said if one["type"] in ("error", "warning")]

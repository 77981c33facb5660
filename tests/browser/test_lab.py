"""Notebooks in a real JupyterLab: the explorer of 05 says and saves the record's numbers, and a new text can be read;
02 with a wrong value, without a mouse, interrupted, restarted, and beside another writer."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import numpy as np
import pytest

from studykit.attention.record import FusionRecord, mean_weights
from studykit.attention.token_kinds import KINDS
from studykit.runs import files, locks
from tests import tiny
from tests.browser.test_explorer import Opened, matrix
from tests.notebooks.conftest import copy_project
from tests.project import environment

pytestmark = pytest.mark.notebooks
NOTEBOOK = "notebooks/05_fusion_attention.ipynb"
OUT = "runs/fusion_attention/lab-0000000009"
ADAPTER = "notebooks/02_adapter.ipynb"
TRAINED = "runs/adapter/lab-0000000008"
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
CELLS = "[...window.jupyterapp.shell.currentWidget.content.model.cells].filter(c => c.type === 'code')"
ERRORS = f"{CELLS}.flatMap(c => c.outputs.toJSON()).filter(o => o.output_type === 'error').map(o => o.evalue)"
DONE = f"() => {ERRORS}.length > 0 || {CELLS}.every(c => c.executionCount !== null)"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose notebook 05 stands on miniature runs: a fusion of two phases with random weights."""
    home = copy_project(tmp_path_factory.mktemp("lab"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_HOME", str(home))
        patch.chdir(home)
        p = tiny.trained_fusion(home, "exclude")
    runs = {"base": p.base, "data": p.data}
    fill(home / NOTEBOOK, runs | {"trained_runs": [p.out], "method": "advfusion_exclude", "seeds": [0], "samples": 4,
                                  "out": OUT})  # fmt: skip
    fill(home / ADAPTER, runs | {"start": [], "language": "lua", "steps": 400, "eval_every": 20, "patience": 0,
                                 "batch_size": 4, "out": TRAINED})  # fmt: skip
    return home


def fill(file, values):
    """Writes values into the parameters cell of a notebook."""
    notebook = nbformat.read(file, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in values.items():
        cell.source = re.sub(rf"^({name}: .+?) = .*?(  # .*)$", rf"\1 = {value!r}\2", cell.source, flags=re.M)
    nbformat.write(notebook, file)


@pytest.fixture(scope="module")
def lab(project, tmp_path_factory):
    """The address of a JupyterLab on the project."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = tmp_path_factory.mktemp("jupyter")
    kinds = ("_CONFIG", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")
    places = {f"JUPYTER{kind}_DIR": str(own / kind) for kind in kinds}
    settings = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root", "--IdentityProvider.token=t",
                "--LabApp.expose_app_in_browser=True",
                f"--LabApp.app_settings_dir={project}/profiles/jupyterlab",
                f"--ServerApp.root_dir={project}"]  # fmt: skip
    with open(own / "log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *settings], stdout=log, stderr=subprocess.STDOUT, cwd=project,
            env=environment(project) | places | {"JUPYTER_PREFER_ENV_PATH": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status?token=t", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, (own / "log").read_text()[-2000:]
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(20)


class InLab(Opened):
    """The explorer with this title in a page of JupyterLab, ready."""

    def __init__(self, page, title):
        self.page = page
        self.frame = page.wait_for_selector(f"iframe[title^='{title}']", timeout=60_000).content_frame()
        self.frame.wait_for_selector("html[data-ready]", timeout=20_000)

    def csv(self):
        """The rows of a CSV saved from the page."""
        with self.saved("CSV").path().open(newline="") as file:
            return [row | {"weight": float(row["weight"])} for row in csv.DictReader(file)]


def explore_as_a_reader(shown, records):
    """Whatever the explorer says and saves is what the run recorded; means are of completion tokens."""
    first, last = records.values()
    shown.view("compare")
    difference = [row for row in shown.rows() if "weight_difference" in row]
    change = mean_weights(last) - mean_weights(first)
    np.testing.assert_allclose(matrix(difference, last, "weight_difference"), change, atol=1e-6)
    shown.view("layers")
    series = [one["label"] for one in json.loads(shown.frame.text_content("#data"))["series"]]
    for number, (name, record) in enumerate(records.items()):
        shown.choose(b=str(series.index(name)))
        assert f"{name}: n = 4 samples, {record.counts[:, 1].sum()} completion tokens" in shown.caption()
        layer, member = number % len(record.layers), number  # another cell each time
        index, words = shown.cells(f"{name} · {record.layers[layer]} · {record.members[member]}")[0]
        assert shown.hover(index) == words
        said = float(re.search(r": ([\d.]+) %", words)[1])
        assert said == pytest.approx(100 * mean_weights(record)[layer, member], abs=0.051)
        np.testing.assert_allclose(matrix(shown.rows(), record), mean_weights(record), atol=1e-6)
        np.testing.assert_allclose(matrix(shown.csv(), record), mean_weights(record), atol=1e-6)
    shown.choose_kinds(KINDS.index("literal"))
    expected = mean_weights(last, kinds=["literal"])
    np.testing.assert_allclose(matrix(shown.rows(), last), expected, atol=1e-6)
    assert abs(expected - mean_weights(last)).max() > 1e-4 and "of kind literal" in shown.caption()
    shown.choose_kinds()
    shown.view("tokens")
    shown.choose(show="b")
    for layer, name in enumerate(last.layers):
        shown.frame.fill("#choose-layer", str(layer))
        rows = shown.rows()
        assert {row["layer"] for row in rows} == {name}
        assert [row["token"] for row in rows][:: len(last.members)] == last.samples[0].tokens
        weights = np.reshape([row["weight"] for row in rows], (-1, len(last.members)))
        np.testing.assert_allclose(weights, last.samples[0].weights[layer], atol=5e-3)


def struck(frame):
    """The names in the list of members that have a line through them."""
    lines = frame.locator(".tick.muted")
    assert all("line-through" in style for style in lines.evaluate_all(
        "lines => lines.map(line => getComputedStyle(line).textDecoration)"))  # fmt: skip
    return set(lines.all_text_contents())


def open_notebook(page, lab, name):
    page.goto(f"{lab}/lab/tree/{name}?token=t&reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=90_000)
    page.wait_for_function(IDLE, timeout=90_000)


def test_notebook_05_in_jupyterlab(lab, project, browser, tmp_path):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    open_notebook(page, lab, NOTEBOOK)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(DONE, timeout=120_000)
    assert page.evaluate(ERRORS) == []

    def go_to(words):
        page.evaluate(f"""() => {{ const all = window.jupyterapp.shell.currentWidget.content;
            const at = all.widgets.findIndex(w => w.model.sharedModel.getSource().startsWith({words!r}));
            all.activeCellIndex = at; return all.scrollToItem(at, 'start'); }}""")

    go_to("explore(")
    shown = InLab(page, "advfusion_exclude, target lua")
    assert "exactly 0" in shown.frame.text_content(".check")
    keys = {"phase 1, restored": "phase1", "phase 2": "phase2"}
    records = {
        f"advfusion_exclude · {name}": FusionRecord.load(project / OUT / f"records/s0-{key}.npz")
        for name, key in keys.items()
    }
    explore_as_a_reader(shown, records)

    go_to("live.bench(")
    bench = InLab(page, "Recorded weights")
    assert bench.frame.locator("[id^=chip-]").count(), "weights are there at once"
    bench.frame.fill("#bench-prompt", "count to 2 in lua, my own words\n")
    bench.frame.fill("#bench-completion", "lua: 0 1")
    bench.frame.click("#bench-mute-lua")
    assert bench.frame.get_attribute("#bench-mute-lua", "aria-pressed") == "true"
    assert struck(bench.frame) == {"lua"}, "a line through the name, in the list of all members, too"
    bench.frame.click("#bench-read")
    own = InLab(page, "Own text")
    assert "my own words" in own.frame.input_value("#bench-prompt"), "the text stays"
    assert own.frame.get_attribute("#tab-tokens", "aria-selected") == "true", "in the strip"
    own.view("compare")
    assert own.frame.locator("[id^=chip-a-]").count() == 2, "as trained, and muted"
    silent = [words for _, words in own.cells("lua muted · ") if "lua (target)" in words]
    assert silent and all(words.endswith(": 0.0 %") for words in silent), "the muted member has no weight"
    losses = own.frame.locator(".readings .loss").all_text_contents()
    assert len(losses) == 2 and losses[0] != losses[1], "its absence tells"
    page.screenshot(path=tmp_path / "lab.png")
    own.view("tokens")
    own.frame.fill("#choose-query", "my own words")
    assert "match the search" in own.caption()
    own.frame.select_option("#bench-phase", "phase1")
    assert own.frame.get_attribute("#bench-mute-lua", "aria-pressed") == "true", "phase 1 begins with its own mask"
    own.frame.fill("#bench-prompt", " ")
    own.frame.click("#bench-read")
    own.frame.wait_for_selector(".now.wrong:has-text('the prompt is empty')")
    own.frame.fill("#bench-prompt", "count to 2 in lua, my own words\n")
    own.frame.press("#bench-prompt", "Control+Enter")
    page.wait_for_function(
        """() => [...document.querySelectorAll("iframe[title^='Own text']")]
        .some(frame => frame.srcdoc.includes(", phase 1: n = 1 text"))""",
        timeout=30_000,
    )
    own = InLab(page, "Own text")
    other = own.frame.locator(".readings .loss").all_text_contents()
    assert len(other) == 1 and other[0] not in losses, "it is read as trained"
    assert own.frame.get_attribute("#tab-tokens", "aria-selected") == "true", "the view stays"
    own.view("layers")
    own.frame.click("#bench-mute-ruby")
    own.frame.click("#bench-read")
    page.wait_for_function("""() => [...document.querySelectorAll("iframe[title^='Own text']")]
        .some(frame => frame.srcdoc.includes("excluded from the softmax"))""", timeout=30_000)  # fmt: skip
    own = InLab(page, "Own text")
    assert own.frame.get_attribute("#tab-layers", "aria-selected") == "true", "although more readings begin with others"
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    own.frame.wait_for_selector(".now.wrong:has-text('run the cell again')", timeout=30_000)
    assert said == [] and [url for url in asked if not url.startswith((lab, "about:", "blob:", "data:"))] == []
    page.close()


def test_a_notebook_by_keyboard_alone_wrong_interrupted_restarted_beside_a_writer(lab, project, browser, monkeypatch):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    open_notebook(page, lab, ADAPTER)
    press = page.keyboard.press

    def outputs():
        return page.evaluate(f"{CELLS}.map(c => c.outputs.toJSON().map(o => o.text || o.evalue || '').join(''))")

    def wait_until(holds):
        until = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until, outputs()
            page.wait_for_timeout(100)

    def wait_for(words):
        wait_until(lambda: any(words in text for text in outputs()))

    def assign(line):
        """Writes a line at the end of the parameters cell, the fourth, then runs the whole notebook."""
        press("Escape")
        for key in (*["k"] * 30, "j", "j", "j", "Enter", "Control+End"):  # up, down, edit, to the end
            press(key)
        page.keyboard.type(f"\n{line}")
        press("Escape")
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    page.click(".jp-Cell >> nth=0")  # as Tab would, after the menus
    assign("seed = 'zero'")
    wait_for("02_adapter: seed is 'zero'; it must be an integer (the seed decides")
    message = page.locator(".jp-OutputArea-output", has_text="it must be an integer")
    page.wait_for_timeout(1500)  # until Lab has settled at the last cell
    at = message.bounding_box()
    assert at and 0 < at["y"] < 900, "the message is in sight"
    assert len(page.evaluate(ERRORS)) == 1, "no cell after it runs"
    assert page.locator(".Toastify__toast").count() == 0, "no news"

    monkeypatch.setenv("STUDYKIT_HOME", str(project))
    with locks.locked(files.staging_dir("adapter/lab-0000000008"), "adapter", 5):
        assign("seed = 0")
        wait_for("The parameters are valid. The run adapter/lab-0000000008 is not finished: being written by process")
        wait_for(f"another notebook or command makes this run (process {os.getpid()} on ")
    wait_for("adapter/lab-0000000008: starts.")
    checkpoints = files.staging_dir("adapter/lab-0000000008") / "checkpoints"
    wait_until(lambda: any(checkpoints.rglob("trainer_state.json")))
    press("i")
    press("i")
    wait_for("run this cell again to go on.")
    assert [re.sub(r"\d+", "N", error) for error in page.evaluate(ERRORS)] == [
        "Stopped at step N; run this cell again to go on."
    ]
    press("0")
    press("0")
    page.wait_for_selector(".jp-Dialog button.jp-mod-accept")
    press("Enter")
    page.wait_for_function("() => !document.querySelector('.jp-Dialog')")
    page.wait_for_function(IDLE, timeout=60_000)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    wait_for("was stopped; the cells below continue it.")
    wait_for("adapter/lab-0000000008: continues, attempt 2.")
    wait_for("adapter/lab-0000000008: published after")
    page.wait_for_function(DONE, timeout=60_000)
    assert page.evaluate(ERRORS) == []
    page.close()


def test_a_running_lab_is_no_condition_of_a_report(project):
    """The same notebook in a batch, with no front end: papermill passes the widgets by, a report shows the explorer."""
    from studykit.report import html

    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", NOTEBOOK, "out.ipynb", "--cwd",
               str(project / "notebooks")]  # fmt: skip
    env = environment(project) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    made = nbformat.read(project / "out.ipynb", as_version=4)
    text = html.render_notebook(made).content
    assert text.count("<iframe") == 1 and "widget" not in text.split("<iframe")[0] and "Textarea" not in text
    assert os.path.getsize(project / "out.ipynb") < 5e6

"""Notebook 05 in a real JupyterLab: it runs to its end, shows the explorer, reads one's own text, mutes a member."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from tests import tiny
from tests.notebooks.conftest import copy_project
from tests.project import environment

pytestmark = pytest.mark.notebooks
NOTEBOOK = "notebooks/05_fusion_attention.ipynb"
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
    notebook = nbformat.read(home / NOTEBOOK, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    values = {"base": p.base, "data": p.data, "checkpoints": [p.out], "method": "advfusion_exclude", "seeds": [0],
              "samples": 4, "out": "runs/fusion_attention/lab-0000000009"}  # fmt: skip
    for name, value in values.items():
        cell.source = re.sub(rf"^({name}: .+?) = .*?(  # .*)$", rf"\1 = {value!r}\2", cell.source, flags=re.M)
    nbformat.write(notebook, home / NOTEBOOK)
    return home


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
                "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
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


def explorer_of(page, title):
    """The frame of the explorer with this title, ready."""
    frame = page.wait_for_selector(f"iframe[title^='{title}']", timeout=60_000).content_frame()
    frame.wait_for_selector("html[data-ready]", timeout=20_000)
    return frame


def test_notebook_05_in_jupyterlab(lab, browser, tmp_path):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{lab}/lab/tree/{NOTEBOOK}?token=t&reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=90_000)
    page.wait_for_function(IDLE, timeout=90_000)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(DONE, timeout=120_000)
    assert page.evaluate(ERRORS) == []

    def go_to(words):
        page.evaluate(f"""() => {{ const all = window.jupyterapp.shell.currentWidget.content;
            const at = all.widgets.findIndex(w => w.model.sharedModel.getSource().startsWith({words!r}));
            all.activeCellIndex = at; return all.scrollToItem(at, 'start'); }}""")

    go_to("explore(")
    shown = explorer_of(page, "advfusion_exclude, target lua")
    assert "n = 4 samples" in shown.text_content(".caption") and "exactly 0" in shown.text_content(".check")

    go_to("live.bench(")
    page.wait_for_selector(".studykit-prompt textarea", timeout=30_000)
    page.fill(".studykit-prompt textarea", "count to 2 in lua, my own words\n")
    page.fill(".studykit-completion textarea", "lua: 0 1")
    page.click(".jupyter-widgets.widget-toggle-button:text-is('lua')")
    page.click(".jupyter-button:text-is('Read')")
    own = explorer_of(page, "Own text")
    assert own.evaluate("document.querySelectorAll('#choose-a option').length") == 2, "as trained, and muted"
    assert own.get_attribute("#tab-compare", "aria-selected") == "true"
    cells = own.evaluate("document.querySelector('canvas').drawn.cells.map(c => c.say)")
    silent = [words for words in cells if words.startswith("lua muted") and "lua (target)" in words]
    assert silent and all(words.endswith(": 0.0 %") for words in silent), "the muted member has no weight"
    losses = page.locator("td:text-matches('^\\\\d\\\\.\\\\d{4}$')").all_text_contents()
    assert len(losses) == 2 and losses[0] != losses[1], "its absence tells"
    page.screenshot(path=tmp_path / "lab.png")
    own.click("#tab-tokens")
    own.fill("#choose-query", "my own words")
    assert "match the search" in own.text_content(".caption")
    assert said == [] and [url for url in asked if not url.startswith((lab, "about:", "blob:", "data:"))] == []
    page.close()


def test_a_running_lab_is_no_condition_of_a_report(project):
    """The same notebook in a batch, with no front end: papermill passes the widgets by, a report shows the explorer."""
    from studykit import rendering

    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", NOTEBOOK, "out.ipynb", "--cwd",
               str(project / "notebooks")]  # fmt: skip
    env = environment(project) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    made = nbformat.read(project / "out.ipynb", as_version=4)
    text = rendering.body(made)[1]
    assert text.count("<iframe") == 1 and "widget" not in text.split("<iframe")[0] and "Textarea" not in text
    assert os.path.getsize(project / "out.ipynb") < 5e6

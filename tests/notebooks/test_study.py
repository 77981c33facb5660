"""Every notebook as users run it: in a batch, and alone through papermill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from papermill import execute_notebook
from papermill.cli import papermill as papermill_command

from studykit.study.parameters import STAGES
from tests.project import environment, stamps, studykit

pytestmark = pytest.mark.notebooks


def papermill(home: Path, stage: str, **parameters) -> subprocess.CompletedProcess:
    """One notebook by hand, from the directory in which JupyterLab would start it."""
    notebook = home / "notebooks" / f"{STAGES[stage].notebook}.ipynb"
    chosen = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", str(notebook), f"{stage}.ipynb"]
    options = dict(cwd=home / "notebooks", env=environment(home), text=True, capture_output=True, timeout=300)
    return subprocess.run([*command, *chosen], **options)


def test_the_study_runs_to_its_reports(finished):
    made = stamps(finished)
    assert {name.split("/")[0] for name in made} == STAGES.keys() - {"gather"}
    index = (finished / "reports/quickstart/index.html").read_text()
    assert f"{len(made)} of {len(made)} runs are done" in index
    reports = finished / "reports/quickstart"
    pages, notebooks = ({page.stem for page in reports.glob(f"*.{kind}")} for kind in ("html", "ipynb"))
    assert pages - {"index"} == notebooks and len(notebooks) == len(made)
    for page in reports.glob("05_fusion_attention-*.html"):
        assert page.read_text().count("<iframe") == 1, "the explorer is in the report, the widgets are not"
        assert page.stat().st_size < 5e6


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (400, "dark")])
def test_every_report_opens_offline_with_its_figures(finished, browser, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    explored = 0
    for file in sorted((finished / "reports/quickstart").glob("*.html")):
        page, asked, said = context.new_page(), [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.goto(file.as_uri())
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)"), file.name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{file.name} scrolls sideways"
        for frame in page.frames[1:]:
            frame.frame_element().scroll_into_view_if_needed()
            frame.wait_for_selector("html[data-ready]", timeout=20_000)
            while not frame.evaluate("document.querySelector('canvas').drawn"):  # laid out once it is in sight
                page.wait_for_timeout(50)
            painted = frame.evaluate("""() => { const canvas = document.querySelector('canvas');
                const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
                return new Set(new Uint32Array(data.buffer)).size; }""")
            cells = frame.evaluate("document.querySelector('canvas').drawn.cells.length")
            assert painted > 10 and cells > 0, f"{file.name}: the heatmap is there"
            explored += 1
        assert set(asked) <= {file.as_uri(), "about:srcdoc"} and said == [], file.name
        page.emulate_media(media="print")
        for frame in page.locator("iframe").all():
            assert frame.is_hidden() and page.locator(".on-paper").first.is_visible(), "paper gets a sentence instead"
        page.close()
    context.close()
    attention = len(list(finished.glob("runs/fusion_attention/*/manifest.json")))
    assert explored == attention + 1 > 1, "one of each fusion, and one of all side by side"


def test_a_second_call_runs_nothing(finished):
    before = stamps(finished)
    done = studykit(finished, "run", "params/quickstart.yaml")
    assert done.returncode == 0, done.stdout[-2000:]
    assert stamps(finished) == before
    every = len(before)
    listed = studykit(finished, "studies").stdout
    assert f"{every} of {every} runs done" in listed
    assert f"the last command that finished it made {every} runs in" in listed, "not the one that made nothing"


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"gather"}))
def test_alone_with_its_defaults_a_notebook_shows_the_finished_run(finished, stage, monkeypatch):
    """By papermill's API, as in a script; the next test takes its command."""
    before, directory = stamps(finished), finished / "notebooks"
    for name, value in environment(finished).items():
        monkeypatch.setenv(name, value)
    stem = STAGES[stage].notebook
    said = execute_notebook(
        directory / f"{stem}.ipynb",
        directory / f"{stage}.ipynb",
        cwd=directory,
        kernel_name="python3",
        progress_bar=False,
    )
    assert stamps(finished) == before, "defaults are the quickstart's own runs: nothing is computed again"
    assert "finished on" in "".join(str(o.get("text", "")) for cell in said.cells for o in cell.get("outputs", []))


def test_alone_with_other_parameters_a_notebook_makes_a_run_of_its_own(finished):
    before = stamps(finished)
    done = papermill(finished, "fusion", method="advfusion", mask="exclude", steps=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(finished.glob("runs/fusion/lua-advfusion_exclude-s0-*/manifest.json"))) == 2
    assert {k: v for k, v in stamps(finished).items() if "fusion/" not in k} == {
        k: v for k, v in before.items() if "fusion/" not in k
    }


@pytest.mark.parametrize(
    "parameters, sentence",
    [
        ({"stepz": 3}, "stepz is unknown; did you mean steps?"),
        ({"steps": "many"}, "steps is 'many'; it must be an integer"),
    ],
)
def test_a_bad_parameter_gets_one_sentence_before_any_work(finished, parameters, sentence):
    done = papermill(finished, "fusion", **parameters)
    assert done.returncode != 0
    assert f"UserError: 03_fusion: {sentence}" in done.stderr


def test_help_is_a_manual(finished):
    for stage, (stem, model) in STAGES.items():
        done = CliRunner().invoke(papermill_command, ["--help-notebook", str(finished / "notebooks" / f"{stem}.ipynb")])
        assert done.exit_code == 0, done.output
        said = done.output
        missing = [name for name in model.model_fields if f"{name}:" not in said]
        assert not missing, (stage, missing)

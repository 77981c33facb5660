"""What a committed notebook looks like: stripped, parameterised, mostly prose, short cells."""

from __future__ import annotations

import re
import statistics
from typing import Literal, get_args, get_origin

import nbformat
import pytest

from studykit.report.html import NOT_IN_REPORT
from studykit.runs import files
from studykit.runs import notebook as runs_notebook
from studykit.study.parameters import STAGES
from tests.project import ROOT


def read(stage: str):
    return nbformat.read(ROOT / "notebooks" / f"{STAGES[stage].notebook}.ipynb", as_version=4)


def tagged(notebook) -> list:
    return [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(ROOT))
    assert files.home() == ROOT


def test_notebooks_are_those_of_the_stages():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {stem for stem, _ in STAGES.values()}


@pytest.mark.parametrize("stage", STAGES)
def test_committed_without_outputs(stage):
    for cell in read(stage).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("stage", STAGES)
def test_shape_of_the_house(stage):
    cells = read(stage).cells
    code = [len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code" and not tagged_cell(cell)]
    assert 20 <= len(cells) <= 45
    assert sum(cell.cell_type == "markdown" for cell in cells) / len(cells) >= 0.4
    assert statistics.median(code) <= 7 and statistics.quantiles(code, n=10)[-1] <= 25
    assert cells[0].source.startswith("# ")
    assert not any("$" in cell.source for cell in cells if cell.cell_type == "markdown"), "no LaTeX: not offline"


@pytest.mark.parametrize("stage", STAGES)
def test_a_report_gets_neither_manual_nor_status(stage):
    left_out = [cell.source for cell in read(stage).cells if NOT_IN_REPORT in cell.metadata.get("tags", [])]
    for begin in ("## What it needs", "## Parameters", "with store.open_run(", "## Next", "footer("):
        assert len([source for source in left_out if source.startswith(begin)]) == 1, begin


def tagged_cell(cell) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_typed_commented_and_the_quickstarts_own(stage):
    (cell,) = tagged(read(stage))
    names: dict = {}
    exec(cell.source, names)  # our own notebook: assignments alone
    given = {name: value for name, value in names.items() if not name.startswith("__")}
    fields = STAGES[stage].model.model_fields
    assert set(given) == {*fields, "study"}
    assert given.pop("study") == ("params/data_size.yaml" if stage == "gather" else runs_notebook.QUICKSTART)
    usual = {name: field.default for name, field in fields.items()}
    assert given == (usual if stage == "gather" else runs_notebook.defaults(stage))
    for line in cell.source.splitlines():
        assert ": " in line.split("=")[0] and "  # " in line, f"typed and commented: {line}"


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_name_their_choices_and_headings_make_a_table_of_contents(stage):
    """`papermill --help-notebook` prints the comments; JupyterLab lists the headings."""
    (cell,) = tagged(read(stage))
    lines = {line.split(":")[0]: line for line in cell.source.splitlines()}
    for name, field in STAGES[stage].model.model_fields.items():
        comment = lines[name].split("  # ")[1]
        assert [word for word in choices(field.annotation) if word not in comment] == [], name
    prose = "\n".join(cell.source for cell in read(stage).cells if cell.cell_type == "markdown")
    levels = [len(mark) for mark in re.findall(r"^(#+) ", prose, flags=re.MULTILINE)]
    assert levels[0] == 1 and set(levels[1:]) <= {2, 3} and levels[1] == 2


def choices(annotation) -> list[str]:
    """Returns the words that a type accepts, other than any text."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in choices(part)]

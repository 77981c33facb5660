"""Tables and texts in notebooks: nothing that a data set or a model wrote becomes HTML; numbers read as numbers."""

from __future__ import annotations

import html

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook, new_output

from studykit.report import tables
from studykit.report.html import render_notebook
from studykit.runs import notebook, store

EVIL = "<script>alert(1)</script> & '\"<img src=x onerror=alert(1)>"


@pytest.fixture
def outputs(monkeypatch) -> list[dict[str, str]]:
    """Everything that was displayed, by MIME type."""
    seen: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    return seen


@pytest.mark.parametrize("call, value", [
    (tables.facts, {EVIL: EVIL}),
    (tables.table, [{EVIL: EVIL}]),
    (tables.texts, [{EVIL: EVIL}]),
])  # fmt: skip
def test_text_is_escaped(call, value, outputs):
    call(value, EVIL)
    page = outputs[0]["text/html"]
    assert "<script" not in page and "<img" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3


def test_a_fold_is_closed_escaped_and_holds_everything(outputs):
    tables.fold(EVIL, [f"**bold** {EVIL}", "more"])
    tables.fold("nothing", [])
    tables.fold("nothing", {"a": [], "b": []})
    tables.table([{"a": 1}], "caption", folded=EVIL)
    assert len(outputs) == 2
    for output in outputs:
        page = output["text/html"]
        assert page.startswith("<details><summary>&lt;script") and "<script" not in page and "<img" not in page
    assert "<li><b>bold</b> &lt;script" in outputs[0]["text/html"] and "<li>more</li>" in outputs[0]["text/html"]
    shown = render_notebook(new_notebook(cells=[new_code_cell("", outputs=[new_output("display_data", outputs[1])])]))
    assert "<details><summary>" in shown.content and "caption" in shown.content


def test_a_fold_of_several_lists_has_each_below_its_title_and_escapes_both(outputs):
    tables.fold("all", {f"**one** {EVIL}": ["a", EVIL], "two": ["b"]})
    (output,) = outputs
    page = output["text/html"]
    assert "<script" not in page and "<img" not in page
    assert page.index("<p><b>one</b>") < page.index("<li>a</li>") < page.index("<p>two</p><ul><li>b</li></ul>")
    assert output["text/plain"].split("\n") == ["all", f"**one** {EVIL}", "a", EVIL, "two", "b"]


def test_a_table_has_all_columns_and_dashes_for_what_is_missing(outputs):
    tables.table([{"a": 1}, {"a": 2, "b": "x"}])
    assert outputs[0]["text/plain"] == "a\tb\n1\t–\n2\tx"


def test_columns_of_numbers_stand_to_the_right(outputs):
    tables.table([{"name": "x", "n": 1}, {"name": "y", "n": None}])
    page = outputs[0]["text/html"]
    assert page.count("text-align: right") == 3 and page.count("text-align: left") == 3


def test_a_long_text_says_what_is_left_out(outputs):
    tables.texts([{"code": "x" * 2000}], limit=100)
    page = outputs[0]["text/html"]
    assert "x" * 100 + "\n… (1,900 more characters)" in page and "x" * 101 not in page
    tables.texts([{"code": "\n" * 300}])
    assert "… (271 more characters)" in outputs[1]["text/html"]


@pytest.mark.parametrize("call", [tables.table, tables.texts])
def test_nothing_shows_nothing(call, outputs):
    call([])
    assert not outputs


def test_the_footer_shows_versions_and_every_parameter(tmp_path, monkeypatch, outputs):
    p = notebook.from_notebook("data", {"seed": 3})
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    tables.footer(p)  # nothing is published
    page = outputs.pop()["text/html"]
    assert not outputs
    for name, field in type(p).model_fields.items():
        assert f">{name}</th>" in page and field.description in html.unescape(page.replace("<wbr>", ""))
    with store.open_run("runs/data/made", stage="data", params=p) as run:
        run.publish(inputs=[])
    tables.footer(p.model_copy(update={"out": "runs/data/made"}))
    sentence = outputs[0]["text/markdown"]
    assert sentence.startswith("This run took 0.") and "python 3." in sentence


def test_tables_and_texts_look_the_same_in_a_report(outputs):
    tables.table([{"method": "x|y", "loss": 1.5}], "Losses.")
    tables.texts([{"prompt": "a < b", "prediction": "c"}])
    cells = [new_code_cell("", outputs=[new_output("display_data", data)]) for data in outputs]
    soup = BeautifulSoup(render_notebook(new_notebook(cells=cells)).content, "html.parser")
    assert [cell["style"] for cell in soup.select("td")] == ["text-align:left", "text-align:right"]
    assert soup.figcaption.get_text() == "Losses." and soup.select_one(".texts.pairs pre").get_text() == "a < b"


def test_columns_of_zeros_are_left_out_where_asked(outputs):
    rows = [{"state": "phase 1", "passed": 3, "memory": 0}, {"state": "phase 2", "passed": 0, "memory": 0}]
    tables.table(rows, zeros=False)
    tables.table(rows)
    assert [plain["text/plain"].split("\n")[0] for plain in outputs] == ["state\tpassed", "state\tpassed\tmemory"]

"""Reports: complete without a network, safe whatever a model wrote, readable by everybody, cheap to refresh."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import shutil
import zipfile
from functools import cache
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import studykit
from studykit.report import documents, glossary, html, index, pages
from studykit.report.explorer.page import link_script, page_script
from studykit.report.sealed import content_hash
from studykit.runs import files, store
from studykit.runs import status as runs_status
from studykit.study import family, plan
from studykit.study import file as study_file
from tests.made_records import made_record

ROOT = Path(__file__).parents[2]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
SVG = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><script>alert(1)</script><text>τ</text></svg>"
EVIL = "<script>document.body.dataset.pwned=1</script><img src=x onerror='document.body.dataset.pwned=1'>"
STUDY = """
study: tiny
question: Is <this> safe & sound?
task: generation
members: [python]
target: lua
methods: [base, bottleneck]
seeds: [0]
evaluate: {sources: []}
"""


def html_of(*outputs, **metadata) -> BeautifulSoup:
    cell = new_code_cell("secret_code()", outputs=list(outputs), metadata=metadata)
    notebook = new_notebook(cells=[new_markdown_cell("# Title\n\n## A section"), cell])
    return BeautifulSoup(html.render_notebook(notebook).content, "html.parser")


def display(**data) -> nbformat.NotebookNode:
    mimes = {
        "html": "text/html",
        "plain": "text/plain",
        "png": "image/png",
        "svg": "image/svg+xml",
        "markdown": "text/markdown",
        "js": "application/javascript",
        "latex": "text/latex",
        "widget": "application/vnd.jupyter.widget-view+json",
    }
    metadata = data.pop("metadata", {})
    return new_output("display_data", {mimes[k]: v for k, v in data.items()}, metadata=metadata)


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return new_output("stream", name=name, text=text)


# One notebook


def test_the_title_goes_up_and_code_stays_out():
    notebook = new_notebook(cells=[new_markdown_cell("# A *title*\n\nProse."), new_code_cell("secret_code()")])
    rendered = html.render_notebook(notebook)
    assert rendered.title == "A <em>title</em>"
    assert "Prose." in rendered.content and "secret_code" not in rendered.content


@pytest.mark.parametrize(
    "output",
    [
        display(html=EVIL),
        display(markdown=EVIL),
        display(plain=EVIL),
        stream(EVIL),
        stream(EVIL, "stderr"),
        display(html=f"<table><tr><td onclick='x()' style='background:url(http://e.org)'>{EVIL}</td></tr></table>"),
        display(html="<a href='javascript:alert(1)'>x</a><iframe src='http://e.org'></iframe><form action=x><input>"),
        display(html="<style>@import 'http://e.org'</style><link href='http://e.org'><object data=x></object><embed>"),
        display(html="<svg><script>alert(1)</script></svg><math><mtext><img src=x onerror=alert(1)></mtext></math>"),
        display(
            html="<iframe sandbox='allow-scripts allow-same-origin allow-top-navigation' srcdoc='<p>x</p>'></iframe>"
        ),
        display(html="<img alt='\"><script>alert(1)</script>' src='data:image/png;base64,AA=='>"),
        display(js="alert(1)"),
        display(latex="$<script>alert(1)</script>$"),
        new_output("error", ename="E", evalue=EVIL, traceback=[EVIL, "\x1b[31mred\x1b[0m"]),
    ],
    ids=range(14),
)
def test_nothing_that_a_model_wrote_runs_or_loads(output):
    soup = html_of(output)
    assert not soup.find_all(["script", "style", "link", "object", "embed", "form", "input", "svg"])
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            assert not name.startswith("on"), tag
            assert not re.search(r"javascript:|url\(", str(value)), tag
            assert name not in ("src", "action") or value.startswith("data:image/"), tag
        if tag.name == "iframe":
            assert set(tag.get_attribute_list("sandbox")) <= {"allow-scripts", "allow-downloads"}


def test_text_is_shown_as_it_is():
    text = "a <b> & c \x1b[1;31mred\x1b[0m"
    soup = html_of(stream(text), display(plain=text))
    assert [pre.get_text() for pre in soup.find_all("pre")] == ["a <b> & c red"] * 2
    assert soup.find(class_="ansi-red-fg") or soup.find(class_="ansi-red-intense-fg"), "terminal colours are kept"


@pytest.mark.parametrize("text, shown", [
    ("\r  0%|          | 0/5 [00:00<?, ?it/s]\r100%|##########| 5/5 [00:01<00:00, 4.9it/s]\n", ""),
    ("Loading weights:  50%|#####     | 1/2\n", ""),
    ("7it [00:01, 5.0it/s]\n", ""),
    ("/home/someone/lib/thing.py:12: FutureWarning: do not\n  warnings.warn(\n", "FutureWarning (thing.py): do not"),
    ("/a/b.py:1: UserWarning: x\n  y()\n" * 3, "UserWarning (b.py): x"),
    ("a message\n", "a message"),
])  # fmt: skip
def test_standard_error_is_tidied(text, shown):
    soup = html_of(stream(text, "stderr"))
    pre = soup.find("pre")
    assert (pre.get_text() if pre else "") == shown
    assert pre is None or pre.find_parent("details"), "and folded"


def test_a_stream_is_one_block_and_obeys_carriage_returns():
    soup = html_of(stream("one\n"), stream("step 1\rstep 2\r"), stream("step 3\n"))
    assert [p.get_text() for p in soup.find_all("pre")] == ["one\nstep 3"]


def test_live_widgets_and_bare_objects_are_left_out():
    soup = html_of(
        display(widget={"model_id": "1"}, plain="  0%| | 0/9"),
        display(plain="<Figure size 6x4 with 1 Axes>"),
        display(plain="<IPython.core.display.HTML object>"),
    )
    assert not soup.find("pre") and not soup.find("img")


def test_an_explorer_is_shown_with_the_script_of_this_library_and_no_other():
    frame = explorer_frame()
    script = frame.index("&lt;script&gt;")
    other = frame[:script] + "&lt;script&gt;top.pwned = 1; " + frame[script + len("&lt;script&gt;") :]
    shown = html_of(display(html=other)).iframe
    assert shown["srcdoc"] == BeautifulSoup(frame, "html.parser").iframe["srcdoc"]
    assert " ".join(shown["sandbox"]) == html.SANDBOX and "pwned" not in str(shown)
    page = documents.document("x", Markup(shown), "m")
    policy = BeautifulSoup(page, "html.parser").meta.find_next("meta")["content"]
    scripts = f"script-src '{content_hash(page_script())}' '{content_hash(link_script())}';"
    assert scripts in policy and "'unsafe-inline'; script-src" in policy


@pytest.mark.parametrize("output, metadata, alt", [
    (display(png=PIXEL), {}, "Figure in the section “A section”"),
    (display(png=PIXEL, metadata={"image/png": {"alt": "Loss & <steps>"}}), {}, "Loss & <steps>"),
    (display(png=PIXEL, metadata={"alt": "Loss"}), {}, "Loss"),
    (display(svg=SVG, png=PIXEL), {"alt": "Of the cell"}, "Of the cell"),
    (display(html=f"<img src='data:image/png;base64,{PIXEL}'>"), {}, "Figure without a description"),
    (display(html=f"<img alt='Own' src='data:image/png;base64,{PIXEL}'>"), {}, "Own"),
])  # fmt: skip
def test_every_image_is_inside_and_described(output, metadata, alt):
    image = html_of(output, **metadata).find("img")
    assert image["alt"] == alt
    kind, data = re.fullmatch(r"data:image/([\w+]+);base64,(.+)", image["src"]).groups()
    assert base64.b64decode(data) == (SVG.encode() if kind == "svg+xml" else base64.b64decode(PIXEL))


def test_figures_of_the_kit_pass_unchanged():
    plots = pytest.importorskip("studykit.report.figures")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2])
    drawn = BeautifulSoup(plots.figure_html(figure, 'An alt with "quotes" & <signs>', "The <caption>"), "html.parser")
    shown = html_of(display(html=str(drawn)))
    for name in ("src", "alt"):
        assert shown.img[name] == drawn.img[name]
    assert shown.figcaption.get_text() == "The <caption>" and "max-width" in shown.figure["style"]


def test_tables_scroll_and_align_their_numbers():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"method": ["<b>", "x"], "loss": [0.5, float("nan")], "steps": [1, 20]})
    soup = html_of(display(html=frame.to_html()))
    assert soup.table.parent["class"] == ["scroll"] and soup.table.parent["tabindex"] == "0"
    numeric = ["number" in cell.get("class", []) for cell in soup.tbody.tr.find_all("td")]
    assert numeric == [False, True, True]
    assert (
        soup.tbody.td.get_text() == "<b>"
        and [("number" in t.get("class", [])) for t in soup.thead.find_all("th")][1:] == numeric
    )


def test_a_term_is_explained_where_it_stands_first():
    prose = "# T\n\nEach `member` of a fusion, a member or members; the mask.\n\nA member.\n\n- a [mask](http://e.org)"
    soup = BeautifulSoup(html.render_notebook(new_notebook(cells=[new_markdown_cell(prose)])).content, "html.parser")
    assert [(term.get_text(), term["title"]) for term in soup.select("abbr")] == [
        (name, glossary.TERMS[name]) for name in ("member", "mask")
    ]
    assert soup.p.get_text() == "Each member of a fusion, a member or members; the mask."
    assert soup.p.code.find_next_sibling("abbr"), "not in code"


def test_a_link_to_a_heading_leads_there_and_into_the_fold_that_it_names():
    prose = (
        "# Page\n\n## A part\n\n## More [(?)](#The-rules)\n\n[up](#A-part) [no](#elsewhere)\n\n"
        "<details><summary><h3>The rules</h3></summary>\n\nThey are **strict**.\n\n</details>"
    )
    rendered = html.render_notebook(new_notebook(cells=[new_markdown_cell(prose)]))
    assert [text for _, text in rendered.contents] == ["A part", "More"]
    soup = BeautifulSoup(rendered.content, "html.parser")
    rules, up, elsewhere = (str(link["href"]) for link in soup.find_all("a"))
    assert soup.find(id=rules[1:]).get_text() == "They are strict." and soup.find(id=rules[1:]).find_parent("details")
    assert soup.find(id=up[1:]).get_text().strip() == "A part" and up == "#part-1"
    assert elsewhere == "#elsewhere"


def test_odd_text_is_shown_all_the_same():
    nested = "<table><tr><td>" * 2000 + "<script>x</script>1"
    shown = html_of(stream("lone \ud800"), display(html=nested), display(html="<b>" * 5000 + "end"))
    assert shown.pre.get_text() == "lone ?" and "end" in shown.get_text()
    assert len(shown.select("table")) == 2000 and not shown.find("script")


def test_prose_is_that_of_the_notebook_as_it_is_now():
    old, new = new_markdown_cell("A typpo", id="p"), new_markdown_cell("A typo", id="p")
    executed = new_notebook(cells=[old, new_code_cell("", outputs=[stream("5")], id="c")])
    text = html.render_notebook(executed, new_notebook(cells=[new])).content
    assert "A typo" in text and "typpo" not in text and "5" in text


def test_what_helps_only_who_runs_the_notebook_is_left_out_but_no_error():
    own = {"tags": [html.NOT_IN_REPORT]}
    trouble = [
        stream("1 fusion: starts.\n"),
        display(html="<p>dropped</p>"),
        stream("it warns\n", "stderr"),
        new_output("error", ename="E", evalue="it broke", traceback=["trace"]),
    ]
    kept = new_code_cell("y", outputs=[stream("kept")])
    cells = [
        new_markdown_cell("# T"),
        new_markdown_cell("## What it needs\n\nMinutes.", metadata=own),
        new_code_cell("x", outputs=trouble, metadata=own),
        kept,
    ]
    text = html.render_notebook(new_notebook(cells=cells)).content
    assert "it broke" in text and "it warns" in text and "kept" in text
    assert not any(words in text for words in ("What it needs", "Minutes", "starts", "dropped"))
    executed = new_notebook(cells=[new_markdown_cell("## Old"), kept])
    now = new_notebook(cells=[cell.copy() for cell in executed.cells])
    now.cells[0] = new_markdown_cell("## Old", metadata=own, id=executed.cells[0].id)
    text = html.render_notebook(executed, now).content
    assert "Old" not in text and "kept" in text, "tagged after it was run"


# A study


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.delenv("STUDYKIT_COMMAND", raising=False)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/tiny.yaml").write_text(STUDY)
    return tmp_path


@cache
def explorer_frame() -> str:
    return studykit.explore(made_record()).frame


def rich() -> nbformat.NotebookNode:
    """An executed notebook with everything that may appear in one."""
    wide = "<table><thead><tr>" + "".join(f"<th>column {i}</th>" for i in range(40)) + "</tr></thead></table>"
    frame = explorer_frame()
    outputs = [
        display(html=EVIL),
        display(svg=SVG),
        display(png=PIXEL),
        display(html=wide),
        display(html=frame),
        stream("word " * 99),
        stream(EVIL, "stderr"),
        display(plain="long" * 300),
        new_output("error", ename="ValueError", evalue=EVIL, traceback=[EVIL]),
    ]
    prose = "# The title\n\n[A link](http://example.org), $x^2$.\n\n```mermaid\ngraph\n```\n\n| a |\n|---|\n| 1 |"
    return new_notebook(cells=[new_markdown_cell(prose), new_code_cell("code()", outputs=outputs)])


def finish(run: plan.Run, headline=None) -> None:
    with store.open_run(run.dir, stage=run.stage, params=run.params) as opened:
        opened.publish(headline=headline)
    nbformat.write(rich(), files.home() / run.dir / "notebook.ipynb")


@pytest.fixture
def report(home) -> Path:
    """The report of a study in which everything ran."""
    for run in plan.plan(study_file.load_study("params/tiny.yaml", home)):
        finish(run, {"pass@1 of <base>, %": 12.3456, "rows": 250, "p_value": 0.00123})
    return pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False)).parent


@pytest.fixture
def broken(home, report) -> Path:
    """The same after its adapter was run again and failed, and one evaluation was removed."""
    adapter = next(home.glob("runs/adapter/*"))
    log = home / f"logs/adapter/{adapter.name}.ipynb"
    log.parent.mkdir(parents=True)
    error = new_output("error", ename="ValueError", evalue=f"bad {EVIL}", traceback=["trace"])
    nbformat.write(new_notebook(cells=[new_code_cell("", outputs=[error])]), log)
    (adapter / "manifest.json").unlink()
    shutil.rmtree(next(home.glob("runs/evaluate/lua-base-*")))
    return pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False)).parent


SEEN = ["# Title\n\nWhy?", "## How\n\nBy steps.", "## What we saw", "say", "### In short\n\nLess.", "## Next\n\nMore."]


def page_of(*, printed: bool, fails: bool = False) -> html.RenderedNotebook:
    """The page of a notebook whose findings are printed, and whose last section is hidden but prints a warning."""
    cells = [new_code_cell(text) if text == "say" else new_markdown_cell(text) for text in SEEN]
    cells[2:2] = [
        new_code_cell("train", outputs=[new_output("error", ename="Oops", evalue="no", traceback=[])])
    ] * fails
    for cell in cells:
        if cell.source == "say" and printed:
            cell.outputs = [new_output("stream", name="stdout", text="the numbers")]
        if cell.source.startswith("## Next"):
            cell.metadata["tags"] = ["not-in-report"]
    cells.append(new_code_cell("footer", outputs=[new_output("stream", name="stderr", text="a warning")]))
    return html.render_notebook(new_notebook(cells=cells))


def test_a_page_begins_with_what_was_seen():
    rendered = page_of(printed=True)
    text = BeautifulSoup(rendered.content, "html.parser").get_text()
    words = ["Why?", "What we saw", "the numbers", "In short", "Less.", "How", "By steps.", "a warning"]
    assert [text.index(word) for word in words] == sorted(text.index(word) for word in words)
    assert rendered.contents == [("part-1", "What we saw"), ("part-2", "How")]


def test_a_page_of_a_notebook_that_saw_nothing_keeps_its_order():
    failed = page_of(printed=False, fails=True)
    text = BeautifulSoup(failed.content, "html.parser").get_text()
    words = ["Why?", "How", "By steps.", "Oops", "What we saw", "Less."]
    assert [text.index(word) for word in words] == sorted(text.index(word) for word in words)


def states(index: BeautifulSoup) -> list[str]:
    return [cell.get("title") or cell.get_text() for cell in index.select("table.runs .state")]


def index_of(report: Path) -> tuple[BeautifulSoup, str]:
    soup = BeautifulSoup((report / "index.html").read_text(), "html.parser")
    return soup, re.sub(r"\s+", " ", soup.get_text(" "))


def test_the_index_shows_the_results_and_every_run(report):
    soup, text = index_of(report)
    assert "Is <this> safe & sound?" in text and "6 of 6 runs are done." in text
    assert [(d.dt.get_text(), d.dd.get_text()) for d in soup.select(".tiles > div")] == [
        ("pass@1 of <base>, %", "12.3"),
        ("rows", "250"),
        ("p value", "0.00123"),
    ]
    assert states(soup) == ["done"] * 6 and "studykit run params/tiny.yaml" in text and not soup.select(".callout")
    links = {a["href"] for a in soup.select("a[href$='.html']")}
    assert links == {p.name for p in report.glob("*.html")} - {"index.html"} and len(links) == 6
    adapter = soup.find("strong", string="adapter").find_parent("details")
    assert [cell.get_text(strip=True) for cell in adapter.select("th, td")] == [
        "pass@1 of <base>, %", "seed 0", "lua-bottleneck", "12.3"
    ], "a row per label, a column per seed"  # fmt: skip


def test_the_index_tells_what_did_not_run_and_what_is_out_of_date(broken):
    soup, text = index_of(broken)
    assert "2 of 6 runs are done, 1 failed, 2 out of date, 1 not run yet" in text
    assert "ValueError: bad <script>" in soup.select_one(".callout").get_text()
    assert states(soup) == ["done", "done", "failed", "not run", "out of date", "out of date"]
    assert "adapter lua-bottleneck-s0 failed" in text and "evaluate lua-base has not run" in text
    assert not soup.select(".tiles"), "figures that are no longer true are not shown as the result"


def test_a_run_is_out_of_date_when_its_input_or_its_code_is_another(home, report):
    planned = plan.plan(study_file.load_study("params/tiny.yaml", home))

    def states():
        return [status.state for status in runs_status.study_status(planned).values()]

    assert states() == ["done"] * 6
    manifest = home / planned[1].dir / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert states() == ["done", "done", *["outdated"] * 4], "made again since"
    manifest.write_text(manifest.read_text()[:-1])
    (home / "notebooks").mkdir()
    (home / "notebooks/06_compare.ipynb").write_text('{"cells": [{"cell_type": "code", "source": "x"}]}')
    assert states() == [*["done"] * 5, "outdated"]


def test_every_page_says_how_to_cite_it_and_peak_memory(report):
    for page in report.glob("*.html"):
        text = " ".join(BeautifulSoup(page.read_text(), "html.parser").get_text(" ").split())
        assert "How to cite." in text and "a study of lua made with studykit" in text and "arXiv 2307.07854" in text
        assert page.name == "index.html" or "peak memory" in text


def test_the_index_explains_terms_and_opens_the_explorer(home, report):
    soup, _ = index_of(report)
    assert "explorer-1" not in str(soup), "this study has no fusion"
    assert "AdvFusion" in [term.get_text() for term in soup.select("abbr")]
    *others, run = plan.plan(study_file.load_study("params/tiny.yaml", home))
    names = dict(run.params) | {"attention": {"adapterfusion": "runs/fusion_attention/x"}}
    statuses = runs_status.study_status([*others, run])
    fused = dataclasses.replace(run, params=names)
    shown = {one: statuses[one] for one in (*others, fused)}
    study = study_file.load_study("params/tiny.yaml", home)
    page = BeautifulSoup(index.index_page(study, "params/tiny.yaml", shown, {fused: "06.html"}, "ab"), "html.parser")
    assert page.select_one(".links a[href='06.html#explorer-1:view=all']").get_text() == "Open the explorer"


def test_pages_name_the_run_and_link_back(report):
    page = next(report.glob("04_evaluate-lua-base-*.html"))
    soup = BeautifulSoup(page.read_text(), "html.parser")
    assert soup.h1.get_text() == "The title" and soup.select_one("nav a")["href"] == "index.html"
    assert re.search(r"evaluate/lua-base-[0-9a-f]{10}", soup.header.get_text())
    assert "1 thread" in soup.header.get_text() or "threads" in soup.header.get_text()
    inputs = {a["href"] for a in soup.header.select("details a")}
    assert inputs and all((report / name).is_file() for name in inputs)


def test_tables_of_a_run_are_copied_beside_its_page_and_linked(home, report):
    comparison = next(home.glob("runs/compare/*"))
    for kind in documents.TABLE_FORMATS:
        (comparison / f"table.{kind}").write_text(f"é {kind}", encoding="utf-8")
    for page in report.glob("*.html"):
        page.unlink()  # a report is written after its runs
    pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False))
    for page in report.glob("0*.html"):
        names = [a["href"] for a in BeautifulSoup(page.read_text(), "html.parser").footer.select("a")[2:]]
        assert names == [f"{page.stem}.{kind}" for kind in documents.TABLE_FORMATS] * page.stem.startswith("06_compare")
        assert [(report / name).read_text(encoding="utf-8")[:2] for name in names] == ["é "] * len(names)


def test_a_failed_run_has_a_page_with_its_traceback(broken):
    failed = BeautifulSoup(next(broken.glob("02_adapter-*.html")).read_text(), "html.parser")
    assert "ValueError: bad" in failed.header.get_text() and failed.select_one(".failure")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"cells": 1}', "[" * 99_999, "\\x00", '{"nbformat": 4, "cells": [{}]}']
)
def test_a_damaged_notebook_takes_only_its_own_page(home, report, text):
    next(home.glob("runs/adapter/*/notebook.ipynb")).write_text(text)
    pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False))
    page = BeautifulSoup(next(report.glob("02_adapter-*.html")).read_text(), "html.parser")
    assert "The executed notebook is damaged" in page.main.get_text()
    assert len(index_of(report)[0].select(".state")) == 6


def test_only_what_changed_is_rendered_again(report, monkeypatch):
    times = {p: p.stat().st_mtime_ns for p in report.glob("*.html")}
    for module, name in ((html, "render_notebook"), (index, "index_page")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("rendered a page that had not changed"))
    pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False))
    assert times == {p: p.stat().st_mtime_ns for p in report.glob("*.html")}
    monkeypatch.undo()
    os.environ["STUDYKIT_HOME"] = str(report.parents[1])
    try:
        changed = next(files.home().glob("runs/evaluate/lua-base-*/notebook.ipynb"))
        changed.write_text(changed.read_text().replace("The title", "Another title"))
        pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False))
    finally:
        del os.environ["STUDYKIT_HOME"]
    again = {p.name.split("-")[0] for p in times if p.stat().st_mtime_ns != times[p]}
    assert again == {"04_evaluate"}


def test_pages_of_runs_that_are_no_longer_planned_go(report):
    (report / "mine.html").write_text("<p>my own notes</p>")
    (files.home() / "params/tiny.yaml").write_text(STUDY + "data: {source_examples: 3}\n")
    pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False))
    assert {p.name.split("-")[0] for p in report.glob("*.html")} == {"00_base_model", "index.html", "mine.html"}
    assert "1 of 6 runs are done" in (report / "index.html").read_text(), "the first page is made again"


def test_a_study_of_which_nothing_has_run(home):
    text = pages.write_report(family.load_plan("params/tiny.yaml", files.home(), check_paths=False)).read_text()
    assert "0 of 6 runs are done, 6 not run yet. Nothing has run yet" in text


# As a zip


def test_links_work_where_the_zip_is_unpacked(report, tmp_path):
    packed = pages.pack_report(report)
    assert packed == report.with_suffix(".zip") and not list(report.parent.glob(".*"))
    zipfile.ZipFile(packed).extractall(tmp_path / "elsewhere")
    unpacked = tmp_path / "elsewhere" / report.name
    assert {file.name for file in unpacked.iterdir()} == {file.name for file in report.iterdir()}
    for page in unpacked.glob("*.html"):
        shown = BeautifulSoup(page.read_text(), "html.parser")
        for link in shown.select("a[href]"):
            inside = link["href"].startswith("#") and len(shown.select(link["href"])) == 1
            assert inside or (page.parent / link["href"]).is_file() or link["href"].startswith("http"), link


# In a real browser


def test_a_wide_screen_has_the_contents_beside_the_page(home, browser):
    texts = [f"## Part {n} & more\n\n" + "x\n\n" * 60 for n in range(3)]
    notebook = new_notebook(cells=[new_markdown_cell(text) for text in ("# T", *texts)])
    study = study_file.load_study("params/tiny.yaml", home)
    log, done = nbformat.writes(notebook).encode(), runs_status.Status("done")
    file = home / "page.html"
    file.write_text(pages.run_page(plan.plan(study)[0], done, study, {}, log, b"", "mark"), encoding="utf-8")
    for width, seen in ((1280, True), (1000, False)):
        page = browser.new_page(viewport={"width": width, "height": 600})
        page.goto(file.as_uri())
        contents = page.locator("nav.contents")
        assert contents.is_visible() == seen
        if seen:
            assert contents.locator("a").all_text_contents() == [f"Part {n} & more" for n in range(3)]
            box, main = contents.bounding_box(), page.locator("main").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= main["x"], "it covers no text"
            page.click("nav.contents >> text=Part 2")
            assert 0 <= page.locator("#part-3").bounding_box()["y"] < 600 and contents.bounding_box() == box
        page.close()


@pytest.mark.parametrize("width, scheme", [(1100, "light"), (375, "dark")])
def test_reports_open_offline(broken, browser, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requests, messages = [], []
    for file in sorted(broken.glob("*.html")):
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(file.as_uri())
        assert requests == [file.as_uri()], "a page loads itself and nothing else"
        assert messages == []
        assert page.evaluate("document.body.dataset.pwned") is None
        assert page.evaluate("[...document.images].every(i => i.alt.trim() && i.complete && i.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{file.name} is wider than the screen"
        )
        assert page.evaluate("document.title") and page.locator("h1").count() == 1
        for frame in page.frames[1:]:
            frame.wait_for_selector("html[data-ready]")  # an explorer runs, in its sandbox
        page.close()
        requests.clear()
    context.close()


def test_the_policy_in_the_page_forbids_the_network(report, browser):
    page = browser.new_page()
    requests = []
    page.route("http://**", lambda route: (requests.append(route.request.url), route.abort()))
    page.goto((report / "index.html").as_uri())
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=http://example.org/x.png>')")
    page.wait_for_timeout(300)
    assert requests == []
    page.close()


def test_a_title_is_escaped():
    assert "<title>a &amp; b</title>" in documents.document("a & b", Markup("<p>x</p>"), "m")


def test_inline_html_of_prose_keeps_its_text():
    """nbconvert's own embedding of images parses each tag alone, and so empties it: u<sub></sub>n."""
    notebook = new_notebook(cells=[new_markdown_cell("# T\n\nx and u<sub>n</sub>, y<sup>2</sup>")])
    assert "u<sub>n</sub>, y<sup>2</sup>" in html.render_notebook(notebook).content

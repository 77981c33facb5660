"""Tables for others: what was computed comes out whole, and no text of a method or a signature breaks their format."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.evaluation import comparison
from studykit.report import documents, exports
from tests.made_scores import changed, method

STUDY = {"adapterfusion": method(0.4), "lora": method(0.6), "base": method(0.05, seeds=(None,))}
EVIL = "100%_of {the} $x^2$ & #1 | a\\b ~ <é>"


def metrics(study: dict = STUDY, **options) -> dict:
    pairs = [(method, "adapterfusion") for method in study if method != "adapterfusion"]
    options = {"baseline": "adapterfusion", "confidence": 0.95, "resamples": 1000, "pairs": pairs} | options
    shared = comparison.shared_metrics(list(study.values()))
    return {metric: comparison.compare(study, metric, **options) for metric in shared}


def grouped() -> dict:
    groups = [f"p{i // 4}" for i in range(200)]
    return {name: changed(content, groups=groups) for name, content in STUDY.items()}


def test_three_files_hold_every_metric_and_method(tmp_path):
    found = metrics(grouped())
    exports.write_tables(found, tmp_path / "table")
    linked = {f"table.{kind}" for kind in documents.TABLE_FORMATS}
    assert {file.name for file in tmp_path.iterdir()} == linked
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["metric"], line["method"]) for line in lines] == [(m, name) for m in found for name in STUDY]
    for line in lines:
        row = found[line["metric"]].summary(line["method"])
        assert float(line["mean"]) == row.mean and float(line["high"]) == row.interval.high, "in full precision"
        assert (line["n"], line["clusters"], line["signature"]) == ("200", "50", found[line["metric"]].signature)
    better = next(line for line in lines if (line["metric"], line["method"]) == ("pass_at_1", "lora"))
    assert better["verdict"] == "better" and better["effect_name"] == "odds ratio" and better["tests"] == "2"


def test_markdown_has_as_many_cells_in_every_line():
    found = metrics()
    found["loss"] = changed(found["loss"], signature="loss|n:200\nx")
    frame = exports.comparison_frame(found.values())
    lines = exports.markdown(frame).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(frame.columns) + 1}
    assert len(lines) == 2 + len(found) * len(STUDY) and r"loss\|n:200" in lines[-1]


@given(st.text())
def test_escaped_text_has_no_special_sign_left(text):
    plain = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textbar|textless|textgreater|allowbreak)\{\}", "",
                   exports.escape_latex(text))  # fmt: skip
    plain = re.sub(r"\\[&%$#_{}]|\$-\$|\$\\pm\$|\{\[\}", "", plain)
    assert not set(plain) & set("\\{}[&%$#_^|<>\n\0") and plain.isascii()


def test_escaped_text_reads_as_it_was():
    assert exports.escape_latex("a_b & 5 %") == r"a\_b \& 5 \%"
    assert exports.escape_latex("x|y − 1") == r"x\textbar{}\allowbreak{}y $-$ 1"


@pytest.fixture
def document() -> str:
    found = metrics(grouped() | {EVIL: changed(method(0.5), groups=grouped()["base"].groups)})
    found["pass_at_1"] = changed(found["pass_at_1"], signature=f"pass@1|{EVIL}")
    return exports.latex(list(found.values()))


def test_latex_is_a_document_of_balanced_tables(document):
    assert document.startswith("\\documentclass") and document.endswith("\\end{document}\n")
    open_now: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", document):
        if kind == "begin":
            open_now.append(name)
        else:
            assert open_now.pop() == name
    assert not open_now
    bare = re.sub(r"\\[{}]", "", document)
    assert bare.count("{") == bare.count("}") and document.isascii()
    for spec, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", document, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + len(STUDY) + 1
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(spec) - 1}
        assert re.findall(r"\\(top|mid|bottom)rule", body) == ["top", "mid", "bottom"]
    labels = re.findall(r"\\label\{(.*?)\}", document)
    assert len(labels) == len(set(labels)) == 4


def test_a_caption_says_what_stands_behind_the_numbers(document):
    said = exports.caption(metrics(grouped())["pass_at_1"])
    assert "pass@1 (%) on Lua, n = 200 rows in 50 clusters, 3 seeds" in said
    assert "by Holm's method over 2 differences; effect size: odds ratio" in said and said.endswith("Signature: p.")
    alone = metrics({"adapterfusion": method(0.4, seeds=(0,), n=1)})["loss"]
    assert "Holm" not in exports.caption(alone) and "1 seed:" in exports.caption(alone)
    assert "-- & --" in exports.latex_table(alone)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX is installed")
def test_latex_compiles_on_its_own(document, tmp_path):
    (tmp_path / "table.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and (tmp_path / "table.pdf").stat().st_size, done.stdout[-2000:]

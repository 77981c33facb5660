"""The findings at the head of a report: the answer, the questions and the scores, as they were published."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from studykit.evaluation import comparison
from studykit.evaluation.results import ComparisonResults
from studykit.report import summary
from studykit.report.documents import render
from studykit.runs.files import write_json
from studykit.study.plan import Run
from tests import made_runs, made_scores


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """A comparison that has published nothing yet."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    (tmp_path / "runs/compare/lua-0123456789").mkdir(parents=True)
    evaluations = {"adapterfusion": "runs/evaluate/lua-adapterfusion-0123456789"}
    return Run("compare", "lua", "0123456789", {"attention": {}, "evaluations": evaluations}, ())


def publish(run: Run, home) -> ComparisonResults:
    """A published compare.json; AdvFusion is best, the bottleneck adapter worst."""
    methods = {"bottleneck": 0.2, "adapterfusion": 0.4, "advfusion_zero": 0.7}
    scores = {
        name: made_scores.method(share, loss=2 - share, rng_seed=n) for n, (name, share) in enumerate(methods.items())
    }
    options = {"baseline": "adapterfusion", "confidence": 0.95, "resamples": 1000}
    metrics = {metric: comparison.compare(scores, metric, **options) for metric in ("pass_at_1", "loss")}
    results = ComparisonResults(main="pass_at_1", metrics=metrics, sources=[], attention=[], cost=[], time=[])
    (home / run.dir / "compare.json").write_text(results.model_dump_json())
    return results


def test_every_number_comes_with_its_interval(run, tmp_path):
    main = publish(run, tmp_path).main_comparison
    scores = summary.score_table(main)
    lines = {line.method: line for line in scores.lines}
    assert list(lines) == ["bottleneck", "adapterfusion", "advfusion_zero"]
    for name, line in lines.items():
        row = main.summary(name)
        assert line.score == f"{row.mean:.1f}"
        assert line.interval == f"{row.interval.low:.1f} to {row.interval.high:.1f}"
    baseline, advfusion, bottleneck = lines["adapterfusion"], lines["advfusion_zero"], lines["bottleneck"]
    assert (baseline.difference, baseline.difference_interval, baseline.verdict) == ("", "", "the baseline")
    assert advfusion.difference == "+30.0" and advfusion.difference_interval.startswith("+")
    assert advfusion.verdict == "better"
    assert bottleneck.difference == "\u221220.0" and bottleneck.difference_interval.startswith("\u2212")
    assert bottleneck.verdict == "worse"
    assert "over 3 seeds, n = 200 test rows, each with its 95% interval" in scores.caption


def test_the_answer_is_plain_and_the_questions_hold_the_numbers(run, tmp_path):
    publish(run, tmp_path)
    found = summary.read_findings(run, "lua")
    assert found.answer == [
        "**AdvFusion beats AdapterFusion on Lua**, judged by pass@1 and by the completion loss.",
        "AdapterFusion is better than the bottleneck adapter alone, judged by pass@1 (+20.0 points).",
        "Highest pass@1: AdvFusion (mask zero) 70.0 %, then AdapterFusion 40.0 %.",
    ]
    advfusion = next(line for line in found.questions if line.question.startswith("Does AdvFusion beat"))
    assert [(chip.metric, chip.verdict, chip.kind) for chip in advfusion.chips] == [
        ("pass@1", "\u25b2 better", "better"), ("loss", "\u25b2 better", "better")
    ]  # fmt: skip
    assert "+24.0 to +36.0" in advfusion.sentences[0] and "over rows and seeds +23.8 to +36.2" in advfusion.sentences[0]
    assert summary.in_one_line(advfusion) == (
        "**Does AdvFusion beat AdapterFusion, schedule and mask together?** "
        "pass@1\u00a0\u25b2\u00a0better\u00a0+30.0, loss\u00a0\u25b2\u00a0better\u00a0\u22120.297"
    )
    assert summary._pair("zero, phase 1, restored", "zero, phase 1") == "zero: phase 1, restored \u2212 phase 1"
    assert summary._pair("zero", "zero, phase 1") == "zero: finished \u2212 phase 1"
    assert summary._pair("zero", "none, phase 1") == "zero \u2212 none, phase 1"
    assert found.limits[0].startswith(
        "**AdvFusion beats AdapterFusion on Lua**, judged by pass@1: advfusion_zero against"
    )
    assert found.counts == "3 methods over 3 seeds and 200 test rows"
    assert "<figcaption" in found.forest and f">{found.answer[-1]} Right is better" in found.forest
    assert ">Lowest completion loss: AdvFusion (mask zero)" in found.by_loss
    assert "Right is better; the dotted line is adapterfusion" in found.forest and found.by_loss and not found.further


def test_texts_are_escaped_and_bold_is_kept(run, tmp_path):
    publish(run, tmp_path)
    file = tmp_path / run.dir / "compare.json"
    file.write_text(file.read_text().replace("pass@1", "<b>pass"))
    soup = BeautifulSoup(render("findings.html.j2", findings=summary.read_findings(run, "<i>")), "html.parser")
    assert not soup.find_all(["b", "i"]) and soup.select(".answer strong") and soup.select("li strong")
    assert "<b>pass" in soup.get_text()


def test_rows_that_are_left_out_of_pass_at_k_are_counted_by_language_and_package(run, tmp_path):
    counts = made_scores.PredictionCounts(n=400, empty=0, truncated=0, checked=388, left_out={"javatuples": 12})
    scores = made_scores.method(0.5)
    sampled = [one.model_copy(update={"counts": counts}) for one in scores.checkpoints]  # two completions per row
    left_out = comparison.left_out_rows(made_scores.changed(scores, checkpoints=sampled))
    assert left_out == {"javatuples": 6}
    results = publish(run, tmp_path).model_copy(update={"left_out": left_out})
    (tmp_path / run.dir / "compare.json").write_text(results.model_dump_json())
    page = render("findings.html.j2", findings=summary.read_findings(run, "java"))
    assert "pass@k leaves out 6 test rows of Java</strong>, because the tests need javatuples" in page


@pytest.mark.parametrize("cut, said", [(10, ""), (11, "6% of the Lua test prompts were cut</strong> to 64 tokens")])
def test_many_cut_prompts_are_told_first(run, tmp_path, cut, said):
    publish(run, tmp_path)
    counts = [
        {"language": language, "split": split, "rows": 200, "prompts cut": cut if language == "lua" else 200}
        for language in ("go", "lua")
        for split in ("train", "test")
    ]
    counts[2]["prompts cut"] = 200  # training rows of the target
    (tmp_path / "runs/data/d").mkdir(parents=True)
    write_json(tmp_path / "runs/data/d/overview.json", {"cut": counts})
    made_runs.finish(tmp_path / "runs/data/d", "data", {"max_prompt_tokens": 64})
    evaluation = tmp_path / next(iter(run.params["evaluations"].values()))
    evaluation.mkdir(parents=True)
    made_runs.finish(evaluation, "evaluate", {"data": "runs/data/d"})
    page = render("findings.html.j2", findings=summary.read_findings(run, "lua"))
    assert ("prompts were cut" in page) == bool(said) and said in page


def test_a_run_without_a_comparison_has_no_findings(run):
    assert summary.read_findings(run, "lua") is None

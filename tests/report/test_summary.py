"""The scores at the head of a report: values and differences with their intervals, as they were published."""

from __future__ import annotations

from bs4 import BeautifulSoup

from studykit.evaluation import comparison
from studykit.evaluation.results import ComparisonResults
from studykit.report import pages, summary
from tests import made_scores


def publish(run_dir) -> ComparisonResults:
    """A published compare.json; AdvFusion is best, the bottleneck adapter worst."""
    methods = {"bottleneck": 0.2, "adapterfusion": 0.4, "advfusion_zero": 0.7}
    scores = {name: made_scores.method(share, loss=2 - share) for name, share in methods.items()}
    options = {"baseline": "adapterfusion", "confidence": 0.95, "resamples": 1000}
    metrics = {metric: comparison.compare(scores, metric, **options) for metric in ("pass_at_1", "loss")}
    results = ComparisonResults(main="pass_at_1", metrics=metrics, sources=[], attention=[], cost=[], time=[])
    (run_dir / "compare.json").write_text(results.model_dump_json())
    return results


def test_every_number_comes_with_its_interval(tmp_path):
    main = publish(tmp_path).main_comparison
    scores = summary.read_score_table(tmp_path, "lua")
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


def test_the_hypothesis_is_answered_by_score_and_by_loss(tmp_path):
    publish(tmp_path)
    sentences = summary.read_score_table(tmp_path, "lua").sentences
    by_score = [sentence for sentence in sentences if "pass@1" in sentence]
    by_loss = [sentence for sentence in sentences if "the completion loss" in sentence]
    assert [*by_score, *by_loss] == sentences and "AdvFusion beats" in by_loss[0]
    assert "+30.0 points (95% interval over rows +24.0 to +36.0, over rows and seeds +23.8 to +36.2)" in by_score[0], (
        "with both intervals"
    )


def test_texts_are_escaped_and_bold_is_kept(tmp_path):
    publish(tmp_path)
    file = tmp_path / "compare.json"
    file.write_text(file.read_text().replace("pass@1", "<b>pass"))
    scores = summary.read_score_table(tmp_path, "<i>")
    soup = BeautifulSoup(pages._render("scores.html.j2", scores=scores), "html.parser")
    assert not soup.find_all(["b", "i"]) and soup.select("li strong")
    assert "<b>pass" in soup.get_text()


def test_a_run_without_a_comparison_has_no_scores(tmp_path):
    assert summary.read_score_table(tmp_path, "lua") is None

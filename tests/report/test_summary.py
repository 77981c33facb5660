"""The table at the head of a report: scores and differences with their intervals, as they were published."""

from __future__ import annotations

import json

from bs4 import BeautifulSoup

from studykit.evaluation import comparison
from studykit.report import summary
from tests import made_scores


def published(tmp_path) -> dict:
    methods = {"bottleneck": 0.2, "adapterfusion": 0.4, "advfusion_zero": 0.7}
    scores = {name: {**made_scores.method(share, loss=2 - share), "method": name} for name, share in methods.items()}
    options = {"baseline": "adapterfusion", "confidence": 0.95, "resamples": 200}
    metrics = {metric: comparison.compare(scores, metric, **options) for metric in ("pass_at_1", "loss")}
    (tmp_path / "compare.json").write_text(json.dumps({"main": "pass_at_1", "metrics": metrics}))
    return summary.read(tmp_path)


def test_every_number_stands_beside_its_interval(tmp_path):
    found = published(tmp_path)
    soup = BeautifulSoup(summary.block(found, "lua"), "html.parser")
    lines = soup.select("tbody tr")
    rows = {line.th.text: [" ".join(cell.get_text(" ").split()) for cell in line("td")] for line in lines}
    main = {row["method"]: row for row in found["metrics"]["pass_at_1"]["rows"]}
    assert list(rows) == ["bottleneck", "adapterfusion", "advfusion_zero"]
    for name, (score, _, _) in rows.items():
        assert score == f"{main[name]['mean']:.1f} {main[name]['low']:.1f} to {main[name]['high']:.1f}"
    assert rows["adapterfusion"][1:] == ["", "the baseline"]
    assert rows["advfusion_zero"][1].startswith("+30.0 +") and rows["advfusion_zero"][2] == "better"
    assert rows["bottleneck"][1].startswith("\u221220.0 \u2212") and rows["bottleneck"][2] == "worse"
    assert "n = 200 test rows" in soup.get_text() and "intervals of 95%" in soup.get_text()


def test_the_hypothesis_is_answered_by_score_and_by_loss(tmp_path):
    said = [item.get_text() for item in BeautifulSoup(summary.block(published(tmp_path), "lua"), "html.parser")("li")]
    by_score = [sentence for sentence in said if "pass@1" in sentence]
    by_loss = [sentence for sentence in said if "the completion loss" in sentence]
    assert [*by_score, *by_loss] == said and "is supported" in by_score[0] and "AdvFusion beats" in by_loss[0]
    assert "+30.0 points (rows +24.0 to +36.1, seeds +30.0 to +30.0)" in by_score[0], "with both intervals"
    assert "adapterfusion against bottleneck is better" in by_score[1]


def test_names_are_escaped(tmp_path):
    text = json.dumps(published(tmp_path)).replace("bottleneck", "<b>ottle")
    assert "<b>ottle" not in summary.block(json.loads(text), "lua")


def test_a_run_without_a_comparison_has_none(tmp_path):
    assert summary.read(tmp_path) is None

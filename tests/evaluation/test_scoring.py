"""Scores of a predictions file: text metrics for all rows, pass@1 for those that bring tests."""

import subprocess
import sys
from dataclasses import replace

import pytest

from studykit.data.polyglot import programs
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.evaluation.execution import execute, runtimes
from studykit.evaluation.scoring import score_predictions


def material(language: str = "python", n: int = 5) -> tuple[list[Row], list[dict]]:
    """Rows whose predictions are their targets."""
    rows = [
        Row(f"{language}-{i}", language, "p", program.code(language), check=program.check)
        for i, program in enumerate(programs(n, 0, "test"))
    ]
    return rows, [{"id": row.id, "text": row.target, "finished": True} for row in rows]


def test_only_the_first_line_of_a_message_is_scored_where_asked():
    rows = [Row("a", "ruby", "p", "Fix the parser\n\nIt read one line too many.")]
    predictions = [{"id": "a", "text": "\n Fix the parser\n+++ b/parser.rb\n+x", "finished": True}]
    whole = score_predictions(rows, predictions).scores
    first = score_predictions(rows, predictions, first_line=True).scores
    assert whole["exact_match"].value == 0 and first["exact_match"].value == first["b_norm"].value == 100
    assert "first_line" not in whole["b_norm"].signature and first["b_norm"].signature.endswith("|text:first_line|n:1")


@pytest.mark.parametrize("language", ["python", "lua"])
def test_references_score_full_marks(language):
    if not runtimes.find(language):
        pytest.skip(f"no {language} here")
    found = score_predictions(*material(language), timeout=10, allow_unsandboxed=True)
    assert found.scores["exact_match"].value == found.scores["pass_at_1"].value == 100
    assert found.execution.statuses == {"passed": 5}
    assert found.execution.runtimes == {language: execute.runtime_version(language)}
    assert found.execution.isolation == execute.isolation(True)


def test_what_went_wrong_is_counted_and_kept_per_example():
    rows, predictions = material()
    predictions[1] |= {"text": "  ", "finished": False}
    predictions[2] |= {"text": rows[2].target + "\nraise SystemExit(0)"}
    predictions[3] |= {"text": "def "}
    rows[4] = replace(rows[4], check=None)
    found = score_predictions(rows, predictions, timeout=10, allow_unsandboxed=True)
    assert dict(found.counts) == {"n": 5, "empty": 1, "truncated": 1, "checked": 4, "left_out": {}}
    assert found.scores["pass_at_1"].per_example == [100, 0, 0, 0]
    assert [program.id for program in found.programs] == [row.id for row in rows[:4]]
    assert [program.status == "passed" for program in found.programs] == [True, False, False, False]
    assert found.scores["pass_at_1"].signature.endswith("|n:4") and found.scores["pass_at_1"].rows == [0, 1, 2, 3]


def test_samples_are_folded_into_their_rows():
    """A row's counts are summed over its samples, its shares averaged, and pass@k is the unbiased estimate."""
    rows, predictions = material(n=2)
    wrong = "def "
    drawn = [p | {"text": p["text"] if at < right else wrong, "sample": at}
             for p, right in zip(predictions, (1, 3), strict=True) for at in range(3)]  # fmt: skip
    found = score_predictions(rows, drawn, samples=3, pass_k=[1, 2, 3], timeout=10, allow_unsandboxed=True)
    scores = found.scores
    assert scores["pass_at_1"].per_example == pytest.approx([100 / 3, 100])
    assert scores["pass_at_2"].per_example == pytest.approx([100 * (1 - 1 / 3), 100])  # both of two wrong: 1 in 3
    assert scores["pass_at_3"].value == 100 and scores["pass_at_3"].label == "pass@3"
    assert scores["exact_match"].per_example == pytest.approx([100 / 3, 100]) and scores["exact_match"].n == 2
    assert dict(found.counts) == {"n": 6, "empty": 0, "truncated": 0, "checked": 6, "left_out": {}}
    once = score_predictions(rows, predictions, timeout=10, allow_unsandboxed=True).scores
    for name in ("bleu_paper", "chrf"):
        row = scores[name].statistics[1]
        assert row == [3 * count for count in once[name].statistics[1]]
        assert "|samples:3|n:2" in scores[name].signature
    assert len(found.programs) == 6


def test_rows_that_only_bring_tests_get_no_text_scores():
    rows, predictions = material(n=2)
    rows = [replace(row, target="", no_reference=True) for row in rows]
    found = score_predictions(rows, predictions, timeout=10, allow_unsandboxed=True)
    assert list(found.scores) == ["pass_at_1", "tests_passed"] and found.scores["pass_at_1"].value == 100


def test_without_checks_nothing_is_executed(monkeypatch):
    monkeypatch.setattr(execute, "execute", lambda *_, **__: pytest.fail("executed"))
    rows, predictions = material()
    found = score_predictions([replace(row, check=None) for row in rows], predictions)
    assert found.execution is None and "pass_at_1" not in found.scores


def test_predictions_of_other_rows_are_refused():
    rows, predictions = material()
    with pytest.raises(UserError, match="same order"):
        score_predictions(rows, predictions[::-1])


def test_scoring_needs_no_torch():
    code = "import sys, studykit.evaluation.scoring, studykit.evaluation.statistics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

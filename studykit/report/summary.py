"""The head of a report: every method's score, its difference from the baseline, and sentences.

All numbers are those that notebook 06 published in `compare.json`. The head of the report is made
from them by `templates/scores.html.j2`, which escapes every text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studykit.evaluation.metrics.properties import format_score
from studykit.evaluation.results import MethodSummary, MetricComparison, read_results
from studykit.report import conclusions, verdicts
from studykit.runs.text import plural


@dataclass(frozen=True)
class ScoreLine:
    """One method of the table, as text; what does not apply is ""."""

    method: str
    score: str  # mean over the seeds, in the unit of the table
    interval: str  # of the score, over the test rows
    difference: str  # from the baseline, with its sign
    difference_interval: str
    verdict: str


@dataclass(frozen=True)
class ScoreTable:
    """The main score of every method, and the answers to the study's questions."""

    label: str  # of the score
    unit: str
    baseline: str  # the method from which the others differ
    lines: list[ScoreLine]
    caption: str
    sentences: list[str]  # **bold** as in Markdown


def read_score_table(run_dir: Path, target: str) -> ScoreTable | None:
    """Returns the scores that a comparison published in `run_dir`; None if it published none.

    Args:
        target: the target language, which the sentences name.
    """
    results = read_results(run_dir)
    if results is None:
        return None
    main = results.main_comparison
    return ScoreTable(
        label=main.label,
        unit=main.unit,
        baseline=main.baseline,
        lines=[_score_line(row, main) for row in main.summaries if row.final],
        caption=_caption(main),
        sentences=[text for comparison in results.judged_by for text in conclusions.in_brief(comparison, target)],
    )


def _score_line(row: MethodSummary, main: MetricComparison) -> ScoreLine:
    metric = main.metric
    interval = verdicts.score_interval(row.interval, metric) if row.interval else ""
    score = {"method": row.method, "score": format_score(row.mean, metric), "interval": interval}
    if row.method == main.baseline:
        return ScoreLine(**score, difference="", difference_interval="", verdict="the baseline")
    contrast = main.contrast(row.method, main.baseline)
    if contrast is None:
        return ScoreLine(**score, difference="–", difference_interval="", verdict="")
    return ScoreLine(
        **score,
        difference=verdicts.signed(contrast.value, metric),
        difference_interval=verdicts.signed_interval(contrast.interval, metric),
        verdict=str(contrast.verdict),
    )


def _caption(main: MetricComparison) -> str:
    seeds = plural(main.seeds, "seed")
    rows = verdicts.sample_size(main.summaries[0], "test row")
    return (
        f"Scores are means over {seeds}, n = {rows}, each with its {main.confidence:.0%} interval over rows. "
        f"{verdicts.verdict_meanings(main)}"
    )

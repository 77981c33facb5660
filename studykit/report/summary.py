"""The head of a report: every method's score, its difference from the baseline, and sentences.

All numbers are those that notebook 06 published in `compare.json`. The head of the report is made
from them by `templates/scores.html.j2`, which escapes every text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    file = run_dir / "compare.json"
    if not file.is_file():
        return None
    from studykit.report import conclusions  # imports numpy, which other commands do without

    published = json.loads(file.read_text(encoding="utf-8"))
    main, loss = published["metrics"][published["main"]], published["metrics"].get("loss")
    metrics = [main] if published["main"] == "loss" or not loss else [main, loss]
    return ScoreTable(
        label=main["label"],
        unit=main["unit"],
        baseline=main["baseline"],
        lines=[_score_line(row, main) for row in main["rows"] if row["final"]],
        caption=_caption(main),
        sentences=[sentence for metric in metrics for sentence in conclusions.in_brief(metric, target)],
    )


def _score_line(row: Mapping[str, Any], main: Mapping[str, Any]) -> ScoreLine:
    from studykit.report import conclusions

    mean, low, high = (conclusions.rounded(row[name], main["metric"]) for name in ("mean", "low", "high"))
    score = {"method": row["method"], "score": mean, "interval": "" if row["low"] is None else f"{low} to {high}"}
    if row["method"] == main["baseline"]:
        return ScoreLine(**score, difference="", difference_interval="", verdict="the baseline")
    contrast = conclusions.oriented(main["contrasts"], row["method"], main["baseline"])
    if contrast is None:
        return ScoreLine(**score, difference="–", difference_interval="", verdict="")
    return ScoreLine(
        **score,
        difference=conclusions.signed(contrast["value"], main["unit"]),
        difference_interval=conclusions.ends(contrast, main["unit"]),
        verdict=contrast["verdict"],
    )


def _caption(main: Mapping[str, Any]) -> str:
    from studykit.report import conclusions

    seeds = plural(max(len(row["points"]) for row in main["rows"]), "seed")
    rows = conclusions.counted(main["rows"][0], "test row")
    return (
        f"Scores are means over {seeds}, n = {rows}, each with its {main['confidence']:.0%} interval over rows. "
        f"A method is better or worse than the baseline if the corrected p of their difference is below "
        f"{1 - main['confidence']:.2g} and its intervals over rows and over seeds both exclude 0. "
        "“On these seeds” means that only the interval over rows excludes 0: other seeds could give another result. "
        "“Undecided” means that these test rows do not tell the two apart; it does not mean that they are equal."
    )

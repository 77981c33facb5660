"""Calibration: how well each score tells the same meaning from another one, on built-in edits where both are known.

The area under the ROC curve (AUC) of a score is the probability that a text of the same meaning scores more than a text
of another meaning, ties counting half: 1 tells them apart, 0.5 says nothing, and less than 0.5 prefers the wrong one
(Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic (ROC) curve").

- Messages. The same edit in other words against another edit in other words, and against the opposite edit, which has
  nearly the same words.
- Programs. The same program with other names and swapped operands, against one that a small change makes fail a test.
  Scores that run programs have no AUC: the changed programs are chosen by a failing test, so it would be 1 by
  construction.

The built-in language of the target is used, or else Python. The edits are small and their words few, so a score that
fails here cannot be trusted, while one that succeeds has passed an easy examination.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studykit.evaluation import edits
from studykit.evaluation.instruments import Instruments
from studykit.evaluation.metrics.codebleu import COMPONENTS, components
from studykit.evaluation.metrics.score import corpus_value
from studykit.evaluation.scores import ANOTHER, CHANGED, OPPOSITE, Calibration, Score
from studykit.study.fields import POLYGLOT
from studykit.study.templates import check_template

RESAMPLES = 1000  # of edits, for the interval
CONFIDENCE = 0.95


def auc(same: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Returns the AUC of n scores of the same meaning against n of another one, with its bootstrap interval.

    The two scores of one edit are drawn together. The interval is a percentile interval of 95 %, with a fixed seed; it
    has no width where every pair is ordered alike, which does not make the AUC certain.

        auc([3, 2], [1, 2])  # (0.875, ...)
    """
    a, b = np.asarray(same, float), np.asarray(other, float)
    order = (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])  # (n, n)
    n = len(a)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # (R, n)
    drawn = np.einsum("ri,ij,rj->r", weights, order, weights, optimize=True) / n**2
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(order.mean()), float(low), float(high)


def calibrate(instruments: Instruments, language: str, n: int) -> list[Calibration]:
    """Returns the calibration of every score of texts that these instruments compute, on n edits or programs.

    No program is run. The judge is not asked: its questions may cost money, three for each edit in every evaluation.

    language: of the target. A task whose targets are neither commit messages nor programs has no calibration.
    """
    language = language if language in POLYGLOT else "python"
    if instruments.programs:
        made = edits.variants(language, n)
        rows, same = [one.row for one in made], [one.rewritten for one in made]
        against = {CHANGED: [one.mutated for one in made]}
    elif instruments.task == "commit":
        own = instruments.data["template"] if instruments.data["task"] == "commit" else None
        drawn = edits.edits(language, n, check_template("commit", own))
        rows, same = [one.row for one in drawn], [one.reworded for one in drawn]
        against = {
            ANOTHER: [one.reworded for one in edits.others(drawn)],
            OPPOSITE: [one.reversed for one in drawn],
        }
    else:
        return []

    def scores_of(texts: Sequence[str]) -> dict[str, Score]:
        predictions = [{"id": row.id, "text": text, "finished": True} for row, text in zip(rows, texts, strict=True)]
        scores = instruments.score(rows, predictions, run=False, judge=False).scores
        return {metric: score for metric, score in scores.items() if score.value is not None}

    right = scores_of(same)
    found = []
    for name, texts in against.items():
        wrong = scores_of(texts)
        for metric, score in right.items():
            of_rows, of_others = row_values(metric, score), row_values(metric, wrong[metric])
            for part, values in of_rows.items():
                value, low, high = auc(values, of_others[part])
                about = {"metric": part, "label": score.label + part.removeprefix(metric).replace(".", ", ")}
                about |= {"against": name, "language": language}
                mean = score.value if part == metric else float(values.mean())
                found.append(Calibration(**about, auc=value, low=low, high=high, n=len(values), mean_same=mean or 0.0))
    return found


def row_values(metric: str, score: Score) -> dict[str, np.ndarray]:
    """Returns the score of each row alone, (n,), by the metric; of a corpus metric from the counts of the row.

    The two parts of CodeBLEU that read a program, `codebleu.syntax` and `codebleu.dataflow`, come with it.
    """
    if score.per_example is not None:
        return {metric: np.asarray(score.per_example, float)}
    counts = np.asarray(score.statistics, float)  # (n, k)
    values = {metric: corpus_value(metric)(counts)}
    if metric in ("codebleu", "codebleu_3"):
        shares = dict(zip(COMPONENTS, 100 * components(counts).T, strict=True))
        known = score.components or {}
        values |= {f"{metric}.{name}": shares[name] for name in ("syntax", "dataflow") if name in known}
    return {name: np.nan_to_num(of_rows) for name, of_rows in values.items()}

"""Agreement: scores that order methods alike have a rank correlation of 1, whatever their scale."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from studykit.evaluation.metrics.properties import unit
from studykit.evaluation.results import MethodSummary, MetricComparison
from studykit.evaluation.scores import CHANGED, Calibration
from studykit.evaluation.worth import rank_correlation
from studykit.report.agreement import agreement_caption, agreement_table

METHODS = ("base", "bottleneck", "lora", "adapterfusion", "average")


def comparison(metric: str, means, label: str = "", parts=()) -> MetricComparison:
    """A comparison of which only the means, and syntax and data flow where they are given, matter."""
    usual = {"sd": None, "points": [], "interval": None, "interval_method": "", "n": 9, "clusters": None}
    of_parts = [dict(zip(("syntax", "dataflow"), pair, strict=True)) for pair in parts] or [{}] * len(means)
    rows = [
        MethodSummary(method=method, mean=mean, components=of_method, **usual)
        for method, mean, of_method in zip(METHODS, means, of_parts, strict=False)
    ]
    about = {"baseline": "lora", "language": "lua", "signature": "", "confidence": 0.95, "margin": None}
    return MetricComparison(
        metric=metric, label=label or metric, unit=unit(metric), summaries=rows, contrasts=[], **about
    )


def test_scores_are_ranked_against_overlap_and_stand_beside_their_calibration():
    parts = [(9, 1), (1, 1), (2, 1), (3, 1), (4, 1)]
    metrics = {
        "behaviour": comparison("behaviour", [90, 1, 2, 3, 4], "Equal behaviour"),
        "bleu_paper": comparison("bleu_paper", [0, 10, 20, 30, 40], "BLEU"),
        "codebleu": comparison("codebleu", [0, 4, 3, 2, 1], "CodeBLEU", parts),
        "verb": comparison("verb", [0, 5, 5, 5, 5]),
        "loss": comparison("loss", [9, 0.4, 0.3, 0.2, 0.1], "Loss"),
    }
    about = {"label": "x", "against": CHANGED, "language": "lua", "low": 0, "high": 1, "n": 9, "mean_same": 0}
    known = [Calibration(metric="codebleu.syntax", auc=0.25, **about)]
    lines = {line.pop("score"): list(line.values()) for line in agreement_table(metrics, known)}
    assert lines == {
        "Equal behaviour": ["+1.00", "\u22121.00", "–"],  # the base is left out
        "BLEU": ["–", "\u22121.00", "–"],
        "CodeBLEU": ["\u22121.00", "–", "–"],
        "CodeBLEU, syntax": ["+1.00", "\u22121.00", "0.25"],
        "CodeBLEU, dataflow": ["–", "–", "–"],  # equal for all methods
        "verb": ["–", "–", "–"],
        "Loss": ["+1.00", "\u22121.00", "–"],  # less is better
    }


@pytest.mark.parametrize("n", [3, 4])
def test_the_caption_says_how_far_unrelated_orders_agree(n):
    caption = agreement_caption({"bleu_paper": comparison("bleu_paper", range(n + 1))})
    sizes = [abs(rank_correlation(order, range(n))) for order in permutations(range(n))]
    exact = np.quantile(sizes, 0.95, method="higher")
    assert f"n = {n} methods" in caption and f"95 % have {exact:.2f} at most" in caption


def test_two_methods_have_no_order():
    metrics = {"bleu_paper": comparison("bleu_paper", [0, 1, 2])}
    assert agreement_table(metrics, []) == [] and agreement_caption(metrics) == ""

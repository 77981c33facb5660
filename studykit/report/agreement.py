"""Agreement: whether the other scores of a study order its methods as the scores of overlap do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from studykit.evaluation.metrics.properties import less_is_better
from studykit.evaluation.results import MetricComparison
from studykit.evaluation.scores import Calibration
from studykit.evaluation.worth import rank_correlation
from studykit.report.calibration import UNKNOWN, auc_of

OVERLAP = ("bleu_paper", "codebleu", "codebleu_3")
PARTS = ("syntax", "dataflow")  # of CodeBLEU, which read a program
FEWEST = 3  # methods that have an order worth the name
DRAWS = 20_000


def agreement_table(metrics: Mapping[str, MetricComparison], calibrated: Sequence[Calibration]) -> list[dict[str, str]]:
    """Returns a line per score with Spearman's rank correlation over methods with each score of overlap, and its AUC.

    The trained methods are ranked, each in its last state; [] for fewer than three.
    """
    methods = ranked_methods(metrics)
    values: dict[str, tuple[str, list[float]]] = {}  # label and means of the methods, by score; more is better
    for metric, compared in metrics.items():
        rows, sign = [compared.summary(method) for method in methods], -1 if less_is_better(metric) else 1
        values[metric] = compared.label, [sign * row.mean for row in rows]
        for part in PARTS if metric in ("codebleu", "codebleu_3") else ():
            if all(part in row.components for row in rows):
                values[f"{metric}.{part}"] = f"{compared.label}, {part}", [row.components[part] for row in rows]
    lines = []
    for name, (label, means) in values.items() if len(methods) >= FEWEST else ():
        line = {"score": label}
        for other in (metric for metric in OVERLAP if metric in metrics):
            rho = np.nan if name == other else rank_correlation(means, values[other][1])
            line[f"with {metrics[other].label}"] = UNKNOWN if np.isnan(rho) else f"{rho:+.2f}".replace("-", "\u2212")
        lines.append(line | {"AUC on built-in edits": auc_of(calibrated, name)})
    return lines


def ranked_methods(metrics: Mapping[str, MetricComparison]) -> list[str]:
    """Returns the methods that were trained, of which each counts in its last state."""
    return [one.method for one in next(iter(metrics.values())).summaries if one.final and one.method != "base"]


def agreement_caption(metrics: Mapping[str, MetricComparison]) -> str:
    """Returns what the table shows, and how far orders of so many methods agree by chance; "" for too few methods."""
    if (n := len(ranked_methods(metrics))) < FEWEST:
        return ""
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1)  # (DRAWS, n)
    agreed = np.abs(1 - 6 * ((drawn - np.arange(n)) ** 2).sum(1) / (n**3 - n))  # Spearman, without ties
    by_chance = np.quantile(agreed, 0.95, method="higher")
    return (
        f"Spearman's rank correlation over the means of n = {n} methods, without the base: +1 is the same order, "
        f"\u22121 the reverse. Of unrelated orders, 95 % have {by_chance:.2f} at most, in size."
    )

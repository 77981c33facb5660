"""Methods side by side: scores with their intervals, and paired differences with their verdicts.

Two uncertainties count. **Test rows**: the study could have drawn other rows. A method's interval resamples rows, where
a row's score is its mean over the seeds; a difference resamples the rows in pairs. Rows of one group (a problem, a
repository) are resampled together. **Seeds**: another training could have ended elsewhere.

How a difference is tested and decided stands in `contrasts`.

The functions read the `scores.json` of evaluate runs and need no torch:

    scores = read_comparable({"lora": "runs/evaluate/...", "adapterfusion": "runs/evaluate/..."})
    comparison = compare(scores, "pass_at_1", baseline="adapterfusion", confidence=0.95, resamples=2000)
    str(comparison.contrast("lora", "adapterfusion").verdict)  # "worse"
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from studykit.errors import UserError
from studykit.evaluation import statistics
from studykit.evaluation.contrasts import (
    Resampling,
    decide,
    interval,
    measure_contrast,
    measure_interaction,
    row_scores,
)
from studykit.evaluation.metrics.properties import is_rate, pass_k, sort_key, unit
from studykit.evaluation.results import MethodSummary, MetricComparison, SourceScores
from studykit.evaluation.scores import CheckpointScores, EvaluationScores, read_scores
from studykit.study.questions import Pair, method_pairs, too_few_resamples

MUST_AGREE = ("language", "ids", "groups", "settings", "isolation")  # fields of evaluations that can be compared


def read_comparable(evaluations: Mapping[str, str]) -> dict[str, EvaluationScores]:
    """Reads the scores of evaluate runs by method.

    Raises UserError unless all are of the same rows, generated and run under the same settings.
    """
    if not evaluations:
        raise UserError("evaluations is empty; it must name at least one method's evaluate run.")
    scores = {method: read_scores(run) for method, run in evaluations.items()}
    first, *others = scores
    for method in others:
        for field in MUST_AGREE:
            if getattr(scores[method], field) != getattr(scores[first], field):
                raise UserError(
                    f"{evaluations[method]} and {evaluations[first]} differ in their {field}; methods are compared on "
                    "the same rows under the same settings."
                )
    return scores


def shared_metrics(scores: Sequence[EvaluationScores]) -> list[str]:
    """Returns the metrics that every checkpoint of every method has a value for, on the same rows, in the order of
    tables."""
    entries = [checkpoint.scores for of_method in scores for checkpoint in of_method.checkpoints]
    shared = [m for m in entries[0] if all(m in entry and entry[m].value is not None for entry in entries)]
    same_rows = [m for m in shared if all(entry[m].rows == entries[0][m].rows for entry in entries)]
    return sorted(same_rows, key=sort_key)


def main_metric(scores: Sequence[EvaluationScores]) -> str:
    """Returns the metric that methods are judged by: of those that all of them share, pass@k with the smallest k, else
    BLEU (paper), else the first one.

    Raises UserError where the methods share no metric.
    """
    shared = shared_metrics(scores)
    if not shared:
        raise UserError(
            "The evaluations share no metric that all of their checkpoints have a value for, so nothing can be "
            "compared; evaluate the methods with the same code and configuration."
        )
    return "bleu_paper" if pass_k(shared[0]) is None and "bleu_paper" in shared else shared[0]


def evaluation_headline(scores: EvaluationScores) -> dict[str, float]:
    """Returns means over the seeds for the index of a study: the main metric, and exact match and loss if known."""
    known = shared_metrics([scores])
    metrics = dict.fromkeys([main_metric([scores]), *(m for m in ("exact_match", "loss") if m in known)])
    return {
        scores.score(m).label.lower(): float(np.mean([checkpoint.scores[m].value for checkpoint in scores.final]))
        for m in metrics
    }


def comparison_headline(comparison: MetricComparison) -> dict[str, float]:
    """Returns the mean of every method for the index of a study."""
    return {f"{row.method} {comparison.label}": row.mean for row in comparison.summaries if row.final}


def summarize(
    method: str,
    metric: str,
    checkpoints: Sequence[CheckpointScores],
    options: Resampling = Resampling(),  # noqa: B008 (it is frozen)
    *,
    final: bool = True,
) -> MethodSummary:
    """Returns the mean of a method over its seeds, with the interval over rows and the deviation over seeds.

    checkpoints: one per seed. Rates get Wilson's interval, other scores the bootstrap's.
    """
    scores = [checkpoint.scores[metric] for checkpoint in checkpoints]
    points = [cast(float, score.value) for score in scores]  # known of a shared metric
    rows, aggregate = row_scores(metric, checkpoints)
    if is_rate(metric):
        estimate = statistics.proportion(np.clip(rows / 100, 0, 1), options.groups, options.confidence)
        scale = 100
    else:
        estimate = statistics.bootstrap(
            rows,
            aggregate,
            clusters=options.groups,
            confidence=options.confidence,
            resamples=options.resamples,
        )
        scale = 1
    mean, sd = statistics.mean_sd(points)
    parts = [score.components or {} for score in scores]
    shared = [name for name in parts[0] if all(part.get(name) is not None for part in parts)]
    return MethodSummary(
        method=method,
        final=final,
        mean=mean,
        sd=None if math.isnan(sd) else sd,
        points=points,
        interval=interval(scale * estimate.low, scale * estimate.high),
        interval_method=estimate.method,
        n=estimate.n,
        clusters=estimate.clusters,
        components={name: float(np.mean([part[name] for part in parts])) for name in shared},
    )


def left_out_rows(scores: EvaluationScores) -> dict[str, int]:
    """Returns how many rows of an evaluation have no pass@k, by the package that their tests need."""
    counts = scores.final[0].counts  # of completions: several per row where a row is sampled
    return {package: n * len(scores.ids) // counts.n for package, n in counts.left_out.items()}


def summarize_sources(sources: Mapping[str, str]) -> list[SourceScores]:
    """Reads the evaluate runs of source adapters, by language, and returns their scores on their own languages."""
    rows = []
    for language, run in sources.items():
        scores = read_scores(run)
        execution = scores.final[0].execution
        summaries = {
            metric: summarize(scores.method, metric, scores.final, Resampling(groups=scores.groups_of(metric)))
            for metric in shared_metrics([scores])
        }
        row = SourceScores(
            language=language,
            method=scores.method,
            n=len(scores.ids),
            summaries=summaries,
            runtime=execution.runtimes.get(language) if execution else None,
            not_executed=scores.not_executed,
            left_out=left_out_rows(scores),
        )
        rows.append(row)
    return rows


def compare(
    scores: Mapping[str, EvaluationScores],
    metric: str,
    baseline: str,
    confidence: float,
    resamples: int,
    *,
    margin: float | None = None,
    pairs: Sequence[Pair] | None = None,
    interactions: Sequence[Sequence[str]] = (),
) -> MetricComparison:
    """Returns all methods compared by one metric, every difference with its verdict.

    The last phase of a method that was scored after several has the method's name; the others are labelled "<method>,
    <phase>".

    Args:
        margin: two methods that differ by less are equivalent to the reader, in the metric's unit; None: no margin.
        pairs: what is compared with what, by method or label; None: those of the study's questions and of the baseline.
        interactions: four methods each, a, b, c and d, for the difference between a - b and c - d.

    Raises UserError where the resamples are too few for so many tests.
    """
    first = scores[baseline]
    options = Resampling(confidence, resamples, first.groups_of(metric))
    checkpoints: dict[str, Sequence[CheckpointScores]] = {}  # by label
    for method, of_method in scores.items():
        *before, (_, last) = of_method.by_name.items()
        checkpoints |= {f"{method}, {name}": of_phase for name, of_phase in before} | {method: last}
    if pairs is None:
        asked = method_pairs(list(scores), baseline, first.language)
        pairs = [pair for pair in asked if checkpoints.keys() >= set(pair)]
    tests = len(pairs) + len(interactions)
    if problem := too_few_resamples(resamples, tests, confidence):
        raise UserError(f"{problem}.")
    score = first.score(metric)
    contrasts = [measure_contrast(metric, a, b, checkpoints, options, tests=tests, margin=margin) for a, b in pairs]
    contrasts += [
        measure_interaction(metric, four, checkpoints, options, tests=tests, margin=margin) for four in interactions
    ]
    decided = decide(metric, contrasts, confidence, margin)
    return MetricComparison(
        metric=metric,
        label=score.label,
        unit=unit(metric),
        baseline=baseline,
        language=first.language,
        signature=score.signature,
        confidence=confidence,
        margin=margin,
        summaries=[
            summarize(label, metric, of_label, options, final=label in scores)
            for label, of_label in checkpoints.items()
        ],
        contrasts=decided[: len(pairs)],
        interactions=decided[len(pairs) :],
    )

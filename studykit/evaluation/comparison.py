"""Methods side by side: scores with their intervals, and paired differences with their verdicts.

Two uncertainties are kept apart. **Test rows**: the study could have drawn other rows. A method's interval resamples
rows, where a row's score is its mean over the seeds; a difference resamples the rows in pairs. Rows of one group (a
problem, a repository) are resampled together. **Seeds**: another training could have ended elsewhere. Scores get a
standard deviation over the seeds, differences Student's t interval.

A method is better or worse than another when the p value over rows, after Holm's correction, is below 1 - confidence
and the interval over rows excludes 0. `verdict` decides this; the interval over seeds says whether the finding holds
for other seeds too.

The functions read the `scores.json` of evaluate runs and need no torch:

    scores = read_comparable({"lora": "runs/evaluate/...", "adapterfusion": "runs/evaluate/..."})
    comparison = compare(scores, "pass_at_1", baseline="adapterfusion", confidence=0.95, resamples=2000)
    str(comparison.contrast("lora", "adapterfusion").verdict)  # "worse"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import cast

import numpy as np

from studykit.errors import UserError
from studykit.evaluation import effects, statistics
from studykit.evaluation.metrics.properties import is_rate, less_is_better, pass_k, sort_key, unit
from studykit.evaluation.metrics.score import corpus_value
from studykit.evaluation.results import (
    Contrast,
    Direction,
    Interval,
    MethodSummary,
    MetricComparison,
    SourceScores,
    TestFamily,
    Verdict,
)
from studykit.evaluation.scores import CheckpointScores, EvaluationScores, read_scores
from studykit.study.languages import display_name
from studykit.study.questions import Pair, method_pairs

POWER = 0.8  # the probability with which the rows reveal a difference of the detectable size
MUST_AGREE = ("language", "ids", "groups", "settings", "isolation")  # fields of evaluations that can be compared


@dataclass(frozen=True)
class Resampling:
    """The options of all intervals of a comparison."""

    confidence: float = 0.95
    resamples: int = 2000  # bootstrap draws
    groups: Sequence | None = None  # a label per row, see `EvaluationScores.groups_of`; None: rows are independent


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
    """Returns the metrics that every checkpoint of every method has a value for, in the order of tables."""
    entries = [checkpoint.scores for of_method in scores for checkpoint in of_method.checkpoints]
    shared = [m for m in entries[0] if all(m in entry and entry[m].value is not None for entry in entries)]
    return sorted(shared, key=sort_key)


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


def row_scores(metric: str, checkpoints: Sequence[CheckpointScores]) -> tuple[np.ndarray, Callable | None]:
    """Returns the rows to resample, and the function from their sums to the mean score over the seeds.

    The rows are (n,) means over the seeds, with None for a plain mean; of a corpus metric (n, seeds * k) counts.
    """
    scores = [checkpoint.scores[metric] for checkpoint in checkpoints]
    if scores[0].per_example is not None:
        return np.mean([np.asarray(score.per_example, float) for score in scores], axis=0), None
    counts = np.concatenate([np.asarray(score.statistics, float) for score in scores], axis=1)
    width, value = counts.shape[1] // len(scores), corpus_value(metric)
    return counts, lambda sums: value(sums.reshape(*sums.shape[:-1], -1, width)).mean(-1)


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
        interval=_interval(scale * estimate.low, scale * estimate.high),
        interval_method=estimate.method,
        n=estimate.n,
        clusters=estimate.clusters,
        components={name: float(np.mean([part[name] for part in parts])) for name in shared},
    )


def _interval(low: float, high: float) -> Interval | None:
    """Bounds that are nan say that one row, one cluster or one seed is all there is."""
    return None if math.isnan(low) else Interval(low=low, high=high)


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
        )
        rows.append(row)
    return rows


def measure_contrast(
    metric: str,
    method: str,
    against: str,
    checkpoints: Mapping[str, Sequence[CheckpointScores]],
    options: Resampling,
) -> Contrast:
    """Returns the difference between two methods on the same n rows, with the verdict of a family of one test.

    checkpoints: by method, one per seed. Differences by seed need the same seeds on both sides, or none on one (the
    base). Where each side has one run and every row passes or fails, p is McNemar's, otherwise the bootstrap's. The
    detectable difference widens the interval over rows from its confidence to a power of 80 %.
    """
    a, b = checkpoints[method], checkpoints[against]
    (rows_a, aggregate), (rows_b, _) = row_scores(metric, a), row_scores(metric, b)
    confidence = options.confidence
    difference = statistics.paired_bootstrap(
        rows_a,
        rows_b,
        aggregate,
        clusters=options.groups,
        confidence=confidence,
        resamples=options.resamples,
    )
    z, half_width = NormalDist().inv_cdf(0.5 + confidence / 2), (difference.high - difference.low) / 2
    by_seed = _differences_by_seed(metric, a, b)
    t = statistics.across_seeds(by_seed, confidence) if len(by_seed) > 1 else None
    one_run_each = len(a) == len(b) == 1 and difference.clusters is None
    measured = {
        "p": difference.p,
        "test": "paired bootstrap",
        **_effect(metric, rows_a, rows_b, aggregate, exact=one_run_each),
    }
    contrast = Contrast(
        method=method,
        against=against,
        value=difference.value,
        interval=_interval(difference.low, difference.high),
        n=difference.n,
        clusters=difference.clusters,
        detectable=half_width * (1 + NormalDist().inv_cdf(POWER) / z) if half_width > 1e-9 else None,
        by_seed=by_seed,
        seed_interval=_interval(t.low, t.high) if t else None,
        verdict=Verdict(direction="undecided", seeds_confirm=False, p_holm=measured["p"]),
        **measured,
    )
    return contrast.model_copy(update={"verdict": verdict(metric, contrast, contrast.p, confidence)})


def _differences_by_seed(metric: str, a: Sequence[CheckpointScores], b: Sequence[CheckpointScores]) -> list[float]:
    values = [{c.seed: cast(float, c.scores[metric].value) for c in side} for side in (a, b)]
    seeds = max(values, key=len)
    if not all(side.keys() in (seeds.keys(), {None}) for side in values):
        return []
    first, second = ([side[seed if seed in side else None] for seed in seeds] for side in values)
    return [x - y for x, y in zip(first, second, strict=True)]


def _effect(metric: str, a: np.ndarray, b: np.ndarray, aggregate: Callable | None, exact: bool) -> dict:
    """The size of a difference, and p and test too where an exact test exists; the keys are fields of a Contrast."""
    if not is_rate(metric):
        of_rows = [rows if aggregate is None else aggregate(rows) for rows in (a, b)]  # (n,) the rows' own scores
        return {"effect": effects.within_rows_delta(*of_rows), "effect_name": "Cliff's delta", "discordant": None}
    effect = {"effect": effects.odds_ratio(a / 100, b / 100), "effect_name": "odds ratio", "discordant": None}
    if exact and np.isin([a, b], (0, 100)).all():
        discordant = effects.discordant(a, b)
        effect |= {"discordant": discordant, "p": effects.mcnemar(*discordant), "test": "McNemar, exact"}
    return effect


def compare(
    scores: Mapping[str, EvaluationScores],
    metric: str,
    baseline: str,
    confidence: float,
    resamples: int,
    pairs: Sequence[Pair] | None = None,
) -> MetricComparison:
    """Returns all methods compared by one metric, Holm's correction taken over all of its contrasts.

    The last phase of a method that was scored after several has the method's name; the others are labelled "<method>,
    <phase>".

    Args:
        pairs: what is compared with what, by method or label; None: those of the study's questions and of the baseline.
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
    score = first.score(metric)
    comparison = MetricComparison(
        metric=metric,
        label=score.label,
        unit=unit(metric),
        baseline=baseline,
        language=first.language,
        signature=score.signature,
        confidence=confidence,
        summaries=[
            summarize(label, metric, of_label, options, final=label in scores)
            for label, of_label in checkpoints.items()
        ],
        contrasts=[measure_contrast(metric, a, b, checkpoints, options) for a, b in pairs],
        family=TestFamily(tests=0, description=""),
    )
    return correct([comparison])[0]


def correct(comparisons: Sequence[MetricComparison]) -> list[MetricComparison]:
    """Returns the comparisons with Holm's correction over all of their contrasts together: one family of tests.

    Pass one comparison, or one per language.
    """
    adjusted = iter(statistics.holm([contrast.p for one in comparisons for contrast in one.contrasts]))
    labels = " and ".join(dict.fromkeys(one.label for one in comparisons))
    languages = ", ".join(dict.fromkeys(display_name(one.language) for one in comparisons))
    family = TestFamily(
        tests=sum(len(one.contrasts) for one in comparisons),
        description=f"all differences in {labels} on {languages}",
    )
    corrected = []
    for one in comparisons:
        contrasts = [
            c.model_copy(update={"verdict": verdict(one.metric, c, next(adjusted), one.confidence)})
            for c in one.contrasts
        ]
        corrected.append(one.model_copy(update={"contrasts": contrasts, "family": family}))
    return corrected


def verdict(metric: str, contrast: Contrast, p_holm: float, confidence: float) -> Verdict:
    """Decides a contrast: better or worse where p after correction is below 1 - confidence and the interval over rows
    excludes 0, otherwise undecided. The seeds confirm it where their interval excludes 0 as well."""
    direction: Direction = "undecided"
    if p_holm < 1 - confidence and contrast.interval and not contrast.interval.includes(0):
        direction = "better" if (contrast.value > 0) != less_is_better(metric) else "worse"
    seeds_confirm = contrast.seed_interval is not None and not contrast.seed_interval.includes(0)
    return Verdict(direction=direction, seeds_confirm=seeds_confirm, p_holm=p_holm)

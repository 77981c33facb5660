"""The difference between two methods in one metric: measured, tested and decided.

A difference is tested twice, each time with Holm's correction over all differences of a comparison. Over the test rows
alone: do *these trainings* differ? Over rows and seeds together (`student`): do trainings like these differ? Only the
second test makes a method better or worse without qualification. A third test is of the opposite claim: that the true
difference is smaller than a margin.

    measured = [measure_contrast("loss", a, b, checkpoints, Resampling(), tests=2) for a, b in pairs]
    [str(contrast.verdict) for contrast in decide("loss", measured, confidence=0.95, margin=None)]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from studykit.evaluation import effects, statistics, student
from studykit.evaluation.metrics.properties import is_rate, less_is_better
from studykit.evaluation.metrics.score import corpus_value
from studykit.evaluation.results import Contrast, Direction, EffectName, Interval, Verdict
from studykit.evaluation.scores import CheckpointScores, Score

Effect = tuple[float, EffectName]
Test = Literal["paired bootstrap", "sign flips, exact", "McNemar, exact"]
UNDECIDED = Verdict(direction="undecided", seeds_confirm=False, p_holm=1.0, p_overall=1.0, equivalent_within=None)


@dataclass(frozen=True)
class Resampling:
    """The options of all intervals of a comparison."""

    confidence: float = 0.95
    resamples: int = 2000  # bootstrap draws
    groups: Sequence | None = None  # a label per row, see `EvaluationScores.groups_of`; None: rows are independent


def row_scores(metric: str, checkpoints: Sequence[CheckpointScores]) -> tuple[np.ndarray, Callable | None]:
    """Returns the rows of checkpoints, one per seed, see `rows_of_scores`."""
    return rows_of_scores(metric, [checkpoint.scores[metric] for checkpoint in checkpoints])


def rows_of_scores(metric: str, scores: Sequence[Score]) -> tuple[np.ndarray, Callable | None]:
    """Returns the rows to resample, and the function from their sums to the mean score over the seeds.

    The rows are (n,) means over the seeds, with None for a plain mean; of a corpus metric (n, seeds * k) counts.
    """
    if scores[0].per_example is not None:
        return np.mean([np.asarray(score.per_example, float) for score in scores], axis=0), None
    counts = np.concatenate([np.asarray(score.statistics, float) for score in scores], axis=1)
    width, value = counts.shape[1] // len(scores), corpus_value(metric)
    return counts, lambda sums: value(sums.reshape(*sums.shape[:-1], -1, width)).mean(-1)


def interval(low: float, high: float) -> Interval | None:
    """Returns two bounds as an interval; bounds that are nan, of a single row or cluster, are none."""
    return None if math.isnan(low) else Interval(low=low, high=high)


def measure_contrast(
    metric: str,
    method: str,
    against: str,
    checkpoints: Mapping[str, Sequence[CheckpointScores]],
    options: Resampling,
    *,
    tests: int = 1,
    margin: float | None = None,
) -> Contrast:
    """Returns the difference between two methods on the same n rows, not decided yet.

    Where both have one run and every row passes or fails, p is McNemar's. Methods with several seeds are compared over
    those that both have; the base, which has none, is compared with every seed.

    Args:
        checkpoints: by method, one per seed.
        tests: of Holm's family, for the detectable differences: those found at its first step.
        margin: of equivalence.
    """
    a, b, paired = _matched(checkpoints[method], checkpoints[against])
    (rows_a, aggregate), (rows_b, _) = row_scores(metric, a), row_scores(metric, b)
    over_rows = statistics.paired_bootstrap(
        rows_a,
        rows_b,
        aggregate,
        clusters=options.groups,
        confidence=options.confidence,
        resamples=options.resamples,
    )
    passes = is_rate(metric) and np.isin([rows_a, rows_b], (0, 100)).all()
    one_run_each = len(a) == len(b) == 1 and over_rows.clusters is None
    discordant = effects.discordant(rows_a, rows_b) if passes and one_run_each else None
    p = effects.mcnemar(*discordant) if discordant else over_rows.p
    effect: Effect
    if discordant:
        effect = effects.conditional_odds_ratio(*discordant), "conditional odds ratio"
    elif is_rate(metric):
        effect = effects.odds_ratio(rows_a / 100, rows_b / 100), "odds ratio"
    else:
        of_rows = [rows if aggregate is None else aggregate(rows) for rows in (rows_a, rows_b)]  # (n,) the rows' scores
        effect = effects.within_rows_delta(*of_rows), "Cliff's delta"
    by_seed = [_value(metric, x) - _value(metric, y) for x, y in zip(a, b, strict=True)] if paired else []
    test: Test = "McNemar, exact" if discordant else "sign flips, exact" if over_rows.exact else "paired bootstrap"
    return _tested(method, against, over_rows, by_seed, p, test, effect, discordant, options.confidence, tests, margin)


def measure_interaction(
    metric: str,
    methods: Sequence[str],
    checkpoints: Mapping[str, Sequence[CheckpointScores]],
    options: Resampling,
    *,
    tests: int = 1,
    margin: float | None = None,
) -> Contrast:
    """Returns the difference of two differences, (a - b) - (c - d), on the same n rows, not decided yet.

    It asks whether a change helps more here than there, as hiding a member over Compacters and over bottlenecks. The
    rows are those of a and d on the one side and of b and c on the other, so each draw takes all four scores of a row.

    Args:
        methods: a, b, c and d; the seeds are those that all of them have, but for the base, which has none.
        checkpoints, tests, margin: as for `measure_contrast`.
    """
    of = [{checkpoint.seed: checkpoint for checkpoint in checkpoints[method]} for method in methods]
    trained = [by_seed for by_seed in of if None not in by_seed]
    seeds = [seed for seed in (trained[0] if trained else {}) if all(seed in by_seed for by_seed in trained)]
    sides = [[by_seed[None] if None in by_seed else by_seed[seed] for seed in seeds or [None]] for by_seed in of]
    (a, aggregate), (b, _), (c, _), (d, _) = (row_scores(metric, side) for side in sides)
    added: Callable | None = None
    if aggregate is None:
        rows_a, rows_b = a + d, b + c  # (n,)
        own = [rows_a, rows_b]
    else:
        width, value = a.shape[1], aggregate
        rows_a, rows_b = np.hstack([a, d]), np.hstack([b, c])  # (n, 2 k)

        def added(sums: np.ndarray) -> np.ndarray:
            return value(sums[..., :width]) + value(sums[..., width:])

        own = [added(rows_a), added(rows_b)]
    over_rows = statistics.paired_bootstrap(
        rows_a,
        rows_b,
        added,
        clusters=options.groups,
        confidence=options.confidence,
        resamples=options.resamples,
    )
    points = np.array([[_value(metric, checkpoint) for checkpoint in side] for side in sides])  # (4, seeds)
    by_seed = (points[0] - points[1] - points[2] + points[3]).tolist() if seeds else []
    effect: Effect = effects.within_rows_delta(*own), "Cliff's delta"
    test: Test = "sign flips, exact" if over_rows.exact else "paired bootstrap"
    names = f"{methods[0]} \u2212 {methods[1]}", f"{methods[2]} \u2212 {methods[3]}"
    return _tested(*names, over_rows, by_seed, over_rows.p, test, effect, None, options.confidence, tests, margin)


def _tested(
    method: str,
    against: str,
    over_rows: statistics.Difference,
    by_seed: list[float],
    p: float,
    test: Test,
    effect: Effect,
    discordant: tuple[int, int] | None,
    confidence: float,
    tests: int,
    margin: float | None,
) -> Contrast:
    """A difference with its tests over rows and seeds together, from what is known of it over rows and seed by seed."""
    clusters = over_rows.clusters or over_rows.n
    row_error = [] if clusters == 1 else [student.StandardError(over_rows.error, clusters - 1)]
    errors = [*row_error, student.over_seeds(by_seed)] if row_error and len(by_seed) > 1 else []
    rows_differ = over_rows.error > statistics.TIE
    known = bool(errors) and rows_differ  # both errors: where all rows differ alike, as 0 and 100 %, theirs is not
    alpha, value = 1 - confidence, over_rows.value
    half = student.half_width(errors, alpha)
    return Contrast(
        method=method,
        against=against,
        value=value,
        interval=interval(over_rows.low, over_rows.high),
        overall_interval=_widest(over_rows, value, half) if known else None,
        n=over_rows.n,
        clusters=over_rows.clusters,
        p=p,
        test=test,
        p_overall=max(p, student.p_value(value, errors)) if known else 1.0,
        p_equivalent=(student.equivalence_p(value, margin, errors) if known else 1.0) if margin else None,
        effect=effect[0],
        effect_name=effect[1],
        discordant=discordant,
        error=None if math.isnan(over_rows.error) else over_rows.error,
        detectable=student.detectable(row_error, alpha / tests) if rows_differ else None,
        detectable_overall=student.detectable(errors, alpha / tests) if known else None,
        by_seed=by_seed,
        verdict=UNDECIDED,
    )


def _value(metric: str, checkpoint: CheckpointScores) -> float:
    return cast(float, checkpoint.scores[metric].value)  # known of a shared metric


def _widest(over_rows: statistics.Difference, value: float, half: float) -> Interval:
    """The interval over rows and seeds: never within that over rows, which need not be symmetric."""
    return Interval(low=min(over_rows.low, value - half), high=max(over_rows.high, value + half))


def _matched(
    a: Sequence[CheckpointScores], b: Sequence[CheckpointScores]
) -> tuple[list[CheckpointScores], list[CheckpointScores], bool]:
    """Both sides seed by seed, and whether they are pairs.

    Pairs share a seed, or one of the two is the base, which has none. Where there is no pair, each training of the one
    side meets each of the other.
    """
    of_a, of_b = ({checkpoint.seed: checkpoint for checkpoint in side} for side in (a, b))
    if common := [seed for seed in of_a if seed in of_b]:
        return [of_a[seed] for seed in common], [of_b[seed] for seed in common], True
    return [*a] * len(b), [*b] * len(a), None in of_a or None in of_b


def decide(metric: str, contrasts: Sequence[Contrast], confidence: float, margin: float | None) -> list[Contrast]:
    """Returns the contrasts with their verdicts: Holm's correction makes one family of them, for each of three tests.

    - **Over rows.** A corrected p below 1 - confidence, with an interval over rows that excludes 0, gives the direction
      on these seeds.
    - **Over rows and seeds.** A corrected p below 1 - confidence confirms this direction for other seeds.
    - **Equivalence.** A corrected p below 1 - confidence shows that the true difference is smaller than the margin.
    """
    alpha, decided = 1 - confidence, []
    over_rows, overall = (statistics.holm([getattr(c, name) for c in contrasts]) for name in ("p", "p_overall"))
    equivalent = statistics.holm([1.0 if c.p_equivalent is None else c.p_equivalent for c in contrasts])
    for contrast, p, p_overall, p_equivalent in zip(contrasts, over_rows, overall, equivalent, strict=True):
        direction: Direction = "undecided"
        if p < alpha and contrast.interval and not contrast.interval.includes(0):
            direction = "better" if (contrast.value > 0) != less_is_better(metric) else "worse"
        found = Verdict(
            direction=direction,
            seeds_confirm=direction != "undecided" and p_overall < alpha,
            p_holm=p,
            p_overall=p_overall,
            equivalent_within=margin if p_equivalent < alpha else None,
        )
        decided.append(contrast.model_copy(update={"verdict": found}))
    return decided

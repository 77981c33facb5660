"""Uncertainty of scores: intervals, paired differences, corrections. numpy only; every resampling is seeded.

Two kinds of uncertainty are kept apart and must not be added up by eye: that of the test set (the examples could have
been others: Wilson interval, bootstrap over examples) and that of training (the seeds could have been others:
`across_seeds`).

Corpus scores are not means of example scores, so their bootstrap resamples examples, sums the examples' counts and
scores the sums: pass `metrics.corpus_value(name)` as `aggregate` and the entry's "statistics" as `examples`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from studykit.params import UserError

Aggregate = Callable[[np.ndarray], np.ndarray]
CHUNK = 4_000_000  # resampling weights held in memory at once


@dataclass(frozen=True)
class Interval:
    """A value, its confidence interval, what made it, and the number n of examples or seeds behind it."""

    value: float
    low: float
    high: float
    confidence: float
    method: str
    n: int


@dataclass(frozen=True)
class Difference(Interval):
    """An interval of a difference a - b with its two-sided p value under "no difference"."""

    p: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (0..1).

    Unlike the normal interval it holds for 0 or n successes. Wilson 1927.
    """
    if not 0 <= successes <= n or n == 0:
        raise UserError(f"{successes} successes of {n}: a proportion needs n > 0 and no more successes than n")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, scale = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
    return Interval(p, low, high, confidence, "Wilson", n)


def bootstrap(
    examples: Sequence,
    aggregate: Aggregate | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over examples:

    of their mean (n,), or of a corpus score from their counts (n, k). Efron 1979.
    """
    counts, aggregate = _prepare(examples, aggregate)
    draws = _resample(counts, aggregate, resamples, seed)
    low, high = _percentiles(draws, confidence)
    value = float(aggregate(counts.sum(axis=0)))
    return Interval(
        value, low, high, confidence, f"percentile bootstrap, {resamples} resamples, seed {seed}", len(counts)
    )


def paired_bootstrap(
    a: Sequence,
    b: Sequence,
    aggregate: Aggregate | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Interval and p value of score(a) - score(b), where a[i] and b[i] belong to the same example, which is resampled
    as a pair.

    p is the share of resampled differences, centred on zero, that are at least as far from zero as the observed one,
    with one added to both counts, so it is never 0 (Koehn 2004; the rule of sacrebleu's paired test). UserError for
    sequences of different length.
    """
    if len(a) != len(b):
        raise UserError(f"{len(a)} and {len(b)} examples: a paired comparison needs the same examples on both sides")
    first, aggregate_pair = _prepare(a, aggregate)
    second, _ = _prepare(b, aggregate)
    width = first.shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        return aggregate_pair(sums[..., :width]) - aggregate_pair(sums[..., width:])

    both = np.concatenate([first, second], axis=1)  # (n, 2k): one draw of weights serves both systems
    draws = _resample(both, difference, resamples, seed)
    value = float(difference(both.sum(axis=0)))
    low, high = _percentiles(draws, confidence)
    # The tolerance is for systems that score the same: their differences are rounding errors, and p must be 1.
    extreme = np.sum(np.abs(draws - draws.mean()) >= abs(value) - 1e-9)
    method = f"paired percentile bootstrap, {resamples} resamples, seed {seed}"
    return Difference(value, low, high, confidence, method, len(both), float((extreme + 1) / (resamples + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given, that control the family-wise error over all comparisons. Holm 1979."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1);

    the latter is nan for one value: one seed says nothing about spread.
    """
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan


def across_seeds(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean over training seeds; with one seed the bounds are nan.

    For two methods with the same seeds pass the differences seed by seed. Three seeds give a factor of 4.3 instead of
    1.96: few seeds are honest about being few. The seeds are assumed independent and roughly normal.
    """
    mean, sd = mean_sd(values)
    n = len(values)
    half = student_t(0.5 + confidence / 2, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return Interval(mean, mean - half, mean + half, confidence, f"t interval over {n} seeds", n)


def student_t(quantile: float, df: int) -> float:
    """Quantile in [0.5, 1) of Student's t with df >= 1 degrees of freedom, to about six digits.

    With t = sqrt(df) tan(angle) the density becomes cos(angle)^(df - 1) on a bounded range, where a sum is exact
    enough.
    """
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(df) * math.tan(np.interp(2 * quantile - 1, mass / mass[-1], angles))


def _prepare(examples: Sequence, aggregate: Aggregate | None) -> tuple[np.ndarray, Aggregate]:
    """Counts (n, k) and the function of their sums; a mean is the sum of values over the sum of ones."""
    array = np.asarray(examples, dtype=float)
    if len(array) == 0:
        raise UserError("0 examples: a bootstrap needs at least one")
    if aggregate is not None:
        return array, aggregate
    return np.stack([array, np.ones(len(array))], axis=1), lambda sums: sums[..., 0] / sums[..., 1]


def _resample(counts: np.ndarray, aggregate: Aggregate, resamples: int, seed: int) -> np.ndarray:
    """Scores (resamples,) of `counts` (n, k) drawn n times with replacement."""
    rng = np.random.default_rng(seed)
    n = len(counts)
    rows = max(1, CHUNK // n)
    scores = []
    for start in range(0, resamples, rows):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, resamples - start))  # (rows, n)
        scores.append(aggregate(weights.astype(float) @ counts))
    return np.concatenate(scores)


def _percentiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)

"""Uncertainty of scores: intervals, paired differences, corrections. numpy only; every resampling is seeded.

Two kinds of uncertainty are kept apart and must not be added up by eye: that of the test set (the examples could have
been others: Wilson interval, bootstrap over examples) and that of training (the seeds could have been others:
`across_seeds`).

Corpus scores are not means of example scores, so their bootstrap resamples examples, sums the examples' counts and
scores the sums: pass `metrics.corpus_value(name)` as `aggregate` and the entry's "statistics" as `examples`.

Examples of one problem or repository are not independent. `clusters` names theirs, one label per example (None: a
cluster of its own): clusters are resampled whole, and what follows counts clusters, not examples.

Bootstrap intervals are percentiles, taken further out than 2.5 and 97.5, as far as Student's t with (clusters - 1)
degrees of freedom is beyond the normal distribution: the plain ones are too short for few examples (Hesterberg 2015,
section 5.2). `benchmarks/coverage.py` shows how often they hold the truth: too rarely for means of 50 or fewer rows
that are heavy-tailed or nearly all 0. BCa intervals are no better there in general, and studentised ones fail where
few rows differ.

Effect sizes stand beside p values, since a p value says nothing of size. For scores of text the size is **Cliff's delta within rows** (d_w; Cliff 1996): the
share of rows on which a scores higher, less the share on which b does, from -1 to 1. Rows are compared with themselves,
which is what a paired design is for; the delta of two independent groups would compare every row with every other.
For pass rates it is the **odds ratio**, beside the difference itself.

McNemar's exact test asks whether the rows that one system alone passes fall to both equally often. It is exact for
one program per row and system; for several, or for clusters of rows, there is the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from studykit.errors import UserError

TIE = 1e-9  # scores closer than this are equal: they differ by rounding


def within_rows_delta(a: Sequence[float], b: Sequence[float]) -> float:
    """Cliff's d_w of scores (n,) of the same rows: P(a > b) - P(a < b)."""
    first, second = _paired(a, b)
    return float(np.mean(first - second > TIE) - np.mean(second - first > TIE))


def odds_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Odds of passing of a over those of b, from shares passed (n,), 0..1.

    Half a success and half a failure are added to each, so that it stays finite (Haldane 1956, Anscombe 1956).
    """
    first, second = _paired(a, b)
    won = [side.sum() + 0.5 for side in (first, second)]
    odds = [passed / (len(first) + 1 - passed) for passed in won]
    return float(odds[0] / odds[1])


def discordant(a: Sequence[float], b: Sequence[float]) -> tuple[int, int]:
    """Rows on which a alone scores higher, and those on which b alone does."""
    first, second = _paired(a, b)
    return int(np.sum(first - second > TIE)), int(np.sum(second - first > TIE))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test from the numbers of discordant rows: a fair coin thrown as often. McNemar
    1947."""
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def _paired(a: Sequence[float], b: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(a) != len(b) or len(a) == 0:
        raise UserError(f"{len(a)} and {len(b)} rows: an effect needs the same rows on both sides, and at least one")
    return np.asarray(a, dtype=float), np.asarray(b, dtype=float)

Aggregate = Callable[[np.ndarray], np.ndarray]
CHUNK = 4_000_000  # resampling weights held in memory at once
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A value, its confidence interval, what made it, and the number n of examples or seeds behind it.

    The bounds are nan where one example, one cluster or one seed is all there is. clusters: their number, None where
    every example is one.
    """

    value: float
    low: float
    high: float
    confidence: float
    method: str
    n: int
    clusters: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Difference(Interval):
    """An interval of a difference a - b with its two-sided p value under "no difference"."""

    p: float


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (0..1).

    Unlike the normal interval it holds for 0 or n successes. Wilson 1927.
    """
    if not 0 <= successes <= n or n == 0:
        raise UserError(f"{successes} successes of {n}: a proportion needs n > 0 and no more successes than n")
    z = NORMAL.inv_cdf(0.5 + confidence / 2)
    p, scale = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
    return Interval(p, low, high, confidence, "Wilson", n)


def proportion(shares: Sequence[float], clusters: Sequence | None = None, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a mean of `shares` (n,), each 0..1: passed or not, or a mean over seeds or samples.

    Shares of 0 and 1 without clusters are Wilson's own case. Else n is replaced by the number of independent trials
    that would vary as much, p(1 - p) / var (z / t)^2, where var is the clusters' variance of the mean and t has
    (clusters - 1) degrees of freedom. Korn and Graubard 1998; recommended by Franco et al. 2019. Where nothing varies,
    every cluster counts as one trial. With fewer than about ten clusters that pass, or that fail, the variance is
    poorly known and the interval too short: at 50 clusters and p = 0.05 it held in 90 % of simulations.
    """
    values = np.asarray(shares, dtype=float)
    if len(values) == 0 or values.min() < 0 or values.max() > 1:
        raise UserError("A proportion needs at least one share, and shares from 0 to 1.")
    sums, found = _clustered(np.stack([values, np.ones(len(values))], axis=1), clusters)
    n, m, p = len(values), len(sums), float(np.clip(values.mean(), 0, 1))
    if found is None and np.isin(values, (0, 1)).all():
        return wilson(round(values.sum()), n, confidence)
    variance = m / (m - 1) * np.sum((sums[:, 0] - p * sums[:, 1]) ** 2) / n**2 if m > 1 else 0.0
    effective = float(m)
    if variance > 1e-15:
        ratio = NORMAL.inv_cdf(0.5 + confidence / 2) / student_t(0.5 + confidence / 2, m - 1)
        effective = p * (1 - p) / float(variance) * ratio**2
    within = wilson(p * effective, effective, confidence)
    method = f"Wilson, effective n {effective:.1f}{_said(found)}"
    return Interval(p, within.low, within.high, confidence, method, n, clusters=found)


def bootstrap(
    examples: Sequence,
    aggregate: Aggregate | None = None,
    *,
    clusters: Sequence | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap over examples, or over their clusters:

    of their mean (n,), or of a corpus score from their counts (n, k). Efron 1979; the percentiles are expanded.
    """
    counts, aggregate = _prepare(examples, aggregate)
    sums, found = _clustered(counts, clusters)
    draws = _resample(sums, aggregate, resamples, seed)
    low, high = _percentiles(draws, confidence, len(sums))
    value = float(aggregate(counts.sum(axis=0)))
    method = f"expanded percentile bootstrap, {resamples} resamples, seed {seed}{_said(found)}"
    return Interval(value, low, high, confidence, method, len(counts), clusters=found)


def paired_bootstrap(
    a: Sequence,
    b: Sequence,
    aggregate: Aggregate | None = None,
    *,
    clusters: Sequence | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Interval and p value of score(a) - score(b), where a[i] and b[i] belong to the same example, which is resampled
    as a pair, with all of its cluster.

    p starts from the share of resampled differences, centred on zero, that are at least as far from zero as the
    observed one, with one added to both counts, so it is never 0 (Koehn 2004; the rule of sacrebleu's paired test). Its
    normal quantile is then read as one of Student's t, as the interval's percentiles are, so that both agree also for
    few examples; one example has p = 1. UserError for sequences of different length.
    """
    if len(a) != len(b):
        raise UserError(f"{len(a)} and {len(b)} examples: a paired comparison needs the same examples on both sides")
    first, aggregate_pair = _prepare(a, aggregate)
    second, _ = _prepare(b, aggregate)
    width = first.shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        return aggregate_pair(sums[..., :width]) - aggregate_pair(sums[..., width:])

    both = np.concatenate([first, second], axis=1)  # (n, 2k): one draw of weights serves both systems
    sums, found = _clustered(both, clusters)
    draws = _resample(sums, difference, resamples, seed)
    value = float(difference(both.sum(axis=0)))
    low, high = _percentiles(draws, confidence, len(sums))
    # The tolerance is for systems that score the same: their differences are rounding errors, and p must be 1.
    extreme = np.sum(np.abs(draws - draws.mean()) >= abs(value) - 1e-9)
    method = f"paired expanded percentile bootstrap, {resamples} resamples, seed {seed}{_said(found)}"
    p = _widened(float((extreme + 1) / (resamples + 1)), len(sums))
    return Difference(value, low, high, confidence, method, len(both), p, clusters=found)


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


@lru_cache(maxsize=256)
def student_t(quantile: float, df: int) -> float:
    """Quantile in [0.5, 1) of Student's t with df >= 1 degrees of freedom, to about six digits."""
    angles, mass = _t_mass(df)
    return math.sqrt(df) * math.tan(np.interp(2 * quantile - 1, mass, angles))


def two_sided(t: float, df: int) -> float:
    """The share of Student's t with df >= 1 degrees of freedom that is at least |t| from zero."""
    angles, mass = _t_mass(df)
    return float(1 - np.interp(math.atan(abs(t) / math.sqrt(df)), angles, mass))


@lru_cache(maxsize=16)
def _t_mass(df: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles and the share of Student's |t| below sqrt(df) tan(angle).

    In the angle the density becomes cos(angle)^(df - 1) on a bounded range, where a sum is exact enough.
    """
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return angles, mass / mass[-1]


def pass_at_k(samples: int | Sequence[int], passed: int | Sequence[int], k: int) -> np.ndarray:
    """The chance (...) that one of k programs passes, of `samples` per problem of which `passed` did: 1 - C(n-c, k) /
    C(n, k), without bias. Chen et al. 2021, equation 1.

    The naive 1 - (1 - c/n)^k is too low. UserError for k below 1 or above the samples, and for more passed than there
    are.
    """
    n, c = np.asarray(samples), np.asarray(passed)
    if k < 1 or np.any(n < k):
        raise UserError(f"pass@{k} of {n.min()} samples per problem: k must be at least 1 and at most the samples.")
    if np.any(c < 0) or np.any(c > n):
        raise UserError("pass@k needs, for each problem, from 0 to all of its samples passed.")
    steps = np.arange(k)
    left = np.maximum(n[..., None] - c[..., None] - steps, 0)  # (..., k) failures that are left to draw
    return 1 - np.prod(left / (n[..., None] - steps), axis=-1)


def _prepare(examples: Sequence, aggregate: Aggregate | None) -> tuple[np.ndarray, Aggregate]:
    """Counts (n, k) and the function of their sums; a mean is the sum of values over the sum of ones."""
    array = np.asarray(examples, dtype=float)
    if len(array) == 0:
        raise UserError("0 examples: a bootstrap needs at least one")
    if aggregate is not None:
        return array, aggregate
    return np.stack([array, np.ones(len(array))], axis=1), lambda sums: sums[..., 0] / sums[..., 1]


def _clustered(counts: np.ndarray, clusters: Sequence | None) -> tuple[np.ndarray, int | None]:
    """Counts (m, k) summed by cluster in the order of their first examples, and m; the counts themselves and None
    where every example is a cluster of its own."""
    if clusters is None:
        return counts, None
    if len(clusters) != len(counts):
        raise UserError(f"{len(clusters)} cluster labels of {len(counts)} examples: each example needs one.")
    places: dict = {}
    owner = [places.setdefault((i,) if label is None else label, len(places)) for i, label in enumerate(clusters)]
    if len(places) == len(counts):
        return counts, None
    sums = np.zeros((len(places), counts.shape[1]))
    np.add.at(sums, owner, counts)
    return sums, len(sums)


def _resample(counts: np.ndarray, aggregate: Aggregate, resamples: int, seed: int) -> np.ndarray:
    """Scores (resamples,) of `counts` (n, k) drawn n times with replacement."""
    rng = np.random.default_rng(seed)
    n = len(counts)
    rows = max(1, CHUNK // n)
    scores = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        scores.append(aggregate(weights.astype(float) @ counts))
    return np.concatenate(scores)


def _percentiles(draws: np.ndarray, confidence: float, m: int) -> tuple[float, float]:
    """The draws' expanded percentiles: of m clusters, their spread is short by (m - 1) / m and known as well as t."""
    if m == 1:
        return math.nan, math.nan
    beyond = NORMAL.cdf(-student_t(0.5 + confidence / 2, m - 1) * math.sqrt(m / (m - 1)))
    low, high = np.quantile(draws, [beyond, 1 - beyond])
    return float(low), float(high)


def _widened(p: float, m: int) -> float:
    """A p value of m resampled clusters, expanded as the percentiles are; 1 for a single one."""
    return two_sided(NORMAL.inv_cdf(p / 2) * math.sqrt((m - 1) / m), m - 1) if m > 1 and p < 1 else 1.0


def _said(clusters: int | None) -> str:
    return "" if clusters is None else f", clustered, {clusters} clusters"

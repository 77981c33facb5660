"""Statistics of scores: intervals, paired differences and corrections, in numpy alone.

Two kinds of uncertainty are kept apart, and they must not be added up by eye. **Examples**: the test set could have
been another one (`wilson`, `proportion`, `bootstrap`, `paired_bootstrap`, and `effects.mcnemar`). **Seeds**: the
training could have ended elsewhere (`across_seeds`).

    a, b = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]       # two systems on the same four examples
    difference = paired_bootstrap(a, b)                     # value 0.5, with low, high and p
    adjusted = holm([difference.p, 0.2, 0.03])              # p values of all comparisons of the study

**Corpus scores** such as BLEU are no means of scores of examples. Their bootstrap resamples examples, adds up the
counts of the drawn examples and scores the sums: pass a score's `statistics` as `examples`, and
`metrics.score.corpus_value(name)` as `aggregate`.

**Clusters.** Examples of one problem or repository are not independent. `clusters` holds one label per example (None:
the example is a cluster of its own). Clusters are resampled whole, and the number of clusters takes the place of the
number of examples.

**Few examples.** Plain percentile intervals are too short for few examples (Hesterberg 2015, section 5.2). Here they
are expanded: where the normal distribution would take the 2.5th percentile, the percentile that Student's t with
(clusters - 1) degrees of freedom would need is taken. `benchmarks/coverage.py` measures how often the intervals hold
the truth: too rarely for means of 50 or fewer rows that are heavy-tailed or nearly all 0. BCa intervals are no better
there in general, and studentised ones fail where few rows differ.

All resampling is seeded, so the same numbers give the same intervals on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from studykit.errors import UserError

Aggregate = Callable[[np.ndarray], np.ndarray]  # from sums of counts (..., k) to scores (...)
CHUNK = 4_000_000  # resampling weights that are held in memory at once
NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval."""

    value: float
    low: float  # nan where a single example, cluster or seed leaves no interval
    high: float
    confidence: float  # as 0.95
    method: str  # how the interval was computed
    n: int  # examples or seeds behind the value
    clusters: int | None = field(default=None, kw_only=True)  # None: every example is independent


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference a - b with its confidence interval and p value."""

    p: float  # two-sided, under "no difference"


def wilson(successes: float, n: float, confidence: float = 0.95) -> Estimate:
    """Returns Wilson's score interval of a proportion, 0 to 1 (Wilson 1927).

    It inverts the score test: it holds all p from which the observed proportion is no more than z standard errors away,
    the error being that of p and not that of the observed proportion. Unlike the normal interval it is therefore
    sensible for 0 or n successes. `n` may be a fraction, see `proportion`.

        wilson(0, 10)  # value 0, low 0, high 0.28

    Raises UserError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise UserError(f"{successes} successes of {n}: a proportion needs n > 0 and no more successes than n.")
    z = NORMAL.inv_cdf(0.5 + confidence / 2)
    p, scale = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
    # n is a fraction only where `proportion` asks for the bounds alone
    return Estimate(p, low, high, confidence, "Wilson", n)  # type: ignore[arg-type]


def proportion(
    shares: Sequence[float] | np.ndarray, clusters: Sequence | None = None, confidence: float = 0.95
) -> Estimate:
    """Returns Wilson's interval of a mean of `shares` (n,), each 0 to 1: passed or not, or means over seeds or samples.

    Shares of 0 and 1 without clusters are Wilson's own case. Otherwise n is replaced by the effective sample size, the
    number of independent trials whose mean would vary as much as this one:

        n_eff = p (1 - p) / var * (z / t)^2

    var is the variance of the mean over clusters, and t has (clusters - 1) degrees of freedom, since the variance is
    itself an estimate (Korn and Graubard 1998; recommended by Franco et al. 2019). Where nothing varies, every cluster
    counts as one trial. With fewer than about ten clusters that pass, or that fail, the variance is poorly known and
    the interval too short: at 50 clusters and p = 0.05 it held the truth in 90 % of simulations.

        proportion([1.0, 2 / 3, 0.0, 1 / 3])                    # four rows, each a mean over three seeds
        proportion([1, 1, 0, 0], clusters=["a", "a", "b", "b"])  # two problems of two rows each

    Raises UserError for no shares, or for shares below 0 or above 1.
    """
    values = np.asarray(shares, dtype=float)
    if len(values) == 0 or values.min() < 0 or values.max() > 1:
        raise UserError("A proportion needs at least one share, and shares from 0 to 1.")
    sums, clustered = _clustered(np.stack([values, np.ones(len(values))], axis=1), clusters)
    n, m, p = len(values), len(sums), float(np.clip(values.mean(), 0, 1))
    if clustered is None and np.isin(values, (0, 1)).all():
        return wilson(round(values.sum()), n, confidence)
    variance = m / (m - 1) * np.sum((sums[:, 0] - p * sums[:, 1]) ** 2) / n**2 if m > 1 else 0.0
    effective = float(m)
    if variance > 1e-15:
        ratio = NORMAL.inv_cdf(0.5 + confidence / 2) / student_t(0.5 + confidence / 2, m - 1)
        effective = p * (1 - p) / float(variance) * ratio**2
    within = wilson(p * effective, effective, confidence)
    method = f"Wilson, effective n {effective:.1f}{_cluster_note(clustered)}"
    return Estimate(p, within.low, within.high, confidence, method, n, clusters=clustered)


def bootstrap(
    examples: Sequence | np.ndarray,
    aggregate: Aggregate | None = None,
    *,
    clusters: Sequence | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Returns the bootstrap interval of a mean of examples (n,), or of a corpus score from their counts (n, k).

    n examples, or all clusters, are drawn with replacement and scored, `resamples` times; the interval lies between two
    percentiles of these scores (Efron 1979), which are expanded for few examples, see the module's introduction.

        bootstrap([0.2, 0.9, 0.4])                                       # of a mean
        bootstrap(score.statistics, corpus_value("bleu_paper"))          # of a corpus score
        bootstrap(values, clusters=repositories, resamples=5000)         # of a mean over repositories

    aggregate: the function from summed counts (..., k) to scores (...); None: the mean.

    Raises UserError for no examples.
    """
    counts, aggregate = _prepare(examples, aggregate)
    sums, clustered = _clustered(counts, clusters)
    draws = _resample(sums, aggregate, resamples, seed)
    low, high = _percentiles(draws, confidence, len(sums))
    value = float(aggregate(counts.sum(axis=0)))
    method = f"expanded percentile bootstrap, {resamples} resamples, seed {seed}{_cluster_note(clustered)}"
    return Estimate(value, low, high, confidence, method, len(counts), clusters=clustered)


def paired_bootstrap(
    a: Sequence | np.ndarray,
    b: Sequence | np.ndarray,
    aggregate: Aggregate | None = None,
    *,
    clusters: Sequence | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Returns score(a) - score(b) with its interval and p value, where a[i] and b[i] belong to the same example.

    Each draw takes both scores of an example, and all of its cluster, so whatever makes an example hard for both
    systems cancels out.

    p starts from the share of resampled differences, centred on zero, that are at least as far from zero as the
    observed one. One is added to both counts, so p is never 0 (Koehn 2004; the rule of sacrebleu's paired test). Its
    normal quantile is then read as a quantile of Student's t, as the percentiles of the interval are, so that p and
    interval agree for few examples too. A single example has p = 1.

        paired_bootstrap(a.statistics, b.statistics, corpus_value("chrf")).p

    Raises UserError for sequences of different length, and for no examples.
    """
    if len(a) != len(b):
        raise UserError(f"{len(a)} and {len(b)} examples: a paired comparison needs the same examples on both sides.")
    first, aggregate_pair = _prepare(a, aggregate)
    second, _ = _prepare(b, aggregate)
    width = first.shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        return aggregate_pair(sums[..., :width]) - aggregate_pair(sums[..., width:])

    both = np.concatenate([first, second], axis=1)  # (n, 2k): one draw of weights serves both systems
    sums, clustered = _clustered(both, clusters)
    draws = _resample(sums, difference, resamples, seed)
    value = float(difference(both.sum(axis=0)))
    low, high = _percentiles(draws, confidence, len(sums))
    # Systems that score the same differ by rounding errors alone; the tolerance makes their p value 1.
    extreme = np.sum(np.abs(draws - draws.mean()) >= abs(value) - 1e-9)
    method = f"paired expanded percentile bootstrap, {resamples} resamples, seed {seed}{_cluster_note(clustered)}"
    p = _widened(float((extreme + 1) / (resamples + 1)), len(sums))
    return Difference(value, low, high, confidence, method, len(both), p, clusters=clustered)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns adjusted p values, in the order given, that control the family-wise error over all comparisons.

    The smallest of m values is multiplied by m, the next one by m - 1, and so on, and no value may be smaller than the
    one before it. Whichever hypotheses are true, the probability of rejecting any true one at level alpha is at most
    alpha; the tests may depend on each other (Holm 1979, "A simple sequentially rejective multiple test procedure").

        holm([0.01, 0.04, 0.03])  # [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation (n - 1), which is nan for a single value."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan


def across_seeds(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Returns Student's t interval of the mean over training seeds; with one seed the bounds are nan.

    For two methods with the same seeds, pass the differences seed by seed. Few seeds give wide intervals: the standard
    error is multiplied by 4.3 for three seeds, where many seeds would have 1.96. The seeds are assumed to be
    independent and roughly normal (Student 1908).

        across_seeds([1.0, 2.0, 3.0])  # value 2, low -0.48, high 4.48
    """
    mean, sd = mean_sd(values)
    n = len(values)
    half = student_t(0.5 + confidence / 2, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return Estimate(mean, mean - half, mean + half, confidence, f"t interval over {n} seeds", n)


@lru_cache(maxsize=256)
def student_t(quantile: float, df: int) -> float:
    """Returns a quantile in [0.5, 1) of Student's t with df >= 1 degrees of freedom, to about six digits.

    student_t(0.975, 2)  # 4.302653
    """
    angles, mass = _t_mass(df)
    return math.sqrt(df) * math.tan(np.interp(2 * quantile - 1, mass, angles))


def two_sided(t: float, df: int) -> float:
    """Returns the share of Student's t with df >= 1 degrees of freedom that is at least |t| away from zero."""
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
    """Returns pass@k (...): the probability that at least one of k programs passes, estimated without bias.

    Of n samples per problem c passed; k of them are drawn without replacement, and all of them fail with probability
    C(n - c, k) / C(n, k). So pass@k = 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, equation 1). The naive estimate
    1 - (1 - c / n)^k is too low. The quotient is computed as a product of k factors, which cannot overflow.

        pass_at_k(3, 1, 2)          # 1 - C(2, 2) / C(3, 2) = 0.667
        pass_at_k(10, [0, 4], 1)    # two problems: 0 and 0.4

    Raises UserError for k below 1 or above the number of samples, and for c below 0 or above it.
    """
    n, c = np.asarray(samples), np.asarray(passed)
    if k < 1 or np.any(n < k):
        raise UserError(
            f"pass@{k} of {n.min()} samples per problem: k must be at least 1 and at most the number of samples."
        )
    if np.any(c < 0) or np.any(c > n):
        raise UserError("pass@k needs for each problem a number of passed samples from 0 to all of them.")
    drawn = np.arange(k)  # before each of the k draws
    failures = np.maximum(n[..., None] - c[..., None] - drawn, 0)  # (..., k) that are left to draw
    return 1 - np.prod(failures / (n[..., None] - drawn), axis=-1)


def _prepare(examples: Sequence | np.ndarray, aggregate: Aggregate | None) -> tuple[np.ndarray, Aggregate]:
    """Returns counts (n, k) and the function of their sums; a mean is the sum of values over the sum of ones."""
    array = np.asarray(examples, dtype=float)
    if len(array) == 0:
        raise UserError("0 examples: a bootstrap needs at least one.")
    if aggregate is not None:
        return array, aggregate
    return np.stack([array, np.ones(len(array))], axis=1), lambda sums: sums[..., 0] / sums[..., 1]


def _clustered(counts: np.ndarray, clusters: Sequence | None) -> tuple[np.ndarray, int | None]:
    """Returns counts (m, k) summed by cluster, in the order of the clusters' first examples, and m.

    Where every example is a cluster of its own, the counts are returned as they are, with None.
    """
    if clusters is None:
        return counts, None
    if len(clusters) != len(counts):
        raise UserError(f"{len(clusters)} cluster labels of {len(counts)} examples: each example needs one.")
    numbers: dict = {}
    cluster = [numbers.setdefault((i,) if label is None else label, len(numbers)) for i, label in enumerate(clusters)]
    if len(numbers) == len(counts):
        return counts, None
    sums = np.zeros((len(numbers), counts.shape[1]))
    np.add.at(sums, cluster, counts)
    return sums, len(sums)


def _resample(counts: np.ndarray, aggregate: Aggregate, resamples: int, seed: int) -> np.ndarray:
    """Returns the scores (resamples,) of `counts` (n, k) drawn n times with replacement."""
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
    """Returns the expanded percentiles of the draws.

    Of m clusters, the variance of the draws is too small by the factor (m - 1) / m, and as uncertain as Student's t
    with m - 1 degrees of freedom assumes.
    """
    if m == 1:
        return math.nan, math.nan
    beyond = NORMAL.cdf(-student_t(0.5 + confidence / 2, m - 1) * math.sqrt(m / (m - 1)))
    low, high = np.quantile(draws, [beyond, 1 - beyond])
    return float(low), float(high)


def _widened(p: float, m: int) -> float:
    """Returns a p value of m resampled clusters, expanded as the percentiles are; 1 for a single cluster."""
    return two_sided(NORMAL.inv_cdf(p / 2) * math.sqrt((m - 1) / m), m - 1) if m > 1 and p < 1 else 1.0


def _cluster_note(clusters: int | None) -> str:
    return "" if clusters is None else f", clustered, {clusters} clusters"

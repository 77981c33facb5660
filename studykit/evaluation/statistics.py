"""Statistics of scores: intervals, paired differences and corrections, in numpy alone.

All of them measure one uncertainty: the test set could have been another one. That the training could have ended
elsewhere, too, is the subject of `student`.

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

A test of fewer than 20 clusters does not resample: it counts all ways to swap the two systems (`paired_bootstrap`).

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
from studykit.evaluation.student import student_t, two_sided

Aggregate = Callable[[np.ndarray], np.ndarray]  # from sums of counts (..., k) to scores (...)
CHUNK = 2_000_000  # resampling weights that are made at once
FEW_CLUSTERS = 20  # below this number a test is exact
NORMAL = NormalDist()
TIE = 1e-9  # scores that differ by less are equal: their difference is a rounding error


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval."""

    value: float
    low: float  # nan where a single example or cluster leaves no interval
    high: float
    confidence: float  # as 0.95
    method: str  # how the interval was computed
    n: int  # examples behind the value
    clusters: int | None = field(default=None, kw_only=True)  # None: every example is independent


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference a - b with its confidence interval, standard error and p value."""

    p: float  # two-sided, under "no difference"
    exact: bool  # whether p counts all ways to swap the systems, instead of resampling
    error: float  # the standard error; nan for a single example or cluster


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
    low, high = map(float, percentiles(draws, confidence, len(sums)))
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

    p is that of a sign-flip test for fewer than 20 clusters. If the systems are alike, each cluster could as well have
    been scored with the two swapped; p is the share of all 2^m ways to swap m clusters that give a difference at least
    as large (Fisher 1935). It cannot be below 2 / 2^m: five clusters can never decide at the level of 0.05.

    For more clusters p starts from the share of resampled differences, centred on zero, that are at least as far from
    zero as the observed one. One is added to both counts, so p is never 0 (Koehn 2004; the rule of sacrebleu's paired
    test). Its normal quantile is then read as a quantile of Student's t, as the percentiles of the interval are. A
    single example has p = 1.

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
    low, high = map(float, percentiles(draws, confidence, len(sums)))
    m = len(sums)
    exact = 1 < m < FEW_CLUSTERS
    if exact:
        p = _swapped(sums, difference, value)
    else:  # Systems that score the same differ by rounding errors alone; the tolerance makes their p value 1.
        extreme = np.sum(np.abs(draws - draws.mean()) >= abs(value) - TIE)
        p = widened(float((extreme + 1) / (resamples + 1)), m)
    error = float(draws.std()) * math.sqrt(m / (m - 1)) if m > 1 else math.nan
    method = f"paired expanded percentile bootstrap, {resamples} resamples, seed {seed}{_cluster_note(clustered)}"
    return Difference(value, low, high, confidence, method, len(both), p, exact, error, clusters=clustered)


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
    """Returns the scores (resamples, ...) of `counts` (n, k) drawn n times with replacement."""
    n, rows = len(counts), max(1, CHUNK // len(counts))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([aggregate(_weights(n, size, seed, i) @ counts) for i, size in enumerate(sizes)])


@lru_cache(maxsize=8)  # all scores of a study resample the same number of examples
def _weights(n: int, draws: int, seed: int, chunk: int) -> np.ndarray:
    """Returns how often (draws, n) each of n examples is drawn in n draws with replacement."""
    drawn = np.random.default_rng([seed, chunk]).integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(float)


def _swapped(sums: np.ndarray, difference: Aggregate, value: float) -> float:
    """Returns the share of all ways to swap the two systems' counts (m, 2k) in clusters that reach `value` in size."""
    m, width = len(sums), sums.shape[1] // 2
    total, apart = sums[:, :width] + sums[:, width:], sums[:, :width] - sums[:, width:]
    extreme = 0
    for start in range(0, 2 ** (m - 1), CHUNK // m):  # the last cluster stays: swapping all turns only the sign
        ways = np.arange(start, min(start + CHUNK // m, 2 ** (m - 1)))
        signs = 1.0 - 2 * ((ways[:, None] >> np.arange(m)) & 1)  # (ways, m) of 1 and -1
        moved = signs @ apart
        swapped = np.concatenate([total.sum(axis=0) + moved, total.sum(axis=0) - moved], axis=1) / 2
        extreme += int(np.sum(np.abs(difference(swapped)) >= abs(value) - TIE))
    return extreme / 2 ** (m - 1)


def percentiles(draws: np.ndarray, confidence: float, m: int) -> np.ndarray:
    """Returns the two expanded percentiles (2, ...) of the draws (resamples, ...).

    Of m clusters, the variance of the draws is too small by the factor (m - 1) / m, and as uncertain as Student's t
    with m - 1 degrees of freedom assumes.
    """
    if m == 1:
        return np.full((2, *draws.shape[1:]), math.nan)
    beyond = NORMAL.cdf(-student_t(0.5 + confidence / 2, m - 1) * math.sqrt(m / (m - 1)))
    return np.quantile(draws, [beyond, 1 - beyond], axis=0)


def widened(p: float, m: int) -> float:
    """Returns a p value of m resampled clusters, expanded as the percentiles are; 1 for a single cluster."""
    return two_sided(NORMAL.inv_cdf(p / 2) * math.sqrt((m - 1) / m), m - 1) if m > 1 and p < 1 else 1.0


def _cluster_note(clusters: int | None) -> str:
    return "" if clusters is None else f", clustered, {clusters} clusters"

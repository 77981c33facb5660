"""Student's t, and one test of a difference that varies with the test rows and with the trainings.

A study's difference D between two methods has two independent errors: the rows are a sample (standard error s_r), and
so are the trainings (s_s). Each is known only as well as its degrees of freedom allow: clusters of rows - 1, seeds - 1.
The half width of D's interval at level alpha is therefore

    sqrt(t_r(alpha)^2 s_r^2 + t_s(alpha)^2 s_s^2)

with t_r and t_s the two-sided critical values of Student's t. It holds the true difference with a probability of at
least 1 - alpha, however large the one error is beside the other (Banerjee 1961, "On confidence interval for two-means
problem"). The p value is the level at which the interval just reaches zero. It is never below the p of rows alone or of
seeds alone, and safer than the larger of the two: these share the estimate D, so where both errors weigh alike, both
reject together more often than they say. What differs between rows *and* seeds counts in both errors, which makes the
test safer than asked.

    errors = [StandardError(1.5, df=249), over_seeds([4.0, 7.0, 5.5])]
    p_value(5.5, errors)             # 0.035
    equivalence_p(0.3, 5.0, errors)  # of "they differ by 5 or more"
    detectable(errors, alpha=0.05)   # 6.3: the true difference that is found in four of five studies
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

LEAST_P = 1e-9  # smaller p values are not told apart
DRAWS = 20_000  # of made studies, for `detectable`


class StandardError(NamedTuple):
    """The standard error of a difference, and the degrees of freedom of its estimate."""

    value: float
    df: int


def over_seeds(differences: Sequence[float]) -> StandardError:
    """Returns the error of the mean of differences seed by seed, of which there are at least two."""
    n = len(differences)
    return StandardError(float(np.std(differences, ddof=1)) / math.sqrt(n), n - 1)


def half_width(errors: Sequence[StandardError], alpha: float) -> float:
    """Returns the half width of the interval that misses the true difference with a probability of alpha at most."""
    return math.sqrt(sum((student_t(1 - alpha / 2, error.df) * error.value) ** 2 for error in errors))


def p_value(difference: float, errors: Sequence[StandardError]) -> float:
    """Returns the two-sided p of "no difference": the alpha whose interval just reaches zero, at least 1e-9."""
    low, high = math.log(LEAST_P), 0.0
    if half_width(errors, LEAST_P) < abs(difference):
        return LEAST_P
    while high - low > 1e-3:  # of the logarithm
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(errors, math.exp(middle)) < abs(difference) else (middle, high)
    return math.exp((low + high) / 2) if difference else 1.0


def equivalence_p(difference: float, margin: float, errors: Sequence[StandardError]) -> float:
    """Returns the p of "the true difference is the margin or more, in either direction".

    These are two one-sided tests, of which the larger p counts (Schuirmann 1987).
    """
    inside = margin - abs(difference)
    return p_value(inside, errors) / 2 if inside > 0 else 1.0


def detectable(errors: Sequence[StandardError], alpha: float, power: float = 0.8) -> float:
    """Returns the true difference that is found, on its own side of zero, with a probability of `power`.

    The errors that were estimated stand for the true ones. D is then normal around the true difference, and the
    critical value varies as the estimates do (chi-squared). The result is a quantile of the distance between the two,
    over 20,000 seeded draws: exact to about 1 %. One error alone is the case of the noncentral t distribution.
    """
    rng = np.random.default_rng(0)
    critical = np.zeros(DRAWS)
    for error in errors:
        critical += (student_t(1 - alpha / 2, error.df) * error.value) ** 2 * rng.chisquare(error.df, DRAWS) / error.df
    total = math.hypot(*(error.value for error in errors))
    return float(np.quantile(np.sqrt(critical) + total * rng.standard_normal(DRAWS), power))


@lru_cache(maxsize=4096)
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

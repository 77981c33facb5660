"""Pooling: a published example number for number, laws, and how often its intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.evaluation import pooling
from studykit.evaluation.student import student_t

# Thirteen trials of the BCG vaccine (Colditz et al. 1994): vaccinated with and without tuberculosis, the same of the
# controls, and the latitude. Viechtbauer 2010, "Conducting meta-analyses in R", prints the results of these data.
BCG = [
    (4, 119, 11, 128, 44), (6, 300, 29, 274, 55), (3, 228, 11, 209, 42), (62, 13536, 248, 12619, 52),
    (33, 5036, 47, 5761, 13), (180, 1361, 372, 1079, 44), (8, 2537, 10, 619, 19), (505, 87886, 499, 87892, 13),
    (29, 7470, 45, 7232, 27), (17, 1699, 65, 1600, 42), (186, 50448, 141, 27197, 18), (5, 2493, 3, 2338, 33),
    (27, 16886, 29, 17825, 33),
]  # fmt: skip
Y = [math.log(a / (a + b)) - math.log(c / (c + d)) for a, b, c, d, _ in BCG]
V = [1 / a - 1 / (a + b) + 1 / c - 1 / (c + d) for a, b, c, d, _ in BCG]
NUMBERS = st.lists(st.tuples(st.floats(-50, 50), st.floats(0.01, 25)), min_size=2, max_size=12)


def test_the_mean_of_a_published_example():
    pooled = pooling.fit(Y, V)
    assert pooled.coefficients == [pytest.approx(-0.7145, abs=5e-5)]
    assert pooled.tau2 == pytest.approx(0.3132, abs=5e-5) and pooled.i2 == pytest.approx(0.9222, abs=5e-5)
    assert pooled.errors[0] == (pytest.approx(0.1808, abs=5e-5), 12), "by Knapp and Hartung"
    half = student_t(0.975, 12) * pooled.errors[0].value
    assert (-0.7145 - half, -0.7145 + half) == (pytest.approx(-1.1084, abs=3e-4), pytest.approx(-0.3206, abs=3e-4))


def test_the_slope_of_a_published_example():
    line = pooling.fit(Y, V, [latitude for *_, latitude in BCG])
    assert line.coefficients == [pytest.approx(0.2515, abs=5e-5), pytest.approx(-0.0291, abs=5e-5)]
    assert line.tau2 == pytest.approx(0.0764, abs=1e-4)


def test_two_studies_by_hand():
    # y = 0, 4 with v = 1 each: tau2 = 16 / 2 - 1 = 7, mean 2, error sqrt(8 / 2) = 2
    pooled = pooling.fit([0, 4], [1, 1])
    assert pooled.tau2 == pytest.approx(7) and pooled.coefficients == [pytest.approx(2)]
    assert pooled.errors[0] == (pytest.approx(2), 1) and pooled.i2 == pytest.approx(7 / 8)
    assert pooled.prediction(0.95) is None, "two studies do not say how a third one varies"


def test_one_study_is_its_own_mean():
    pooled = pooling.fit([3.5], [2.0])
    assert pooled.coefficients == [3.5] and pooled.tau2 == 0 and pooled.errors == [] and pooled.weights == [1.0]


@settings(deadline=None, max_examples=40)
@given(st.floats(-50, 50), st.lists(st.floats(0.01, 25), min_size=2, max_size=12))
def test_studies_that_agree_have_no_variance_between_them(value, variances):
    pooled = pooling.fit([value] * len(variances), variances)
    assert pooled.tau2 == 0 and pooled.i2 == 0
    assert pooled.coefficients == [pytest.approx(value, abs=1e-8)]
    assert pooled.errors[0].value == pytest.approx(sum(1 / v for v in variances) ** -0.5), "no smaller than fixed"


@settings(deadline=None, max_examples=40)
@given(NUMBERS, st.floats(-20, 20), st.floats(0.1, 10))
def test_the_mean_moves_and_stretches_with_the_studies(studies, shift, factor):
    y, v = map(np.array, zip(*studies, strict=True))
    one, other = pooling.fit(y, v), pooling.fit(factor * y + shift, factor**2 * v)
    assert other.coefficients[0] == pytest.approx(factor * one.coefficients[0] + shift, abs=1e-4)
    assert other.errors[0].value == pytest.approx(factor * one.errors[0].value, rel=1e-4)
    assert y.min() - 1e-9 <= one.coefficients[0] <= y.max() + 1e-9 and sum(one.weights) == pytest.approx(1)


@settings(deadline=None, max_examples=40)
@given(NUMBERS)
def test_the_restricted_likelihood_is_highest_there(studies):
    y, v = map(np.array, zip(*studies, strict=True))

    def likelihood(tau2):
        w = 1 / (v + tau2)
        mean = (w * y).sum() / w.sum()
        return 0.5 * (np.log(w).sum() - np.log(w.sum()) - (w * (y - mean) ** 2).sum())

    best = likelihood(pooling.fit(y, v).tau2)
    assert best >= max(likelihood(tau2) for tau2 in np.linspace(0, 3 * np.var(y) + 1, 200)) - 1e-6


def test_a_line_through_exact_studies():
    line = pooling.fit([1.0, 3.0, 5.0, 7.0], [1e-6] * 4, [0, 1, 2, 3])
    assert line.coefficients == [pytest.approx(1), pytest.approx(2)] and line.tau2 == 0


@pytest.mark.parametrize("arguments, error", [
    (([], []), "0 studies"), (([1.0], [1.0], [2.0]), "1 studies"), (([1.0, 2.0], [1.0, -1.0]), "not negative"),
    (([1.0, 2.0, 3.0], [1.0] * 3, [5, 5, 5]), "one value"),
])  # fmt: skip
def test_what_cannot_be_pooled(arguments, error):
    with pytest.raises(UserError, match=error):
        pooling.fit(*arguments)


@pytest.mark.parametrize("tau", [0.0, 1.0, 4.0])
def test_intervals_hold_the_truth_and_predictions_the_next_study(tau):
    """Five studies whose own errors are estimated from three seeds each, as those of a family are."""
    rng, k, draws = np.random.default_rng(0), 5, 400
    held = held_next = slopes = 0
    x = np.linspace(-1, 1, k)
    for _ in range(draws):
        seeds = 2 + tau * rng.standard_normal((k, 1)) + rng.standard_normal((k, 3))
        y, v = seeds.mean(1), seeds.var(1, ddof=1) / 3
        pooled, line = pooling.fit(y, v), pooling.fit(y, v, x)
        held += abs(pooled.coefficients[0] - 2) <= student_t(0.975, 4) * pooled.errors[0].value
        slopes += abs(line.coefficients[1]) <= student_t(0.975, 3) * line.errors[1].value
        low, high = pooled.prediction(0.95)
        held_next += low <= 2 + tau * rng.standard_normal() <= high
    assert min(held, slopes) / draws >= 0.90 and held_next / draws >= 0.88, (held, slopes, held_next)

"""Student's t: tables; the test over rows and seeds: its level in all regimes, its limits, and its power."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.evaluation.student import (
    LEAST_P,
    StandardError,
    detectable,
    equivalence_p,
    half_width,
    over_seeds,
    p_value,
    student_t,
    two_sided,
)

ERRORS = st.builds(StandardError, st.floats(0.01, 10), st.integers(1, 300))


@pytest.mark.parametrize(
    ("df", "quantile", "value"),
    [(1, 0.975, 12.706205), (2, 0.975, 4.302653), (4, 0.95, 2.131847), (9, 0.995, 3.249836), (200, 0.975, 1.971896)],
)
def test_student_t_tables(df, quantile, value):
    assert student_t(quantile, df) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("df", "t", "p"), [(1, 12.706205, 0.05), (5, 2.0, 0.1019395), (29, 0.5, 0.6208481)])
def test_two_sided_t_is_the_quantile_read_backwards(df, t, p):
    assert two_sided(t, df) == two_sided(-t, df) == pytest.approx(p, abs=1e-6)
    assert two_sided(student_t(0.99, df), df) == pytest.approx(0.02)


@given(ERRORS, st.floats(0.01, 20))
def test_one_error_alone_is_students_test(error, difference):
    expected = two_sided(difference / error.value, error.df)
    assert p_value(difference, [error]) == pytest.approx(max(expected, LEAST_P), rel=0.01, abs=1e-6)
    assert p_value(-difference, [error, StandardError(0.0, 2)]) == p_value(difference, [error])


@given(ERRORS, ERRORS, st.floats(0.01, 20))
def test_two_errors_are_never_less_than_one_and_the_interval_says_what_p_says(rows, seeds, difference):
    both = p_value(difference, [rows, seeds])
    assert both >= max(p_value(difference, [rows]), p_value(difference, [seeds])) * 0.99
    if 1e-6 < both < 0.99:
        assert half_width([rows, seeds], both) == pytest.approx(difference, rel=0.02)
    assert p_value(0.0, [rows, seeds]) == 1


def test_the_error_over_seeds_is_that_of_their_mean():
    error = over_seeds([1.0, 2.0, 3.0])
    assert error == (pytest.approx(1 / math.sqrt(3)), 2)
    assert half_width([error], 0.05) == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)


@pytest.mark.parametrize("seeds, over_seeds_sd, over_rows_sd", [(3, 1, 0.1), (3, 1, 1), (10, 1, 1), (10, 0.1, 1)])
@pytest.mark.parametrize("alpha", [0.05, 0.007])
def test_no_difference_is_rejected_as_seldom_as_asked(seeds, over_seeds_sd, over_rows_sd, alpha):
    """20,000 made studies; the estimates of both errors vary as chi-squared."""
    n, df, rng = 20_000, (249, seeds - 1), np.random.default_rng(seeds)
    found = rng.normal(0, math.hypot(over_seeds_sd, over_rows_sd), n)
    guesses = [sd * np.sqrt(rng.chisquare(d, n) / d) for sd, d in zip((over_rows_sd, over_seeds_sd), df, strict=True)]
    critical = [student_t(1 - alpha / 2, d) * guess for d, guess in zip(df, guesses, strict=True)]
    rejected = np.mean(np.abs(found) > np.hypot(*critical))
    assert rejected < alpha + 3 * math.sqrt(alpha / n)
    larger_p = np.mean((np.abs(found) > critical[0]) & (np.abs(found) > critical[1]))
    if (seeds, over_seeds_sd, over_rows_sd) == (10, 1, 1):
        assert larger_p > 2 * alpha, "the larger of the two p values does not control the error"


@pytest.mark.parametrize("seeds, sds", [(3, 3.27), (5, 1.68), (10, 1.00)])  # of the noncentral t distribution
def test_the_detectable_difference_over_seeds(seeds, sds):
    assert detectable([StandardError(1 / math.sqrt(seeds), seeds - 1)], 0.05) == pytest.approx(sds, rel=0.02)


def test_the_detectable_difference_is_detected():
    errors = [StandardError(1.0, 99), StandardError(1.0, 4)]
    rng, n = np.random.default_rng(1), 20_000
    found = detectable(errors, 0.01) + rng.normal(0, math.sqrt(2), n)
    squares = sum(student_t(0.995, e.df) ** 2 * rng.chisquare(e.df, n) / e.df for e in errors)
    assert np.mean(found > np.sqrt(squares)) == pytest.approx(0.8, abs=0.015)
    assert detectable(errors, 0.01) > detectable(errors, 0.05) > detectable(errors[:1], 0.05)


@given(ERRORS, st.floats(0.1, 20), st.floats(0.1, 20))
def test_equivalence_is_shown_where_the_interval_lies_inside_the_margin(error, difference, margin):
    p = equivalence_p(difference, margin, [error])
    inside = abs(difference) + half_width([error], 0.1) < margin  # two one-sided tests at 0.05
    if abs(p - 0.05) > 1e-3:
        assert (p < 0.05) == inside
    assert equivalence_p(-difference, margin, [error]) == p and (p == 1) == (difference >= margin)

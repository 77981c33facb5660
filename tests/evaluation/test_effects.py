"""Effects: laws of pairing, and values worked out by hand or by a statistics library."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.evaluation.effects import discordant, mcnemar, odds_ratio, within_rows_delta

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@given(PAIRS, st.randoms())
def test_effects_turn_with_the_systems_and_do_not_depend_on_the_order_of_rows(pairs, random):
    a, b = zip(*pairs, strict=True)
    thirds = [[x / 3 for x in side] for side in (a, b)]
    assert within_rows_delta(a, b) == -within_rows_delta(b, a) and abs(within_rows_delta(a, b)) <= 1
    assert odds_ratio(*thirds) * odds_ratio(*thirds[::-1]) == pytest.approx(1) and odds_ratio(*thirds) > 0
    assert discordant(a, b) == discordant(b, a)[::-1]
    shuffled = random.sample(pairs, len(pairs))
    assert within_rows_delta(*zip(*shuffled, strict=True)) == within_rows_delta(a, b)
    assert within_rows_delta(a, a) == 0 and odds_ratio(thirds[0], thirds[0]) == 1


def test_the_delta_of_passes_is_their_difference():
    a, b = [1, 1, 1, 0, 0], [1, 0, 0, 1, 0]
    assert within_rows_delta(a, b) == pytest.approx(sum(a) / 5 - sum(b) / 5) == 0.2
    assert within_rows_delta([5, 7, 1, 2], [4, 6, 3, 2]) == 0.25  # two won, one lost, one tie


def test_the_odds_ratio_stays_finite():
    assert odds_ratio([1, 1, 1, 0], [1, 0, 0, 0]) == pytest.approx((3.5 / 1.5) / (1.5 / 3.5))
    assert odds_ratio([1, 1], [0, 0]) == pytest.approx(25) and odds_ratio([0], [0]) == 1


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_a_fair_coin(b, c):
    n, p = b + c, mcnemar(b, c)
    assert p == mcnemar(c, b) and 0 < p <= 1
    outcomes = sum(Fraction(math.comb(n, i), 2**n) for i in range(n + 1) if abs(2 * i - n) >= abs(b - c))
    assert p == pytest.approx(float(outcomes))


@pytest.mark.parametrize("b, c, p", [
    (1, 7, 0.0703125),  # Fagerland, Lydersen and Laake 2013, airway hyper-responsiveness: 0.070
    (1, 9, 0.021484375), (23, 11, 0.05761267291381955), (200, 150, 0.008720036530555949),  # scipy.stats.binomtest
    (0, 0, 1.0), (5, 5, 1.0),
])  # fmt: skip
def test_mcnemar_known_values(b, c, p):
    assert mcnemar(b, c) == pytest.approx(p, rel=1e-12)


def test_rows_must_be_the_same():
    with pytest.raises(UserError, match="2 and 1 rows"):
        within_rows_delta([1, 2], [1])
    with pytest.raises(UserError, match="0 and 0 rows"):
        odds_ratio([], [])

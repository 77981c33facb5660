"""Preferences: known strengths are found again, intervals hold them, and agreement is that of published examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.evaluation.preferences import (
    Preferences,
    bradley_terry,
    krippendorff,
    measure,
    probabilities,
    win_shares,
)
from studykit.evaluation.ratings import Judgements

METHODS = ["a", "b", "c", "d"]
TRUE = np.array([0.9, 0.3, -0.2, -1.0])


def drawn(rng, rows: int, raters: int, of_row: float = 0.0, of_rater: float = 0.0, each: int = 1) -> Judgements:
    """Judgements of `each` pairs per row by each rater, whose strengths vary by row and by rater."""
    by_row = rng.normal(0, of_row, (rows, len(TRUE)))
    by_rater = rng.normal(0, of_rater, (raters, len(TRUE)))
    lines = []
    for row in range(rows):
        for _ in range(each):
            a, b = rng.choice(len(TRUE), 2, replace=False)
            for rater in range(raters):
                strength = TRUE + by_row[row] + by_rater[rater]
                won = rng.random() < 1 / (1 + np.exp(strength[b] - strength[a]))
                lines.append((a, b, float(won), row, rater, True))
    columns = [np.array(column) for column in zip(*lines, strict=True)]
    names = [f"rater {n}" for n in range(raters)]
    return Judgements(METHODS, names, *columns, {}, {name: [] for name in names}, 0)


def population(of_row: float, of_rater: float) -> np.ndarray:
    """The strengths whose model fits all rows and raters: odds of mean probabilities are not means of odds."""
    noise = np.random.default_rng(1).normal(0, np.hypot(of_row, of_rater), (40_000, len(TRUE)))
    return bradley_terry(1e6 * (probabilities(TRUE + noise).mean(0) - 0.5 * np.eye(len(TRUE))))


def test_known_strengths_are_found():
    judged = drawn(np.random.default_rng(0), rows=6_000, raters=1)
    found = measure(judged, [], "a", 0.95, 200)
    assert (
        np.abs([row.strength - true for row, true in zip(found.methods, TRUE - TRUE.mean(), strict=True)]).max() < 0.1
    )
    assert [row.verdict for row in found.contrasts] == ["worse"] * 3
    assert [row.method for row in sorted(found.methods, key=lambda row: -row.share)] == METHODS


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=4, max_size=4))
def test_strengths_are_those_of_the_greatest_likelihood(wins):
    """There every method wins as often as the model says; the imagined ties are made negligible."""
    wins = (np.array(wins) + 0.1) * (1 - np.eye(4, dtype=int))
    found = bradley_terry(wins, 1e-9)
    expected = (wins + wins.T) * probabilities(found)
    assert np.allclose(wins.sum(1), expected.sum(1), atol=1e-6)
    assert abs(found.sum()) < 1e-9 and np.allclose(bradley_terry(wins.T), -bradley_terry(wins), atol=1e-6)
    assert np.isclose(win_shares(found).mean(), 50)


def test_two_methods_have_the_odds_of_their_wins():
    assert np.allclose(bradley_terry(np.array([[0, 30], [10, 0]]), 1e-9), [np.log(3) / 2, -np.log(3) / 2], atol=1e-6)


def test_a_method_that_always_wins_and_one_that_never_met_another_have_finite_strengths():
    wins = np.zeros((4, 4))
    wins[0, 1] = 50
    found = bradley_terry(wins)
    assert np.isfinite(found).all() and found[0] > 1.5 and found[1] < -1.5 and np.allclose(found[2:], 0, atol=1e-9)
    assert np.array_equal(bradley_terry(np.zeros((3, 3))), np.zeros(3))


def test_the_interval_of_nothing_but_wins_is_no_point():
    lines = [(0, 1, 1.0, row, 0, True) for row in range(20)]
    judged = Judgements(["a", "b"], ["r"], *map(np.array, zip(*lines, strict=True)), {}, {"r": []}, 0)
    best, worst = measure(judged, [], "b", 0.95, 2000).methods
    assert best.interval.low < 93 < 99 < best.interval.high and worst.interval.low < 1 < 7 < worst.interval.high
    assert best.share > 95


def test_methods_that_no_chain_of_pairs_connects_are_noticed():
    lines = [(0, 1, 1.0, 0, 0, True), (2, 3, 1.0, 1, 0, True)]
    for more, connected in ([], False), ([(1, 2, 0.5, 2, 0, True)], True):
        columns = map(np.array, zip(*lines, *more, strict=True))
        found = measure(Judgements(METHODS, ["r"], *columns, {}, {"r": []}, 0), [], "a", 0.95, 100)
        assert found.connected == connected


def test_all_resamples_are_solved_at_once():
    wins = np.random.default_rng(0).integers(0, 5, (7, 3, 3)).astype(float)
    assert np.allclose(bradley_terry(wins), [bradley_terry(one) for one in wins], atol=1e-7)


@pytest.mark.parametrize(
    "raters, of_row, of_rater, worst", [(1, 0.0, 0.0, -4.0), (1, 1.0, 0.0, -1.0), (6, 1.0, 0.5, -1.0)]
)
def test_intervals_hold_the_true_shares(raters, of_row, of_rater, worst, monkeypatch):
    """95 % intervals over rows, and over raters where these differ, in 80 made studies; four pairs share a row."""
    monkeypatch.setattr("tests.evaluation.test_preferences.TRUE", np.array([*TRUE[:3], worst]))
    rng, held = np.random.default_rng(5), []
    true = win_shares(population(of_row, of_rater))
    for _ in range(80):
        found = measure(drawn(rng, 40, raters, of_row, of_rater, each=4), [], "a", 0.95, 300)
        held.append([row.interval.includes(share) for row, share in zip(found.methods, true, strict=True)])
    assert np.mean(held, axis=0).min() >= 0.9 and np.mean(held) <= 0.995, np.mean(held, axis=0)


def test_without_a_difference_hardly_a_verdict(monkeypatch):
    monkeypatch.setattr("tests.evaluation.test_preferences.TRUE", np.zeros(4))
    rng = np.random.default_rng(2)
    runs = [measure(drawn(rng, 60, 1), [], "a", 0.95, 400).contrasts for _ in range(60)]
    assert sum(any(row.verdict != "undecided" for row in one) for one in runs) <= 6


# The worked examples of Krippendorff (2011), "Computing Krippendorff's alpha-reliability", sections A to C.
BINARY = ("0100000010", "1110010000")
NOMINAL = ("aabbdcccedda", "babbbccceddd")
MISSING = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


@pytest.mark.parametrize("raters, alpha", [(BINARY, 0.095), (NOMINAL, 0.692), (MISSING, 0.743)])
def test_agreement_is_that_of_the_published_examples(raters, alpha):
    units = [[value for value in unit if value != "."] for unit in zip(*raters, strict=True)]
    assert round(krippendorff(units), 3) == alpha


def test_agreement_is_1_or_unknown_or_about_0():
    assert krippendorff([["a", "a"], ["b", "b"]]) == 1
    assert krippendorff([["a", "a"], ["a", "a"]]) is krippendorff([["a"], ["b"]]) is krippendorff([]) is None
    noise = np.random.default_rng(0).choice(list("abc"), (4000, 3))
    assert abs(krippendorff(noise.tolist())) < 0.03


def test_a_single_row_has_no_interval_and_no_verdict():
    judged = drawn(np.random.default_rng(0), rows=1, raters=1, each=30)
    found = measure(judged, [], "a", 0.95, 200)
    assert {row.interval for row in found.methods} == {None} and {row.verdict for row in found.contrasts} == {
        "undecided"
    }
    assert Preferences.model_validate_json(found.model_dump_json()) == found, "it survives its file"

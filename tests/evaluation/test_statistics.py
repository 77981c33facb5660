"""Intervals: known values, invariances, and coverage in a small simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.evaluation.metrics.score import corpus_value, score_texts
from studykit.evaluation.statistics import (
    bootstrap,
    holm,
    paired_bootstrap,
    pass_at_k,
    proportion,
    wilson,
)

SCORES = st.lists(st.integers(0, 4), min_size=2, max_size=20)


def test_wilson_known_values():
    half = wilson(50, 100)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    none = wilson(0, 10)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 0.2775), abs=1e-4)
    assert wilson(10, 10).high == 1
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)]:
        found = wilson(successes, n)  # Newcombe 1998, table I, method 3
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    humaneval = wilson(49, 164)
    assert (humaneval.high - humaneval.low) / 2 == pytest.approx(0.07, abs=0.005)
    with pytest.raises(UserError, match="3 successes of 2"):
        wilson(3, 2)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).normal(10, 3, 400)
    found = bootstrap(values, resamples=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert found == bootstrap(values, resamples=4000) != bootstrap(values, resamples=4000, seed=1)


def test_memory_is_bounded_by_chunks_without_changing_the_kind_of_result(monkeypatch):
    values = np.arange(50.0)
    whole = bootstrap(values)
    monkeypatch.setattr("studykit.evaluation.statistics.CHUNK", 50 * 7)
    assert bootstrap(values).low == pytest.approx(whole.low, abs=0.3), "other draws of the same distribution"


def test_corpus_bootstrap_resamples_examples_not_scores():
    predictions = ["a b c d e", "a b", "x y z w v u", "a c b d"] * 10
    references = ["a b c d e", "a c", "x y z q v u", "a b c d"] * 10
    for name in ("bleu_paper", "sacrebleu", "chrf"):
        entry = score_texts(predictions, references)[name]
        found = bootstrap(entry.statistics, corpus_value(name), resamples=300)
        assert found.value == pytest.approx(entry.value)
        assert found.low < entry.value < found.high


def test_paired_differences():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, 200)
    a, b = difficulty + 1 + rng.normal(0, 1, 200), difficulty + rng.normal(0, 1, 200)
    found = paired_bootstrap(a, b)
    assert found.value == pytest.approx(np.mean(a - b)) and found.low > 0 and found.p < 0.01
    back = paired_bootstrap(b, a)
    assert (back.value, back.low, back.high, back.p) == pytest.approx((-found.value, -found.high, -found.low, found.p))
    assert bootstrap(a).high - bootstrap(a).low > 3 * (found.high - found.low)  # what pairing is for
    assert paired_bootstrap(a, a).p == 1
    with pytest.raises(UserError, match="200 and 199"):
        paired_bootstrap(a, b[1:])


def test_paired_corpus_difference():
    references = ["a b c d e f"] * 30
    good, bad = (
        score_texts(["a b c d e x"] * 30, references),
        score_texts(["a b x d y x"] * 15 + references[:15], references),
    )
    value = corpus_value("bleu_paper")
    found = paired_bootstrap(good["bleu_paper"].statistics, bad["bleu_paper"].statistics, value, resamples=500)
    assert found.value == pytest.approx(good["bleu_paper"].value - bad["bleu_paper"].value)
    assert found.low <= found.value <= found.high and 0 < found.p <= 1


def test_coverage():
    """About 95 of 100 intervals hold the truth: exact binomials for Wilson, 300 samples for the bootstraps."""
    rng = np.random.default_rng(7)
    successes = rng.binomial(60, 0.1, 2000)
    held = [(found := wilson(int(k), 60)).low <= 0.1 <= found.high for k in successes]
    assert 0.93 < np.mean(held) < 0.98
    samples = rng.exponential(1.0, (300, 100))
    held = [(found := bootstrap(sample, resamples=400)).low <= 1 <= found.high for sample in samples]
    assert 0.89 < np.mean(held) < 0.98
    pairs = rng.normal(0, 1, (300, 2, 80))
    rejected = [paired_bootstrap(a, b, resamples=400).p < 0.05 for a, b in pairs]
    assert np.mean(rejected) < 0.09


@given(SCORES, st.data())
def test_clusters_of_one_are_no_clusters(scores, data):
    labels = data.draw(st.permutations([None, *range(len(scores) - 1)]))
    other = data.draw(st.permutations(scores))
    assert bootstrap(scores, clusters=labels, resamples=50) == bootstrap(scores, resamples=50)
    assert paired_bootstrap(scores, other, clusters=labels, resamples=50) == paired_bootstrap(
        scores, other, resamples=50
    )
    shares = np.array(scores) / 4
    assert proportion(shares, labels) == proportion(shares)
    assert proportion(shares > 0.5, labels) == wilson(int(np.sum(shares > 0.5)), len(shares))


@given(SCORES)
def test_rows_repeated_in_their_cluster_add_nothing(scores):
    """Three copies of every example say what one says, if it is known that they are copies."""
    thrice, labels = np.repeat(scores, 3), [f"problem {i}" for i in range(len(scores))]
    once, copies = bootstrap(scores, resamples=50), bootstrap(thrice, clusters=np.repeat(labels, 3), resamples=50)
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high), nan_ok=True)
    assert (copies.n, copies.clusters, once.clusters) == (3 * once.n, once.n, None)
    assert copies.method == f"{once.method}, clustered, {len(scores)} clusters"


@given(SCORES, st.lists(st.integers(0, 3), min_size=20, max_size=20), st.randoms())
def test_the_order_of_rows_and_the_names_of_clusters_mean_nothing(scores, labels, random):
    labels = labels[: len(scores)]
    order = random.sample(range(len(scores)), len(scores))
    renamed = [f"r{labels[i]}" for i in order]
    shares = np.array(scores) / 4
    found, again = proportion(shares, labels), proportion(shares[order], renamed)
    assert [again.value, again.low, again.high] == pytest.approx([found.value, found.low, found.high])
    assert bootstrap(np.array(scores)[order], clusters=renamed, resamples=20).value == pytest.approx(np.mean(scores))
    named = [f"r{label}" for label in labels]
    assert repr(bootstrap(scores, clusters=labels, resamples=20)) == repr(
        bootstrap(scores, clusters=named, resamples=20)
    )


def test_rows_of_a_cluster_are_less_evidence_than_as_many_rows_of_their_own():
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(40), 5)
    values = rng.normal(0, 1, 40)[labels] + rng.normal(0, 0.3, 200)
    apart, together = bootstrap(values), bootstrap(values, clusters=labels)
    assert together.high - together.low > 1.7 * (apart.high - apart.low)
    assert paired_bootstrap(values + 0.1, values * 0, clusters=labels).p > paired_bootstrap(values + 0.1, values * 0).p
    alone, shared = proportion(values > 0), proportion(values > 0, labels)
    assert shared.high - shared.low > 1.5 * (alone.high - alone.low) and shared.value == alone.value
    assert shared.method.startswith("Wilson, effective n ") and shared.method.endswith(", clustered, 40 clusters")
    with pytest.raises(UserError, match="3 cluster labels of 200 examples"):
        bootstrap(values, clusters=[1, 2, 3])


def test_a_proportion_where_nothing_varies_counts_each_cluster_once():
    none = proportion([0.0] * 30, [i // 3 for i in range(30)])
    assert (none.low, none.high) == (0, wilson(0, 10).high)
    assert proportion([1 / 3] * 9).high == pytest.approx(wilson(3, 9).high)
    with pytest.raises(UserError, match="shares from 0 to 1"):
        proportion([0.2, 50.0])


def test_one_example_or_one_cluster_says_nothing_of_others():
    for found in (bootstrap([3.0]), bootstrap([1.0, 2.0], clusters=["a", "a"])):
        assert math.isnan(found.low) and math.isnan(found.high)
    alone = paired_bootstrap([9.0], [1.0])
    assert alone.value == 8 and math.isnan(alone.low) and alone.p == 1
    assert proportion([1.0]) == wilson(1, 1)
    assert paired_bootstrap([9.0, 8.0], [1.0, 0.0]).p > 0.2, "two rows that agree are no proof"
    assert bootstrap([2.0] * 5).low == bootstrap([2.0] * 5).high == 2


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=9), st.randoms())
def test_the_test_of_few_clusters_counts_all_ways_to_swap(differences, random):
    m = len(differences)
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=m)]
    expected = np.mean(np.array(sums) >= abs(sum(differences)))
    found = paired_bootstrap(differences, np.zeros(m), resamples=50)
    assert found.exact and found.p == pytest.approx(expected) and found.p >= 2 / 2**m
    shuffled = random.sample(differences, m)
    assert paired_bootstrap(shuffled, np.zeros(m), resamples=50).p == found.p
    pairs = np.repeat(differences, 2) / 2  # each cluster's rows share its difference
    clustered = paired_bootstrap(pairs, np.zeros(2 * m), clusters=np.repeat(np.arange(m), 2), resamples=50)
    assert clustered.p == found.p and clustered.exact


def test_the_test_of_few_clusters_swaps_corpus_scores_too(monkeypatch):
    references, good = ["a b c d e f"] * 6, ["a b c d e x"] * 6
    rows = [score_texts(texts, references)["bleu_paper"].statistics for texts in (good, ["x y c d e f"] * 6)]
    found = paired_bootstrap(*rows, corpus_value("bleu_paper"), resamples=50)
    assert found.exact and found.p == 2 / 2**6, "every row is better: only all swaps and none are as extreme"
    monkeypatch.setattr("studykit.evaluation.statistics.CHUNK", 6 * 5)
    assert paired_bootstrap(*rows, corpus_value("bleu_paper"), resamples=50).p == found.p
    many = paired_bootstrap(np.arange(20.0), np.zeros(20))
    assert not many.exact and many.error == pytest.approx(np.std(np.arange(20), ddof=1) / math.sqrt(20), rel=0.05)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_pass(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(draw) for draw in draws]))
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)


def test_pass_at_k_known_values():
    assert pass_at_k(10, 3, 5) == pytest.approx(0.916667, abs=5e-7)
    assert pass_at_k([10, 20, 5], [3, 0, 5], 5) == pytest.approx([11 / 12, 0, 1])
    assert pass_at_k(200, [0, 1, 200], 100) == pytest.approx([0, 0.5, 1])
    for wrong in ((4, 2, 5), (4, 2, 0), ([10, 4], [2, 2], 5)):
        with pytest.raises(UserError, match=r"pass@\d of \d+ samples"):
            pass_at_k(*wrong)
    with pytest.raises(UserError, match="from 0 to all"):
        pass_at_k(3, 4, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_never_lowers_a_p_value(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert np.array(adjusted)[np.argsort(p_values, kind="stable")].tolist() == sorted(adjusted)


def test_holm_known_values():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    # by hand: p times 5, 4, 3, 2, 1 is 0.05, 0.08, 0.09, 0.08, 0.05, of which the running maxima
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])

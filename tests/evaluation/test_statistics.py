"""Intervals: known values, invariances, and coverage in a small simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.evaluation.metrics import corpus_value, score
from studykit.evaluation.statistics import across_seeds, bootstrap, holm, mean_sd, paired_bootstrap, student_t, wilson
from studykit.params import UserError


def test_wilson_known_values():
    half = wilson(50, 100)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    none = wilson(0, 10)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 0.2775), abs=1e-4)
    assert wilson(10, 10).high == 1
    humaneval = wilson(49, 164)
    assert (humaneval.high - humaneval.low) / 2 == pytest.approx(0.07, abs=0.005)
    with pytest.raises(UserError, match="3 successes of 2"):
        wilson(3, 2)


@pytest.mark.parametrize(
    ("df", "quantile", "value"),
    [(1, 0.975, 12.706205), (2, 0.975, 4.302653), (4, 0.95, 2.131847), (9, 0.995, 3.249836), (200, 0.975, 1.971896)],
)
def test_student_t_tables(df, quantile, value):
    assert student_t(quantile, df) == pytest.approx(value, abs=1e-5)


def test_across_seeds():
    found = across_seeds([1.0, 2.0, 3.0])
    assert found.value == 2 and found.n == 3
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    one = across_seeds([5.0])
    assert one.value == 5 and math.isnan(one.low) and math.isnan(mean_sd([5.0])[1])
    assert mean_sd([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


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
    assert bootstrap(values).low == pytest.approx(whole.low, abs=1e-9)


def test_corpus_bootstrap_resamples_examples_not_scores():
    predictions = ["a b c d e", "a b", "x y z w v u", "a c b d"] * 10
    references = ["a b c d e", "a c", "x y z q v u", "a b c d"] * 10
    for name in ("bleu_paper", "sacrebleu", "chrf"):
        entry = score(predictions, references)[name]
        found = bootstrap(entry["statistics"], corpus_value(name), resamples=300)
        assert found.value == pytest.approx(entry["value"])
        assert found.low < entry["value"] < found.high


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
    good, bad = score(["a b c d e x"] * 30, references), score(["a b x d y x"] * 15 + references[:15], references)
    value = corpus_value("bleu_paper")
    found = paired_bootstrap(good["bleu_paper"]["statistics"], bad["bleu_paper"]["statistics"], value, resamples=500)
    assert found.value == pytest.approx(good["bleu_paper"]["value"] - bad["bleu_paper"]["value"])
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
    held = [(found := across_seeds(sample)).low <= 0 <= found.high for sample in rng.normal(0, 1, (200, 3))]
    assert 0.90 < np.mean(held) < 0.99


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_never_lowers_a_p_value(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert np.array(adjusted)[np.argsort(p_values, kind="stable")].tolist() == sorted(adjusted)


def test_holm_known_values():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []

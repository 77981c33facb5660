"""Comparison and findings: known differences are found and named, others are undecided, and errors are kept apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit import comparison, findings
from studykit.evaluation import statistics
from studykit.evaluation.metrics import corpus_value
from studykit.params import UserError
from tests.made_scores import method, scores, state

BASE = method(0.05, seeds=(None,), loss=2.0)
METHODS = ("base", "bottleneck", "lora", "adapterfusion", "advfusion_zero", "advfusion_exclude")
STUDY = {"base": BASE, "bottleneck": method(0.4), "adapterfusion": method(0.42), "advfusion_zero": method(0.6)}


def compared(study: dict | None = None, metric: str = "pass_at_1", baseline: str = "adapterfusion", **options) -> dict:
    options = {"confidence": 0.95, "resamples": 500} | options
    found = comparison.compare(STUDY if study is None else study, metric, baseline, **options)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def one(found: dict, name: str, against: str) -> dict:
    return next(c for c in found["contrasts"] if (c["method"], c["against"]) == (name, against))


def row(found: dict, name: str) -> dict:
    return next(r for r in found["rows"] if r["method"] == name)


def test_a_table_has_means_over_seeds_and_differences_to_the_baseline():
    found = compared(STUDY | {"bottleneck": method(0.4, spread=0.02)})
    assert [r["method"] for r in found["rows"]] == list(STUDY) and found["unit"] == "%"
    assert row(found, "bottleneck")["points"] == pytest.approx([40, 42, 44])
    assert row(found, "bottleneck")["mean"] == pytest.approx(42) and row(found, "bottleneck")["sd"] == pytest.approx(2)
    assert row(found, "base")["sd"] is None and row(found, "base")["n"] == 200
    better = one(found, "advfusion_zero", "adapterfusion")
    assert better["value"] == pytest.approx(18) and better["low"] < 18 < better["high"]
    assert {(c["method"], c["against"]) for c in found["contrasts"]} == {
        ("base", "adapterfusion"), ("bottleneck", "adapterfusion"), ("advfusion_zero", "adapterfusion"),
        ("bottleneck", "base")}  # fmt: skip


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
def test_the_error_of_the_rows_and_of_the_seeds_are_kept_apart(metric):
    """Equal seeds have no spread, however few the rows; rows that score alike have no error, however far the seeds."""
    rng = np.random.default_rng(1)
    passed, nats = rng.random(50) < 0.5, rng.normal(10, 3, 50)
    same_seeds = comparison.summary(metric, [state(s, passed, nats) for s in range(3)])
    only_one = comparison.summary(metric, [state(0, passed, nats)])
    assert same_seeds["high"] - same_seeds["low"] > 0 and (same_seeds["sd"] or 0) == pytest.approx(0)
    if metric != "pass_at_1":  # one run of a proportion has Wilson's interval instead
        assert [same_seeds["low"], same_seeds["high"]] == pytest.approx([only_one["low"], only_one["high"]])
    apart = comparison.summary("loss", [state(s, passed, np.full(50, 10.0 + s)) for s in range(3)])
    assert apart["sd"] == pytest.approx(0.1) and apart["low"] == pytest.approx(apart["high"]) == pytest.approx(1.1)


def test_a_corpus_score_is_the_mean_of_the_seeds_scores():
    rng = np.random.default_rng(2)
    states = [state(s, rng.random(40) < 0.5, rng.normal(10, 1, 40)) for s in range(3)]
    for metric in ("bleu_paper", "loss"):
        rows, aggregate = comparison.material(metric, states)
        counts = [np.sum(s["scores"][metric]["statistics"], axis=0) for s in states]
        expected = np.mean([corpus_value(metric)(np.asarray(c, float)) for c in counts])
        assert aggregate(rows.sum(0)) == pytest.approx(expected)


def test_no_success_still_has_an_interval():
    found = comparison.summary("pass_at_1", method(0.0)["states"])
    assert found["mean"] == found["low"] == 0 < found["high"] < 3 and found["interval"] == "Wilson"


def test_the_last_state_is_the_methods_own_score():
    states = [state(s, np.arange(40) < share, np.ones(40), name)
              for s in (0, 1) for name, share in (("phase 1", 30), ("phase 2", 10))]  # fmt: skip
    found = compared({"adapterfusion": method(0.5, n=40, seeds=(0, 1)), "advfusion_zero": scores(states)})
    assert [(r["method"], r["final"], r["mean"]) for r in found["rows"]][1:] == [
        ("advfusion_zero, phase 1", False, 75.0), ("advfusion_zero", True, 25.0)]  # fmt: skip
    assert one(found, "advfusion_zero", "adapterfusion")["value"] == pytest.approx(-25)


@given(st.lists(st.sampled_from(METHODS), min_size=1, unique=True), st.data())
def test_pairs_are_unique_and_hold_every_method_and_every_question(methods, data):
    baseline = data.draw(st.sampled_from(methods))
    found = [frozenset(pair) for pair in comparison.pairs(methods, baseline)]
    asked = {frozenset(pair) for pairs in findings.QUESTIONS.values() for pair in pairs if set(pair) <= set(methods)}
    assert len(set(found)) == len(found)
    assert set(found) == asked | {frozenset((m, baseline)) for m in methods if m != baseline}


def test_holm_is_taken_over_all_differences_of_a_metric():
    found = compared()["contrasts"]
    assert [c["p_holm"] for c in found] == statistics.holm([c["p"] for c in found])


@pytest.mark.parametrize("metric, a, b, expected", [
    ("pass_at_1", {"share": 0.6}, {"share": 0.4}, "better"),
    ("pass_at_1", {"share": 0.4}, {"share": 0.6}, "worse"),
    ("pass_at_1", {"share": 0.4}, {"share": 0.4}, "undecided"),
    ("pass_at_1", {"share": 0.405}, {"share": 0.4}, "undecided"),
    ("loss", {"share": 0, "loss": 0.9}, {"share": 0, "loss": 1.0, "rng_seed": 1}, "better"),
    ("loss", {"share": 0, "loss": 1.1}, {"share": 0, "loss": 1.0, "rng_seed": 1}, "worse"),
    ("loss", {"share": 0, "loss": 1.0}, {"share": 0, "loss": 1.0, "rng_seed": 1}, "undecided"),
])  # fmt: skip
def test_every_verdict_and_its_sentence(metric, a, b, expected):
    found = compared({"adapterfusion": method(**b), "advfusion_zero": method(**a)}, metric)
    contrast = found["contrasts"][0]
    assert contrast["verdict"] == expected
    said = findings.sentence(found, contrast)
    opening = {"better": "**advfusion_zero is better than adapterfusion**",
               "worse": "**advfusion_zero is worse than adapterfusion**",
               "undecided": "**advfusion_zero against adapterfusion is undecided**"}[expected]  # fmt: skip
    assert said.startswith(f"{opening} on {findings.measure(found)}: ")
    assert findings.signed(contrast["value"], found["unit"]) in said and "n = 200 rows" in said
    assert ("seed" in said) == (expected != "undecided")
    detectable = contrast["detectable"]
    assert ("would have found a difference of about" in said) == (expected == "undecided" and detectable is not None)
    assert ("No test row tells the two apart" in said) == (detectable is None)
    stance = {"better": "**supported**", "worse": "**contradicted**", "undecided": "**undecided**"}[expected]
    assert stance in findings.hypothesis(found, "lua")


@pytest.mark.parametrize("zero, exclude, stance", [
    (0.6, 0.6, "**supported** by"), (0.6, 0.4, "**supported in part** by"), (0.6, 0.2, "**a matter of the mask** by"),
    (0.2, 0.4, "**contradicted** by"), (0.4, 0.4, "**undecided** by"),
])  # fmt: skip
def test_the_hypothesis_with_two_masks(zero, exclude, stance):
    advfusion = {"advfusion_zero": method(zero), "advfusion_exclude": method(exclude)}
    found = compared({"adapterfusion": method(0.4)} | advfusion)
    said = findings.hypothesis(found, "lua")
    assert stance in said and "lua" in said and said.endswith(".")
    assert findings.hypothesis(compared({"adapterfusion": method(0.4), "lora": method(0.4)}), "lua") == ""


@pytest.mark.parametrize("advfusion, why", [
    (method(0.4, spread=0.12), "2 of 3 seeds have this sign; the interval over seeds"),
    (method(0.6, seeds=(0,)), "One seed says nothing of other trainings."),
    (method(0.6, seeds=(7, 8)), "The two have no seeds in common."),
])  # fmt: skip
def test_what_the_rows_are_sure_of_and_the_seeds_are_not_holds_on_these_seeds_only(advfusion, why):
    seeds = [state["seed"] for state in advfusion["states"]]
    found = compared({"adapterfusion": method(0.4, seeds if 7 not in seeds else (0, 1)), "advfusion_zero": advfusion})
    contrast = found["contrasts"][0]
    assert contrast["verdict"] == "better on these seeds"
    said = findings.sentence(found, contrast)
    assert said.startswith("**advfusion_zero is better than adapterfusion on these seeds**") and why in said
    assert ("includes 0, so other seeds could say otherwise" in said) == (len(seeds) == 3)
    assert "**supported on these seeds** by" in findings.hypothesis(found, "lua")
    assert findings.turned(contrast)["verdict"] == "worse on these seeds"


def test_a_difference_read_from_the_other_side_says_the_same():
    found = compared()
    there = findings.oriented(found["contrasts"], "bottleneck", "adapterfusion")
    back = findings.oriented(found["contrasts"], "adapterfusion", "bottleneck")
    assert back["value"] == -there["value"] and (back["low"], back["high"]) == (-there["high"], -there["low"])
    assert findings.turned(back) == there and findings.oriented(found["contrasts"], "lora", "base") is None
    best = findings.oriented(found["contrasts"], "adapterfusion", "advfusion_zero")
    assert best["verdict"] == "worse" and "18.0" in findings.sentence(found, best)


def test_every_difference_is_told_once_under_its_question():
    found = compared(STUDY | {"lora": method(0.3)})
    told = findings.answers(found)
    assert [block["question"] for block in told] == [*findings.QUESTIONS, "And the others?"]
    sentences = [s for block in told for s in block["sentences"]]
    assert len(sentences) == len(found["contrasts"]) and len(set(sentences)) == len(sentences)
    assert sentences[0].startswith("**bottleneck is better than base**")


def test_what_could_be_detected_shrinks_with_the_rows_and_would_indeed_be_found():
    def study(n: int, shift: float) -> dict:
        rng = np.random.default_rng(n)
        return {"adapterfusion": scores([state(0, rng.random(n) < 0.5, np.ones(n))]),
                "lora": scores([state(0, rng.random(n) < 0.5 + shift, np.ones(n))])}  # fmt: skip

    few, many = (compared(study(n, 0.0))["contrasts"][0]["detectable"] for n in (100, 1600))
    assert 2 < few / many < 8  # a quarter of the error, give or take
    found = [compared(study(n, 1.5 * many / 100))["contrasts"][0]["verdict"] for n in range(1590, 1600)]
    assert sum(verdict != "undecided" for verdict in found) >= 8


def test_seeds_are_paired_only_with_their_own_or_with_the_base():
    found = compared(STUDY | {"lora": method(0.5, seeds=(5, 6, 7))})
    assert one(found, "lora", "adapterfusion")["by_seed"] == []
    assert one(found, "base", "adapterfusion")["by_seed"] == pytest.approx([-37.0] * 3)
    assert compared({"adapterfusion": BASE, "lora": method(0.5, seeds=(3,))})["contrasts"][0]["seeds_low"] is None


@pytest.mark.parametrize("change, key", [
    ({"ids": ["other"]}, "ids"), ({"language": "go"}, "language"), ({"settings": {"batch_size": 1}}, "settings"),
    ({"isolation": None}, "isolation"),
])  # fmt: skip
def test_only_like_is_compared_with_like(tmp_path, change, key):
    for name, content in (("a", BASE), ("b", BASE | change)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"differ in their {key}"):
        comparison.load({"base": str(tmp_path / "a"), "lora": str(tmp_path / "b")})
    assert comparison.load({"base": str(tmp_path / "a")}) == {"base": BASE}


def test_the_main_metric_is_one_that_all_have():
    without = method(0.5)
    without["states"][1]["scores"]["pass_at_1"] = {"label": "pass@1", "value": None, "reason": "no runtime"}
    assert comparison.main_metric([BASE]) == "pass_at_1" and comparison.main_metric([BASE, without]) == "bleu_paper"
    loss = pytest.approx(2, abs=0.1)
    assert comparison.headline(BASE) == {"pass@1": 5.0, "exact match": 0.0, "completion loss": loss}

"""Comparison and findings: known differences are found and named, others are undecided, and errors are kept apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.evaluation import comparison, statistics
from studykit.evaluation.metrics.score import corpus_value
from studykit.report import conclusions
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
    assert found["mean"] == found["low"] == 0 < found["high"] < 3
    assert comparison.summary("pass_at_1", method(0.0, seeds=(0,))["states"])["interval"] == "Wilson"


def test_the_last_state_is_the_methods_own_score():
    states = [state(s, np.arange(40) < share, np.ones(40), name)
              for s in (0, 1) for name, share in (("phase 1", 30), ("phase 2", 10))]  # fmt: skip
    found = compared({"adapterfusion": method(0.5, n=40, seeds=(0, 1)), "advfusion_zero": scores(states)})
    assert [(r["method"], r["final"], r["mean"]) for r in found["rows"]][1:] == [
        ("advfusion_zero, phase 1", False, 75.0), ("advfusion_zero", True, 25.0)]  # fmt: skip
    assert one(found, "advfusion_zero", "adapterfusion")["value"] == pytest.approx(-25)
    restored = one(found, "advfusion_zero", "advfusion_zero, phase 1")
    assert restored["value"] == pytest.approx(-50) and restored["verdict"].startswith("worse")
    assert found["family"]["tests"] == 2, "Holm's correction knows of it"
    assert conclusions.answers(found)[-1]["question"] == "Does restoring it in phase 2 help?"
    assert "advfusion_zero against advfusion_zero, phase 1 is worse" in conclusions.in_brief(found, "lua")[-1]


@given(st.lists(st.sampled_from(METHODS), min_size=1, unique=True), st.data())
def test_pairs_are_unique_and_hold_every_method_and_every_question(methods, data):
    baseline = data.draw(st.sampled_from(methods))
    found = [frozenset(pair) for pair in comparison.pairs(methods, baseline)]
    asked = {frozenset(pair) for pairs in conclusions.QUESTIONS.values() for pair in pairs if set(pair) <= set(methods)}
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
    said = conclusions.sentence(found, contrast)
    opening = {"better": "**advfusion_zero is better than adapterfusion**",
               "worse": "**advfusion_zero is worse than adapterfusion**",
               "undecided": "**advfusion_zero against adapterfusion is undecided**"}[expected]  # fmt: skip
    assert said.startswith(f"{opening} on {conclusions.measure(found)}: ")
    assert conclusions.signed(contrast["value"], found["unit"]) in said and "n = 200 rows" in said
    assert ("seed" in said) == (expected != "undecided")
    detectable = contrast["detectable"]
    assert ("would have found a difference of about" in said) == (expected == "undecided" and detectable is not None)
    assert ("No test row tells the two apart" in said) == (detectable is None)
    stance = {"better": "**supported**", "worse": "**contradicted**", "undecided": "**undecided**"}[expected]
    assert stance in conclusions.hypothesis(found, "lua")


@pytest.mark.parametrize("zero, exclude, stance", [
    (0.6, 0.6, "**supported** by"), (0.6, 0.4, "**supported in part** by"), (0.6, 0.2, "**a matter of the mask** by"),
    (0.2, 0.4, "**contradicted** by"), (0.4, 0.4, "**undecided** by"),
])  # fmt: skip
def test_the_hypothesis_with_two_masks(zero, exclude, stance):
    advfusion = {"advfusion_zero": method(zero), "advfusion_exclude": method(exclude)}
    found = compared({"adapterfusion": method(0.4)} | advfusion)
    said = conclusions.hypothesis(found, "lua")
    assert stance in said and "lua" in said and said.endswith(".")
    assert conclusions.hypothesis(compared({"adapterfusion": method(0.4), "lora": method(0.4)}), "lua") == ""


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
    said = conclusions.sentence(found, contrast)
    assert said.startswith("**advfusion_zero is better than adapterfusion on these seeds**") and why in said
    assert ("includes 0, so other seeds could say otherwise" in said) == (len(seeds) == 3)
    assert "**supported on these seeds** by" in conclusions.hypothesis(found, "lua")
    assert conclusions.turned(contrast)["verdict"] == "worse on these seeds"


def test_a_difference_read_from_the_other_side_says_the_same():
    found = compared()
    there = conclusions.oriented(found["contrasts"], "bottleneck", "adapterfusion")
    back = conclusions.oriented(found["contrasts"], "adapterfusion", "bottleneck")
    assert back["value"] == -there["value"] and (back["low"], back["high"]) == (-there["high"], -there["low"])
    assert conclusions.turned(back) == there and conclusions.oriented(found["contrasts"], "lora", "base") is None
    best = conclusions.oriented(found["contrasts"], "adapterfusion", "advfusion_zero")
    assert best["verdict"] == "worse" and "18.0" in conclusions.sentence(found, best)


def test_every_difference_is_told_once_under_its_question():
    found = compared(STUDY | {"lora": method(0.3)})
    told = conclusions.answers(found)
    assert [block["question"] for block in told] == [*list(conclusions.QUESTIONS)[:3], "And the others?"], "one phase each"
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
    ({"isolation": None}, "isolation"), ({"groups": ["p"] * 200}, "groups"),
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


def keep(content: dict, *metrics: str) -> dict:
    """The same with these metrics alone."""
    states = [state | {"scores": {m: state["scores"][m] for m in metrics}} for state in content["states"]]
    return content | {"states": states}


def rename(content: dict, metric: str, name: str, label: str, **more) -> dict:
    """The same with one metric, under another name."""
    states = [state | {"scores": {name: state["scores"][metric] | {"label": label} | more}}
              for state in content["states"]]  # fmt: skip
    return content | {"states": states}


def numbers(contrast: dict) -> dict:
    """What a contrast measured, without nesting."""
    seeds = {f"seed {i}": value for i, value in enumerate(contrast["by_seed"])}
    return seeds | {name: value for name, value in contrast.items() if isinstance(value, float | int | None)}


def joined(first: dict, second: dict) -> dict:
    """The same states with the metrics of both."""
    pairs = zip(first["states"], second["states"], strict=True)
    return first | {"states": [a | {"scores": a["scores"] | b["scores"]} for a, b in pairs]}


def test_metrics_stand_in_a_fixed_order_whatever_k():
    names = ["loss", "b_norm", "pass_at_10", "new_metric", "codebleu", "pass_at_1", "exact_match", "parse_ok"]
    assert sorted(names, key=comparison.place) == [
        "pass_at_1", "pass_at_10", "exact_match", "codebleu", "b_norm", "parse_ok", "new_metric", "loss"]  # fmt: skip
    assert comparison.unit("pass_at_10") == comparison.unit("parse_ok") == "%" and comparison.unit("chrf") == "points"


def test_everything_works_with_only_pass_at_k_and_the_loss_and_without_the_loss():
    def study(*metrics: str) -> dict:
        return {name: keep(content, *metrics) for name, content in STUDY.items()}

    few = study("pass_at_1", "loss")
    for kept in (few, study("pass_at_1"), study("loss"), study("bleu_paper", "exact_match")):
        shared = comparison.shared_metrics(list(kept.values()))
        found = {metric: compared(kept, metric) for metric in shared}
        main = found[comparison.main_metric(list(kept.values()))]
        assert conclusions.answers(main) and conclusions.score_rows(main) and conclusions.difference_rows(main)
        assert comparison.title(kept["base"], main["metric"]).lower() in comparison.headline(kept["base"])
    five = {name: rename(content, "pass_at_1", "pass_at_5", "pass@5") for name, content in few.items()}
    both = {name: joined(few[name], five[name]) for name in few}
    assert comparison.shared_metrics(list(both.values())) == ["pass_at_1", "pass_at_5", "loss"]
    assert comparison.main_metric(list(five.values())) == "pass_at_5"
    assert one(compared(five, "pass_at_5"), "advfusion_zero", "adapterfusion")["effect_name"] == "odds ratio"
    with pytest.raises(UserError, match="share no metric"):
        comparison.main_metric([keep(BASE, "loss"), keep(BASE, "pass_at_1")])


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
def test_a_contrast_is_antisymmetric(metric):
    a, b = method(0.42, spread=0.02), method(0.4, rng_seed=1)
    there, back = (compared({"adapterfusion": x, "lora": y}, metric)["contrasts"][0] for x, y in ((a, b), (b, a)))
    assert numbers(conclusions.turned(there)) == pytest.approx(numbers(back))
    assert conclusions.turned(there)["verdict"] == back["verdict"]


def test_groups_of_one_row_change_nothing_and_larger_ones_are_counted():
    plain = compared()
    alone = [None, *(f"p{i}" for i in range(199))]
    assert compared({name: content | {"groups": alone} for name, content in STUDY.items()}) == plain
    fives = [f"p{i // 5}" for i in range(200)]
    grouped = compared({name: content | {"groups": fives} for name, content in STUDY.items()})
    for before, after in zip(plain["rows"], grouped["rows"], strict=True):
        assert (after["n"], before["clusters"], after["clusters"]) == (200, None, 40)
        assert after["mean"] == before["mean"] and after["high"] - after["low"] > before["high"] - before["low"]
    contrast = one(grouped, "advfusion_zero", "adapterfusion")
    assert contrast["clusters"] == 40 and contrast["p"] >= one(plain, "advfusion_zero", "adapterfusion")["p"]
    assert "n = 200 rows in 40 clusters" in conclusions.sentence(grouped, contrast)
    assert {row["clusters"] for row in conclusions.score_rows(grouped)} == {40}
    assert "paired over 200 rows in 40 clusters" in conclusions.how_tested(grouped)


def test_a_metric_of_some_rows_finds_their_groups():
    content = method(0.5, n=4) | {"groups": ["a", "a", "b", None, "c"]}
    for of_seed in content["states"]:
        of_seed["scores"]["pass_at_1"]["rows"] = [0, 1, 2, 4]
    assert comparison.clusters(content, "pass_at_1") == ["a", "a", "b", "c"]
    with pytest.raises(UserError, match="Completion loss covers 4 of 5 rows"):
        comparison.clusters(content, "loss")


def test_one_seed_of_passes_has_an_exact_test_and_others_the_bootstrap():
    a, b = np.arange(50) < 20, (np.arange(50) >= 1) & (np.arange(50) < 11)
    study = {"adapterfusion": scores([state(0, b, np.ones(50))]), "lora": scores([state(0, a, np.ones(50))])}
    contrast = compared(study)["contrasts"][0]
    assert (contrast["test"], contrast["discordant"]) == ("McNemar, exact", [10, 0])
    assert contrast["p"] == pytest.approx(2 / 2**10) and contrast["value"] == pytest.approx(20)
    assert contrast["effect"] == pytest.approx((20.5 / 30.5) / (10.5 / 40.5))
    pairs = {name: content | {"groups": [i // 2 for i in range(50)]} for name, content in study.items()}
    for other in (compared(pairs), compared(study, "loss"), compared()):
        assert {c["test"] for c in other["contrasts"]} == {"paired bootstrap"}
    assert compared(study, "loss")["contrasts"][0]["effect_name"] == "Cliff's delta"


def test_holm_over_languages_is_one_family():
    lua, ruby = compared(), compared({name: content | {"language": "ruby"} for name, content in STUDY.items()})
    alone = [c["p_holm"] for c in lua["contrasts"]]
    assert lua["family"] == {"tests": 4, "said": "all differences in pass@1 on lua"}
    comparison.correct([lua, ruby])
    both = [*lua["contrasts"], *ruby["contrasts"]]
    assert [c["p_holm"] for c in both] == statistics.holm([c["p"] for c in both])
    assert all(c["p_holm"] >= p for c, p in zip(lua["contrasts"], alone, strict=True))
    assert lua["family"] == ruby["family"] == {"tests": 8, "said": "all differences in pass@1 on lua, ruby"}
    assert "Holm's correction over 8 tests, all differences in pass@1 on lua, ruby." in conclusions.how_tested(lua)


def test_parts_of_a_score_stand_beside_it():
    parts = {"ngram_match": 10.0, "syntax_match": 30.0, "dataflow_match": None}
    study = {name: rename(content, "exact_match", "codebleu", "CodeBLEU", components=parts)
             for name, content in STUDY.items()}  # fmt: skip
    rows = conclusions.component_rows(compared(study, "codebleu"))
    assert rows[0] == {"method": "base", "CodeBLEU": "0.0", "ngram match": "10.0", "syntax match": "30.0"}
    assert conclusions.component_rows(compared()) == []


def test_a_small_difference_of_text_scores_comes_with_a_caveat():
    def scored(shift: float) -> dict:
        content, rng = method(0.4), np.random.default_rng(0)
        for of_seed in content["states"]:
            values = (50 + shift + rng.normal(0, 1, 200)).tolist()
            of_seed["scores"] = {"rouge_l": {"label": "ROUGE-L", "value": float(np.mean(values)), "per_example": values,
                                             "signature": "r", "n": 200}}  # fmt: skip
        return content

    for shift, caveat in ((3, True), (8, False)):
        found = compared({"adapterfusion": scored(0), "lora": scored(shift)}, "rouge_l")
        assert found["contrasts"][0]["verdict"] == "better"
        assert ("need not be one that people see" in conclusions.sentence(found, found["contrasts"][0])) == caveat
    both = compared()
    assert not any("People" in conclusions.sentence(both, c) for c in both["contrasts"]), "tests decide, not people"


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
@pytest.mark.parametrize("study, said", [
    ({"adapterfusion": method(1.0, n=1), "lora": method(0.0, n=1)}, "cannot be told from one row"),
    ({"adapterfusion": method(1.0, n=6) | {"groups": ["p"] * 6}, "lora": method(0.0, n=6) | {"groups": ["p"] * 6}},
     "cannot be told from one cluster"),
    ({"adapterfusion": method(0.4), "lora": method(0.4)}, "No test row tells the two apart."),
    ({"adapterfusion": method(1.0, seeds=(0,)), "lora": method(1.0, seeds=(0,))}, "No test row tells the two apart."),
])  # fmt: skip
def test_what_is_too_little_to_compare_gets_a_sentence(study, said, metric):
    found = compared(study, metric)
    contrast = found["contrasts"][0]
    assert contrast["verdict"] == "undecided" and contrast["p_holm"] == 1
    assert said in conclusions.sentence(found, contrast) and said in conclusions.sentence(found, conclusions.turned(contrast))
    assert conclusions.difference_rows(found)[0]["verdict"] == "undecided" and conclusions.score_rows(found)
    assert numbers(conclusions.turned(conclusions.turned(contrast))) == pytest.approx(numbers(contrast))


def test_one_method_alone_has_scores_and_nothing_to_compare():
    found = compared({"adapterfusion": method(0.4)})
    assert found["contrasts"] == [] and conclusions.answers(found) == [] and conclusions.how_tested(found) == ""


def test_a_source_that_was_not_evaluated_is_named_and_a_metric_that_it_lacks_is_left_out(tmp_path):
    (tmp_path / "go").mkdir()
    (tmp_path / "go" / "scores.json").write_text(json.dumps(keep(method(0.5), "loss")))
    (found,) = comparison.of_sources({"go": str(tmp_path / "go")})
    assert "pass_at_1" not in found and found["loss"]["n"] == found["n"] == 200
    with pytest.raises(UserError, match="ruby has no scores.json; a finished run of 04_evaluate"):
        comparison.of_sources({"ruby": str(tmp_path / "ruby")})


def test_shares_of_attention_say_what_they_are_means_of():
    row = {"samples": 64, "tokens": "completion", "by_seed": [0.1, 0.2]}
    assert conclusions.looked_at([row, row]) == "n = 64 samples, completion tokens, 2 seeds"
    assert conclusions.looked_at([]) == "nothing was recorded"

"""Comparison: known differences are found and named, others are undecided, and the two errors are kept apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.evaluation import comparison, statistics
from studykit.evaluation.contrasts import Resampling, row_scores
from studykit.evaluation.metrics import properties
from studykit.evaluation.metrics.score import corpus_value
from studykit.evaluation.results import MetricComparison
from studykit.evaluation.scores import Score
from studykit.report import conclusions, verdicts
from studykit.study import questions
from tests import made_runs
from tests.made_scores import changed, checkpoint, method, rescored, scores

BASE = method(0.05, seeds=(None,), loss=2.0)
METHODS = ("base", "bottleneck", "lora", "adapterfusion", "advfusion_none", "advfusion_zero", "advfusion_exclude",
           "advfusion_exclude@go", "adapterfusion~lua", "adapterfusion^random", "adapterfusion-lora")  # fmt: skip
STUDY = {"base": BASE, "bottleneck": method(0.4), "adapterfusion": method(0.42), "advfusion_zero": method(0.6)}


def compared(
    study: dict | None = None, metric: str = "pass_at_1", baseline: str = "adapterfusion", **options
) -> MetricComparison:
    options = {"confidence": 0.95, "resamples": 2000} | options
    result = comparison.compare(STUDY if study is None else study, metric, baseline, **options)
    assert MetricComparison.model_validate_json(result.model_dump_json()) == result, "it survives its file"
    return result


def publish(directory, text: str) -> None:
    """A finished evaluate run with this `scores.json`."""
    directory.mkdir()
    (directory / "scores.json").write_text(text)
    made_runs.finish(directory, "evaluate", {})


def keep(content, *metrics: str):
    """The same with these metrics alone."""
    return rescored(content, lambda scores: {metric: scores[metric] for metric in metrics})


def renamed(content, metric: str, name: str, **fields):
    """The same with one metric, under another name."""
    return rescored(content, lambda scores: {name: scores[metric].model_copy(update=fields)})


def measured(contrast) -> dict:
    """The numbers of a contrast, without nesting."""
    numbers = {name: value for name, value in dict(contrast).items() if isinstance(value, float | int | None)}
    for name in ("interval", "overall_interval"):
        if bounds := getattr(contrast, name):
            numbers |= {f"{name} low": bounds.low, f"{name} high": bounds.high}
    return numbers | {f"seed {i}": value for i, value in enumerate(contrast.by_seed)}


def test_a_table_has_means_over_seeds_and_differences_to_the_baseline():
    result = compared(STUDY | {"bottleneck": method(0.4, spread=0.02)})
    assert [row.method for row in result.summaries] == list(STUDY) and result.unit == "%"
    assert result.summary("bottleneck").points == pytest.approx([40, 42, 44])
    assert result.summary("bottleneck").mean == pytest.approx(42)
    assert result.summary("bottleneck").sd == pytest.approx(2)
    assert result.summary("base").sd is None and result.summary("base").n == 200
    better = result.contrast("advfusion_zero", "adapterfusion")
    assert better.value == pytest.approx(18) and better.interval.low < 18 < better.interval.high
    assert {(c.method, c.against) for c in result.contrasts} == {
        ("base", "adapterfusion"), ("bottleneck", "adapterfusion"), ("advfusion_zero", "adapterfusion"),
        ("bottleneck", "base")}  # fmt: skip


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
def test_the_error_of_the_rows_and_of_the_seeds_are_kept_apart(metric):
    """Equal seeds have no spread, however few the rows; rows that score alike have no error, however far the seeds."""
    rng = np.random.default_rng(1)
    passed, nats = rng.random(50) < 0.5, rng.normal(10, 3, 50)
    same_seeds = comparison.summarize("x", metric, [checkpoint(s, passed, nats) for s in range(3)])
    only_one = comparison.summarize("x", metric, [checkpoint(0, passed, nats)])
    assert same_seeds.interval.high - same_seeds.interval.low > 0 and (same_seeds.sd or 0) == pytest.approx(0)
    if metric != "pass_at_1":  # one run of a proportion has Wilson's interval instead
        assert tuple(dict(same_seeds.interval).values()) == pytest.approx(tuple(dict(only_one.interval).values()))
    seeds = [checkpoint(s, passed, np.full(50, 10.0 + s)) for s in range(3)]
    apart = comparison.summarize("x", "loss", seeds)
    assert apart.sd == pytest.approx(0.1)
    assert apart.interval.low == pytest.approx(apart.interval.high) == pytest.approx(1.1)


def test_a_corpus_score_is_the_mean_of_the_seeds_scores():
    rng = np.random.default_rng(2)
    checkpoints = [checkpoint(s, rng.random(40) < 0.5, rng.normal(10, 1, 40)) for s in range(3)]
    for metric in ("bleu_paper", "loss"):
        rows, aggregate = row_scores(metric, checkpoints)
        counts = [np.sum(one.scores[metric].statistics, axis=0) for one in checkpoints]
        expected = np.mean([corpus_value(metric)(np.asarray(c, float)) for c in counts])
        assert aggregate(rows.sum(0)) == pytest.approx(expected)


def test_no_success_still_has_an_interval():
    none = comparison.summarize("x", "pass_at_1", method(0.0).checkpoints)
    assert none.mean == none.interval.low == 0 < none.interval.high < 3
    assert comparison.summarize("x", "pass_at_1", method(0.0, seeds=(0,)).checkpoints).interval_method == "Wilson"


def test_the_last_phase_is_the_methods_own_score():
    states = {"phase 1": 30, "phase 1, restored": 20, "phase 2": 10}
    checkpoints = [checkpoint(s, np.arange(40) < share, np.ones(40), name)
                   for s in (0, 1) for name, share in states.items()]  # fmt: skip
    study = {"adapterfusion": method(0.5, n=40, seeds=(0, 1)), "advfusion_zero": scores(checkpoints)}
    result = compared(study)
    assert [(row.method, row.final, row.mean) for row in result.summaries][1:] == [
        ("advfusion_zero, phase 1", False, 75.0), ("advfusion_zero, phase 1, restored", False, 50.0),
        ("advfusion_zero", True, 25.0)]  # fmt: skip
    assert result.contrast("advfusion_zero", "adapterfusion").value == pytest.approx(-25)
    for pair in (("advfusion_zero, phase 1, restored", "advfusion_zero, phase 1"),
                 ("advfusion_zero", "advfusion_zero, phase 1, restored")):  # fmt: skip
        assert result.contrast(*pair).value == pytest.approx(-25)
    assert len(result.contrasts) == 3, "Holm's correction knows of them"
    answers = conclusions.answers(result)
    assert [answer.question for answer in answers] == [questions.ADVFUSION, questions.RESTORING, questions.PHASE_2]
    assert "advfusion_zero is worse than advfusion_zero, phase 1, restored" in answers[-1].sentences[0]


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
def test_an_interaction_is_the_difference_of_two_differences(metric):
    four = ["advfusion_zero", "adapterfusion", "bottleneck", "base"]
    result = compared(metric=metric, interactions=[four, four[2:] + four[:2]])
    there, back = result.interactions
    first, second = (result.contrast(*pair) or compared(metric=metric, pairs=[pair]).contrasts[0]
                     for pair in (four[:2], four[2:]))  # fmt: skip
    assert (there.method, there.against) == ("advfusion_zero − adapterfusion", "bottleneck − base")
    assert there.value == pytest.approx(first.value - second.value)
    assert there.by_seed == pytest.approx(np.subtract(first.by_seed, second.by_seed))
    assert back.value == pytest.approx(-there.value) and back.p == there.p
    assert result.tests == len(result.contrasts) + 2, "Holm's correction knows of them"
    answer = conclusions.answers(result)[-1]
    assert answer.question == conclusions.INTERACTIONS and "advfusion_zero − adapterfusion" in answer.sentences[0]


def test_an_interaction_with_nothing_on_one_side_is_the_contrast_itself():
    study = STUDY | {"lora": STUDY["bottleneck"]}
    result = compared(study, "loss", interactions=[["advfusion_zero", "adapterfusion", "bottleneck", "lora"]])
    plain, (same,) = result.contrast("advfusion_zero", "adapterfusion"), result.interactions
    for field in ("value", "p", "p_overall"):
        assert getattr(same, field) == pytest.approx(getattr(plain, field))
    assert same.interval.low == pytest.approx(plain.interval.low)


def test_only_the_pairs_that_are_asked_for_are_compared():
    result = compared(pairs=[["advfusion_zero", "bottleneck"]])
    assert [(c.method, c.against) for c in result.contrasts] == [("advfusion_zero", "bottleneck")]
    assert [answer.question for answer in conclusions.answers(result)] == [conclusions.REST]


@given(st.lists(st.sampled_from(METHODS), min_size=1, unique=True), st.data())
def test_pairs_are_unique_and_hold_every_method_and_every_question(methods, data):
    baseline = data.draw(st.sampled_from(methods))
    pairs = [frozenset(pair) for pair in questions.method_pairs(methods, baseline, "lua")]
    asked = {frozenset(pair) for of_one in questions.questions(methods, "lua").values() for pair in of_one}
    assert len(set(pairs)) == len(pairs) and {name for pair in pairs for name in pair} <= {*questions.labels(methods)}
    assert set(pairs) == asked | {frozenset((m, baseline)) for m in methods if m != baseline}


def test_holm_is_taken_over_all_differences_of_a_metric():
    contrasts = compared().contrasts
    assert [c.verdict.p_holm for c in contrasts] == statistics.holm([c.p for c in contrasts])
    assert [c.verdict.p_overall for c in contrasts] == statistics.holm([c.p_overall for c in contrasts])


def test_a_difference_read_from_the_other_side_says_the_same():
    result = compared()
    there = result.contrast("bottleneck", "adapterfusion")
    back = result.contrast("adapterfusion", "bottleneck")
    assert back.value == -there.value and back.interval == there.interval.reversed()
    assert back.reversed() == there and result.contrast("lora", "base") is None
    assert result.contrast("adapterfusion", "advfusion_zero").verdict.direction == "worse"


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
def test_a_contrast_is_antisymmetric(metric):
    a, b = method(0.42, spread=0.02), method(0.4, rng_seed=1)
    there, back = (compared({"adapterfusion": x, "lora": y}, metric).contrasts[0] for x, y in ((a, b), (b, a)))
    assert measured(there.reversed()) == pytest.approx(measured(back))
    assert measured(there.reversed().reversed()) == pytest.approx(measured(there))
    assert str(there.reversed().verdict) == str(back.verdict)


def test_what_could_be_detected_shrinks_with_the_rows_and_would_indeed_be_found():
    def study(n: int, shift: float) -> dict:
        rng = np.random.default_rng(n)
        return {"adapterfusion": scores([checkpoint(0, rng.random(n) < 0.5, np.ones(n))]),
                "lora": scores([checkpoint(0, rng.random(n) < 0.5 + shift, np.ones(n))])}  # fmt: skip

    few, many = (compared(study(n, 0.0)).contrasts[0].detectable for n in (100, 1600))
    assert 2 < few / many < 8  # a quarter of the error, give or take
    verdicts = [compared(study(n, 1.5 * many / 100)).contrasts[0].verdict for n in range(1590, 1600)]
    assert sum(verdict.is_decided for verdict in verdicts) >= 8


def test_seeds_are_paired_only_with_their_own_or_with_the_base():
    result = compared(STUDY | {"lora": method(0.5, seeds=(5, 6, 7))})
    apart = result.contrast("lora", "adapterfusion")
    assert apart.by_seed == [] and apart.overall_interval is None and apart.p_overall == 1
    assert result.contrast("base", "adapterfusion").by_seed == pytest.approx([-37.0] * 3)
    alone = compared({"adapterfusion": BASE, "lora": method(0.5, seeds=(3,))})
    assert alone.contrasts[0].overall_interval is None and alone.contrasts[0].verdict.p_overall == 1


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
def test_seeds_that_only_one_side_has_change_nothing(metric):
    """Whatever a third training gave, methods are compared by the two seeds that both have, in any order."""
    two, three = method(0.4, seeds=(0, 1), spread=0.02), method(0.6, seeds=(0, 1, 2), spread=0.05)
    first = scores(three.checkpoints[:2])
    expected = compared({"adapterfusion": two, "lora": first}, metric).contrasts
    assert compared({"adapterfusion": two, "lora": three}, metric).contrasts == expected
    assert compared({"adapterfusion": two, "lora": scores(three.checkpoints[::-1])}, metric).contrasts[0].by_seed == (
        pytest.approx(expected[0].by_seed[::-1]))  # fmt: skip


def random_study(rng, methods: int, seeds: int, rows: int, by_row: float, by_seed: float, shift: float = 0) -> dict:
    """Methods of one quality: a training and a row of a method differ from its mean with these deviations."""
    hard = rng.normal(0, 3, rows)
    study = {}
    for name in ["adapterfusion", "bottleneck", "lora", "houlsby"][:methods]:
        own = 50 + shift * (name != "adapterfusion") + hard + rng.normal(0, by_row, rows)
        study[name] = scores([graded(seed, own + rng.normal(0, by_seed)) for seed in range(seeds)])
    return study


def graded(seed: int, values):
    """A checkpoint whose rows have these scores."""
    score = Score(label="chrF", value=float(values.mean()), per_example=values.tolist(), signature="c", n=len(values))
    return checkpoint(seed, [True], [1.0]).model_copy(update={"scores": {"chrf": score}})


@pytest.mark.parametrize("by_row, by_seed", [(0.5, 1.0), (5.0, 0.5), (5.0, 0.0)])
def test_no_unqualified_verdict_where_nothing_differs(by_row, by_seed):
    """60 studies of one quality in each regime; `benchmarks/coverage.py` makes hundreds."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(60):
        study = random_study(rng, 4, 3, 60, by_row, by_seed)
        contrasts = compared(study, "chrf", resamples=600).contrasts
        wrong += any(c.verdict.seeds_confirm for c in contrasts)
    assert wrong <= 7, "of 60 at 5 %, more than 7 have a probability of 1 %"


def test_equivalence_needs_a_margin_and_enough_evidence():
    rng = np.random.default_rng(3)
    study = random_study(rng, 2, 5, 200, 0.5, 0.1)
    without, wide, narrow = (compared(study, "chrf", margin=m).contrasts[0] for m in (None, 5.0, 0.01))
    assert without.p_equivalent is None and str(without.verdict) == str(narrow.verdict) == "undecided"
    assert str(wide.verdict) == str(wide.reversed().verdict) == "equivalent within 5"
    alone = {name: scores(content.checkpoints[:1]) for name, content in study.items()}
    one_seed = compared(alone, "chrf", margin=5.0).contrasts[0].verdict
    assert one_seed.equivalent_within is None, "one seed shows no equivalence"
    alike = compared({"adapterfusion": method(0.4), "lora": method(0.4)}, margin=5.0).contrasts[0]
    assert str(alike.verdict) == "undecided", "where no row differs, nothing is known of rows that might"
    shifted = compared(random_study(rng, 2, 5, 200, 0.5, 0.05, shift=1.0), "chrf", margin=5.0)
    assert str(shifted.contrasts[0].verdict) == "better, equivalent within 5"
    text = verdicts.sentence(shifted, shifted.contrasts[0])
    assert "**bottleneck is better than adapterfusion, and equivalent to it within 5.0 points**" in text


def test_too_few_resamples_are_refused():
    with pytest.raises(UserError, match="compare.resamples is 799; 4 comparisons need at least 800 at a confidence of"):
        compared(resamples=799)
    assert len(compared(resamples=800).contrasts) == 4


@pytest.mark.parametrize("change, field", [
    ({"ids": ["other"]}, "ids"), ({"language": "go"}, "language"), ({"isolation": None}, "isolation"),
    ({"groups": ["p"] * 200}, "groups"),
    ({"checkpoints": [c.model_copy(update={"settings": {"batch_size": 1}}) for c in BASE.checkpoints]}, "settings"),
])  # fmt: skip
def test_only_like_is_compared_with_like(tmp_path, change, field):
    for name, content in (("a", BASE), ("b", changed(BASE, **change))):
        publish(tmp_path / name, content.model_dump_json())
    with pytest.raises(UserError, match=f"differ in their {field}"):
        comparison.read_comparable({"base": str(tmp_path / "a"), "lora": str(tmp_path / "b")})
    assert comparison.read_comparable({"base": str(tmp_path / "a")}) == {"base": BASE}
    with pytest.raises(UserError, match="evaluations is empty"):
        comparison.read_comparable({})


def test_scores_that_changed_since_they_were_published_are_refused(tmp_path):
    publish(tmp_path / "a", BASE.model_dump_json())
    (tmp_path / "a" / "scores.json").write_text(BASE.model_dump_json().replace("lua", "lub"))
    with pytest.raises(UserError, match="scores.json is not as it was published"):
        comparison.read_scores(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"method": "base"}'])
def test_damaged_scores_are_named(tmp_path, text):
    publish(tmp_path / "a", text)
    with pytest.raises(UserError, match="scores.json is damaged or from another version"):
        comparison.read_scores(tmp_path / "a")


def test_the_main_metric_is_one_that_all_have():
    without = method(0.5)
    without.checkpoints[1].scores["pass_at_1"] = BASE.score("pass_at_1").model_copy(update={"value": None})
    assert comparison.main_metric([BASE]) == "pass_at_1" and comparison.main_metric([BASE, without]) == "bleu_paper"
    loss = pytest.approx(2, abs=0.1)
    headline = comparison.evaluation_headline(BASE)
    assert headline == {"pass@1": 5.0, "exact match": 0.0, "completion loss": loss}


def test_metrics_stand_in_a_fixed_order_whatever_k():
    names = ["loss", "b_norm", "pass_at_10", "new_metric", "codebleu", "pass_at_1", "exact_match", "parse_ok"]
    assert sorted(names, key=properties.sort_key) == [
        "pass_at_1", "pass_at_10", "exact_match", "codebleu", "b_norm", "parse_ok", "new_metric", "loss"]  # fmt: skip
    assert properties.unit("pass_at_10") == properties.unit("parse_ok") == "%" and properties.unit("chrf") == "points"


def test_everything_works_with_only_pass_at_k_and_the_loss_and_without_the_loss():
    def study(*metrics: str) -> dict:
        return {name: keep(content, *metrics) for name, content in STUDY.items()}

    few = study("pass_at_1", "loss")
    for kept in (few, study("pass_at_1"), study("loss"), study("bleu_paper", "exact_match")):
        results = {metric: compared(kept, metric) for metric in comparison.shared_metrics(list(kept.values()))}
        main = results[comparison.main_metric(list(kept.values()))]
        assert conclusions.answers(main) and conclusions.score_table(main) and verdicts.difference_table(main)
        assert main.label.lower() in comparison.evaluation_headline(kept["base"])
    five = {name: renamed(content, "pass_at_1", "pass_at_5", label="pass@5") for name, content in few.items()}
    both = [rescored(few[name], lambda scores: scores | {"pass_at_5": scores["pass_at_1"]}) for name in few]
    assert comparison.shared_metrics(both) == ["pass_at_1", "pass_at_5", "loss"]
    assert comparison.main_metric(list(five.values())) == "pass_at_5"
    assert compared(five, "pass_at_5").contrast("advfusion_zero", "adapterfusion").effect_name == "odds ratio"
    with pytest.raises(UserError, match="share no metric"):
        comparison.main_metric([keep(BASE, "loss"), keep(BASE, "pass_at_1")])


def test_groups_of_one_row_change_nothing_and_larger_ones_are_counted():
    plain = compared()
    alone = [None, *(f"p{i}" for i in range(199))]
    assert compared({name: changed(content, groups=alone) for name, content in STUDY.items()}) == plain
    fives = [f"p{i // 5}" for i in range(200)]
    grouped = compared({name: changed(content, groups=fives) for name, content in STUDY.items()})
    for before, after in zip(plain.summaries, grouped.summaries, strict=True):
        assert (after.n, before.clusters, after.clusters) == (200, None, 40) and after.mean == before.mean
        assert after.interval.high - after.interval.low > before.interval.high - before.interval.low
    contrast = grouped.contrast("advfusion_zero", "adapterfusion")
    assert contrast.clusters == 40 and contrast.p >= plain.contrast("advfusion_zero", "adapterfusion").p
    assert "n = 200 rows in 40 clusters" in verdicts.sentence(grouped, contrast)
    assert {row["clusters"] for row in conclusions.score_table(grouped)} == {40}
    assert "paired over 200 rows in 40 clusters" in verdicts.difference_caption(grouped)


def test_a_metric_of_some_rows_finds_their_groups():
    content = changed(method(0.5, n=4), groups=["a", "a", "b", None, "c"])
    four = [0, 1, 2, 4]
    content = rescored(
        content, lambda scores: scores | {"pass_at_1": scores["pass_at_1"].model_copy(update={"rows": four})}
    )
    assert content.groups_of("pass_at_1") == ["a", "a", "b", "c"]
    with pytest.raises(UserError, match="Completion loss covers 4 of 5 rows"):
        content.groups_of("loss")


def test_one_seed_of_passes_has_an_exact_test_and_others_the_bootstrap():
    a, b = np.arange(50) < 20, (np.arange(50) >= 1) & (np.arange(50) < 11)
    study = {name: scores([checkpoint(0, rows, np.ones(50))]) for name, rows in (("adapterfusion", b), ("lora", a))}
    contrast = compared(study).contrasts[0]
    assert (contrast.test, contrast.discordant) == ("McNemar, exact", (10, 0))
    assert contrast.p == pytest.approx(2 / 2**10) and contrast.value == pytest.approx(20)
    assert contrast.effect == pytest.approx(10.5 / 0.5) and contrast.effect_name == "conditional odds ratio"
    pairs = {name: changed(content, groups=[i // 2 for i in range(50)]) for name, content in study.items()}
    for other in (compared(pairs), compared(study, "loss"), compared()):
        assert {c.test for c in other.contrasts} == {"paired bootstrap"}
    assert compared(study, "loss").contrasts[0].effect_name == "Cliff's delta"


def test_a_source_that_was_not_evaluated_is_named_and_a_metric_that_it_lacks_is_left_out(tmp_path):
    publish(tmp_path / "go", keep(method(0.5), "loss").model_dump_json())
    (source,) = comparison.summarize_sources({"go": str(tmp_path / "go")})
    assert list(source.summaries) == ["loss"] and source.summaries["loss"].n == source.n == 200
    with pytest.raises(UserError, match="ruby has no scores.json; a finished run of 04_evaluate"):
        comparison.summarize_sources({"ruby": str(tmp_path / "ruby")})


def test_options_are_those_of_all_intervals():
    wide, narrow = (Resampling(confidence) for confidence in (0.99, 0.5))
    first, second = (comparison.summarize("x", "loss", STUDY["bottleneck"].checkpoints, o) for o in (wide, narrow))
    assert first.interval.low < second.interval.low < second.interval.high < first.interval.high


def test_seeds_that_agree_to_the_last_digit_confirm_nothing():
    """All rows fail with one method and pass with the other, in both of two trainings: no error can be estimated."""
    of = {name: method(share, seeds=(0, 1)) for name, share in (("lora", 1.0), ("bottleneck", 0.0))}
    compared = comparison.compare(of, "pass_at_1", "bottleneck", 0.95, 2000)
    contrast = compared.contrast("lora", "bottleneck")
    assert contrast.verdict.direction == "better" and not contrast.verdict.seeds_confirm
    assert contrast.p_overall == 1.0 and contrast.overall_interval is None

"""Conclusions: every verdict has its sentence, every difference is told once, and too few rows are named."""

from __future__ import annotations

import numpy as np
import pytest

from studykit.evaluation.results import ComparisonResults
from studykit.evaluation.scores import Score
from studykit.report import conclusions, verdicts
from studykit.study import questions
from tests.evaluation.test_comparison import STUDY, compared, measured, renamed
from tests.made_scores import changed, method, rescored


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
    result = compared({"adapterfusion": method(**b), "advfusion_zero": method(**a)}, metric)
    contrast = result.contrasts[0]
    assert str(contrast.verdict) == contrast.verdict.direction == expected
    text = verdicts.sentence(result, contrast)
    claim = {"better": "**advfusion_zero is better than adapterfusion**",
             "worse": "**advfusion_zero is worse than adapterfusion**",
             "undecided": "**we cannot tell whether advfusion_zero or adapterfusion is better**"}[expected]  # fmt: skip
    assert text.startswith(f"On {verdicts.metric_in_sentence(result)}, {claim}: ")
    assert verdicts.signed(contrast.value, metric) in text and "n = 200 rows" in text
    assert ("rows and seeds together confirm it" in text) == (expected != "undecided")
    assert ("would be detected" in text) == (expected == "undecided" and contrast.detectable is not None)
    assert ("No test row distinguishes the two" in text) == (contrast.detectable is None)
    opening = {"better": "**AdvFusion beats AdapterFusion on Lua**",
               "worse": "**AdvFusion does not beat AdapterFusion on Lua**",
               "undecided": "**We cannot tell whether AdvFusion beats AdapterFusion on Lua**"}[expected]  # fmt: skip
    assert conclusions.hypothesis(result, "lua").startswith(f"{opening}, judged by ")


@pytest.mark.parametrize("zero, exclude, claim", [
    (0.6, 0.6, "**AdvFusion beats AdapterFusion on Lua**"),
    (0.6, 0.4, "**AdvFusion beats AdapterFusion on Lua with one of the masks**"),
    (0.6, 0.2, "**Whether AdvFusion beats AdapterFusion on Lua depends on the mask**"),
    (0.2, 0.4, "**AdvFusion does not beat AdapterFusion on Lua**"),
    (0.4, 0.4, "**We cannot tell whether AdvFusion beats AdapterFusion on Lua**"),
])  # fmt: skip
def test_the_hypothesis_with_two_masks(zero, exclude, claim):
    advfusion = {"advfusion_zero": method(zero), "advfusion_exclude": method(exclude)}
    text = conclusions.hypothesis(compared({"adapterfusion": method(0.4)} | advfusion), "lua")
    assert text.startswith(f"{claim}, judged by pass@1: advfusion_zero against adapterfusion is ")
    assert text.endswith(
        "did not run advfusion_none, so it cannot separate the effect of the mask from that of two phases."
    )
    neither = compared({"adapterfusion": method(0.4), "lora": method(0.4)})
    assert conclusions.hypothesis(neither, "lua") == ""


@pytest.mark.parametrize("none, placebo, claim", [
    (0.4, None, "**Hiding the Lua adapter in phase 1 helps**"),
    (0.8, None, "**Hiding the Lua adapter in phase 1 does not help**"),
    (0.6, None, "**We cannot tell whether hiding the Lua adapter in phase 1 helps**"),
    (0.4, 0.4, "**Hiding the Lua adapter in phase 1 helps**"),
    (0.4, 0.6, "**We cannot tell whether hiding the Lua adapter in phase 1 helps**"),
    (0.4, 0.8, "**Hiding the Lua adapter in phase 1 does not help**"),
])  # fmt: skip
def test_the_mask_is_judged_against_the_same_schedule_and_against_another_mask(none, placebo, claim):
    """However much better than AdapterFusion it may be."""
    study = {"adapterfusion": method(0.1), "advfusion_none": method(none), "advfusion_exclude": method(0.6)}
    result = compared(study | ({"advfusion_exclude@go": method(placebo)} if placebo else {}))
    text = conclusions.hypothesis(result, "lua")
    assert text.startswith(f"{claim}, judged by pass@1: advfusion_exclude against advfusion_none is ")
    assert ("advfusion_exclude against advfusion_exclude@go is" in text) == bool(placebo)
    assert text.endswith("whether hiding another member does the same.") == (not placebo)


@pytest.mark.parametrize("advfusion, outlook", [
    (method(0.4, spread=0.12), "2 of 3 seeds differ in this direction; other seeds could reverse it."),
    (method(0.6, seeds=(0,)), "A single seed says nothing about other trainings."),
    (method(0.6, seeds=(7, 8)), "The two methods have no seeds in common"),
])  # fmt: skip
def test_a_finding_that_the_seeds_leave_open_holds_on_these_seeds_only(advfusion, outlook):
    seeds = [checkpoint.seed for checkpoint in advfusion.checkpoints]
    baseline = method(0.4, seeds if 7 not in seeds else (0, 1))
    result = compared({"adapterfusion": baseline, "advfusion_zero": advfusion})
    contrast = result.contrasts[0]
    assert str(contrast.verdict) == "better on these seeds only"
    text = verdicts.sentence(result, contrast)
    assert "**advfusion_zero is better than adapterfusion on these seeds only**" in text and outlook in text
    assert ("between trainings with other seeds, would be detected" in text) == (len(seeds) == 3)
    headline = conclusions.hypothesis(result, "lua")
    assert headline.startswith("**We cannot tell whether AdvFusion beats AdapterFusion on Lua**")
    assert "advfusion_zero against adapterfusion is better on these seeds only" in headline
    assert str(contrast.reversed().verdict) == "worse on these seeds only"


def test_no_headline_claims_more_than_the_seeds_confirm():
    worse = compared({"adapterfusion": method(0.6), "advfusion_zero": method(0.4, spread=0.12)})
    assert str(worse.contrasts[0].verdict) == "worse on these seeds only"
    assert conclusions.hypothesis(worse, "lua").startswith("**We cannot tell whether AdvFusion beats AdapterFusion")
    sure = compared({"adapterfusion": method(0.4), "advfusion_zero": method(0.6)})
    assert conclusions.hypothesis(sure, "lua").startswith("**AdvFusion beats AdapterFusion on Lua**")


def test_every_difference_is_told_once_under_its_question():
    result = compared(STUDY | {"lora": method(0.3)})
    answers = conclusions.answers(result)
    expected = [questions.ADAPTER, questions.FUSING, questions.ADVFUSION, conclusions.REST]  # each has one phase
    assert [answer.question for answer in answers] == expected
    sentences = [sentence for answer in answers for sentence in answer.sentences]
    assert len(sentences) == len(result.contrasts) and len(set(sentences)) == len(sentences)
    assert "**bottleneck is better than base**" in sentences[0]


@pytest.mark.parametrize("advfusion, text", [
    (method(0.8), "Of 1 difference in pass@1 1 is decided for other seeds, and none on these seeds only"),
    (method(0.4, spread=0.12), "Of 1 difference in pass@1 none is decided for other seeds, and 1 on these seeds only"),
    (method(0.6), "Of 1 difference in pass@1 none is decided"),
])  # fmt: skip
def test_the_tally_counts_every_verdict_once(advfusion, text):
    study = {"adapterfusion": method(0.6), "advfusion_zero": advfusion}
    both = [compared(study, "pass_at_1"), compared(study, "loss")]
    assert conclusions.tally(both) == f"{text}; of 1 difference in the completion loss none is decided."
    assert conclusions.tally(both[1:]) == "Of 1 difference in the completion loss none is decided."
    assert conclusions.tally(both, asked=[]) == "", "a study may ask none of the known questions"


def test_of_two_methods_the_better_one_is_named_first():
    result = compared({"adapterfusion": method(0.3), "adapterfusion~lua": method(0.6)})
    (contrast,) = result.contrasts
    reverse = verdicts.plain(result, contrast.model_copy(update={
        "method": contrast.against, "against": contrast.method, "value": -contrast.value,
        "verdict": contrast.verdict.model_copy(update={"direction": "worse"})}))  # fmt: skip
    assert verdicts.plain(result, contrast) == reverse
    assert reverse.startswith("AdapterFusion (without Lua) is better than AdapterFusion, judged by")
    assert "(+30.0 " in reverse


def test_methods_in_a_sentence_are_no_bare_words():
    assert [verdicts.in_words(label) for label in ("base", "lora", "adapterfusion", "advfusion_exclude, phase 1")] == [
        "the base alone", "the LoRA adapter alone", "AdapterFusion", "AdvFusion (mask exclude, phase 1)"
    ]  # fmt: skip
    assert verdicts.in_words("something else") == "something else"


def test_a_table_of_differences_has_the_verdict_second_and_what_decides_it_next():
    result = compared(STUDY)
    assert list(verdicts.difference_table(result)[0])[:5] == [
        "method \u2212 against", "verdict", "difference",
        "95% interval over rows and seeds", "p over rows and seeds (Holm)",
    ]  # fmt: skip
    assert all(" " not in row["verdict"] for row in verdicts.difference_table(result)), "no verdict breaks"


def test_an_answer_has_three_sentences_and_says_what_other_seeds_could_reverse():
    study = {
        "bottleneck": method(0.1),
        "adapterfusion": method(0.2),
        "adapterfusion~lua": method(0.5),
        "advfusion_none": method(0.4),
        "advfusion_exclude": method(0.6, spread=0.2),
    }
    metrics = {metric: compared(study, metric) for metric in ("pass_at_1", "loss")}
    results = ComparisonResults(main="pass_at_1", metrics=metrics, sources=[], attention=[], cost=[], time=[])
    answer = conclusions.answer(results, "lua")
    assert len(answer) == 3 and not any(word in " ".join(answer) for word in study if "_" in word or "~" in word)
    assert (
        "on these seeds AdvFusion (mask exclude) is better than AdvFusion (two phases without a mask) by" in answer[0]
    )
    assert answer[0].endswith("but others could reverse this.")


def test_parts_of_a_score_stand_beside_it():
    parts = {"ngram_match": 10.0, "syntax_match": 30.0, "dataflow_match": None}
    study = {
        name: renamed(content, "exact_match", "codebleu", label="CodeBLEU", components=parts)
        for name, content in STUDY.items()
    }
    rows = conclusions.component_table(compared(study, "codebleu"))
    assert rows[0] == {"method": "base", "CodeBLEU": "0.0", "ngram match": "10.0", "syntax match": "30.0"}
    assert conclusions.component_table(compared()) == []


def test_a_small_difference_of_text_scores_comes_with_a_caveat():
    def scored(shift: float):
        rng = np.random.default_rng(0)

        def rouge(_):
            values = (50 + shift + rng.normal(0, 1, 200)).tolist()
            value = float(np.mean(values))
            return {"rouge_l": Score(label="ROUGE-L", value=value, per_example=values, signature="r", n=200)}

        return rescored(method(0.4), rouge)

    caveat = "does not show which method people would prefer"
    for shift, expected in ((3, True), (8, False)):
        result = compared({"adapterfusion": scored(0), "lora": scored(shift)}, "rouge_l")
        assert result.contrasts[0].verdict.direction == "better"
        assert (caveat in verdicts.sentence(result, result.contrasts[0])) == expected
    both = compared()
    assert not any(caveat in verdicts.sentence(both, c) for c in both.contrasts), "tests decide, not people"


ONE_GROUP = changed(method(1.0, n=6), groups=["p"] * 6), changed(method(0.0, n=6), groups=["p"] * 6)


@pytest.mark.parametrize("metric", ["pass_at_1", "bleu_paper", "loss"])
@pytest.mark.parametrize("a, b, reason", [
    (method(1.0, n=1), method(0.0, n=1), "A single row does not show"),
    (*ONE_GROUP, "A single cluster of rows does not show"),
    (method(0.4), method(0.4), "No test row distinguishes the two."),
    (method(1.0, seeds=(0,)), method(1.0, seeds=(0,)), "No test row distinguishes the two."),
])  # fmt: skip
def test_too_little_to_compare_gets_a_sentence(a, b, reason, metric):
    result = compared({"adapterfusion": a, "lora": b}, metric)
    contrast = result.contrasts[0]
    assert contrast.verdict.direction == "undecided" and contrast.verdict.p_holm == 1
    assert all(reason in verdicts.sentence(result, one) for one in (contrast, contrast.reversed()))
    assert verdicts.difference_table(result)[0]["verdict"] == "\u25cb\u00a0undecided" and conclusions.score_table(
        result
    )
    assert measured(contrast.reversed().reversed()) == pytest.approx(measured(contrast))


def test_one_method_alone_has_scores_and_nothing_to_compare():
    result = compared({"adapterfusion": method(0.4)})
    assert result.contrasts == [] and conclusions.answers(result) == []
    assert verdicts.difference_caption(result) == ""

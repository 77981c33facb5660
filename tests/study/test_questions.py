"""The questions of a study: a difference is asked for where its sides differ in one thing."""

from __future__ import annotations

import pytest

from studykit.errors import UserError
from studykit.study import methods, parameters, questions
from tests.study.test_plan import planned

WORDS = [
    "base", "bottleneck", "compacter", "lora", "adapterfusion", "adapterfusion-lowrank", "advfusion_none",
    "advfusion_exclude", "advfusion_exclude@go", "adapterfusion~lua", "adapterfusion~go", "adapterfusion^random",
    "adapterfusion-compacter", "advfusion_exclude-compacter", "bottleneck_long", "pooled", "transfer-compacter",
    "average", "scalar_mix-compacter", "average~go",
]  # fmt: skip


def test_every_question_has_the_pairs_that_answer_it():
    assert questions.questions(WORDS, "lua") == {
        questions.ADAPTER: [("bottleneck", "base"), ("compacter", "base")],
        questions.FUSING: [("adapterfusion", "bottleneck"), ("adapterfusion-compacter", "compacter")],
        questions.STRONGER: [
            ("adapterfusion", "bottleneck_long"), ("adapterfusion", "pooled"),
            ("adapterfusion-compacter", "transfer-compacter")],
        questions.SOURCES: [("adapterfusion", "adapterfusion^random")],
        questions.OWN: [("adapterfusion", "adapterfusion~lua")],
        questions.MEMBERS: [("adapterfusion", "adapterfusion~go")],
        questions.SCHEDULE: [("advfusion_none", "adapterfusion")],
        questions.MASK: [("advfusion_exclude", "advfusion_none")],
        questions.PLACEBO_MASK: [("advfusion_exclude", "advfusion_exclude@go")],
        questions.ADVFUSION: [
            ("advfusion_exclude", "adapterfusion"), ("advfusion_exclude-compacter", "adapterfusion-compacter")],
        questions.RESTORING: [
            (f"{word}, phase 1, restored", f"{word}, phase 1")
            for word in ("advfusion_exclude", "advfusion_exclude-compacter")],
        questions.PHASE_2: [
            ("advfusion_none", "advfusion_none, phase 1"),
            *((word, f"{word}, phase 1, restored") for word in ("advfusion_exclude", "advfusion_exclude-compacter"))],
        questions.KIND: [
            ("adapterfusion-compacter", "adapterfusion"), ("advfusion_exclude-compacter", "advfusion_exclude")],
        questions.VARIANT: [("adapterfusion-lowrank", "adapterfusion")],
        questions.RIVALS: [
            ("adapterfusion", "average"), ("adapterfusion~go", "average~go"),
            ("adapterfusion-compacter", "scalar_mix-compacter")],
    }  # fmt: skip


def test_names_for_the_target_mean_the_same():
    assert questions.questions(["adapterfusion", "adapterfusion~target"], "lua") == {
        questions.OWN: [("adapterfusion", "adapterfusion~target")]
    }


def test_fusions_that_differ_in_two_things_are_not_set_against_each_other():
    pairs = [pair for of_one in questions.questions(WORDS, "lua").values() for pair in of_one]
    fusions = [(methods.parse(a), methods.parse(b)) for a, b in pairs if "phase 1" not in a + b and "fusion" in b]
    for a, b in fusions:
        differing = {factor for factor in questions.FACTORS if getattr(a, factor) != getattr(b, factor)}
        assert len(differing - {"name"}) <= 1


@pytest.mark.parametrize("contrasts, said", [
    ([["bottleneck", "bottleneck"]], "each must be a list of two different methods"),
    ([["bottleneck", "average"]], "compare.contrasts names 'average'; it may name base, bottleneck"),
])  # fmt: skip
def test_contrasts_that_a_study_cannot_make_are_told_in_a_sentence(contrasts, said):
    with pytest.raises((UserError, ValueError), match=said):
        planned(compare={"contrasts": contrasts})
    four = [contrasts[0] * 2][:1] if "average" in contrasts[0] else [contrasts[0]]
    about = "interactions names 'average'" if "average" in contrasts[0] else "must be a list of four methods"
    with pytest.raises((UserError, ValueError), match=about):
        planned(compare={"interactions": four})
    allowed = [["advfusion_zero, phase 1, restored", "advfusion_zero"]]
    assert planned(compare={"contrasts": allowed})[-1].params["contrasts"] == allowed
    parameters.check("compare", {"contrasts": allowed})

"""Verdicts in words: no difference prints as 0, and a study that is too small says so."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.evaluation.results import Interval
from studykit.report import verdicts
from tests.evaluation.test_comparison import STUDY, compared
from tests.made_scores import changed, method, scores


@given(st.floats(1e-8, 50), st.floats(1e-8, 50), st.sampled_from(["loss", "pass_at_1"]), st.booleans())
def test_an_interval_that_excludes_0_never_prints_0(a, b, metric, below):
    found = Interval(low=min(a, b), high=max(a, b))
    low, high = verdicts.signed_interval(found.reversed() if below else found, metric).split(" to ")
    assert all(float(text.replace("\u2212", "-")) * (-1 if below else 1) > 0 for text in (low, high))


def test_differences_have_the_digits_of_their_metric():
    assert verdicts.signed(1.66, "pass_at_1") == "+1.7" and verdicts.signed(-0.0324, "loss") == "\u22120.032"
    assert verdicts.signed(0.00042, "loss") == "+0.0004" and verdicts.signed(0.0, "loss") == "0.000"
    assert verdicts.signed(1e-12, "pass_at_1") == "0.0", "a rounding error is no difference"


def test_a_study_says_what_its_size_can_decide():
    five = compared({name: changed(one, groups=[i // 40 for i in range(200)]) for name, one in STUDY.items()})
    (sentence,) = verdicts.limits(five)
    assert "cannot decide anything.** With 5 clusters no p is below 0.062" in sentence
    assert "over 4 differences, one must be below 0.013" in sentence
    assert not any(contrast.verdict.is_decided for contrast in five.contrasts), "and indeed none is"
    (sentence,) = verdicts.limits(compared())
    times = float(re.search(r"at least (.+) times as large as the sd", sentence)[1])
    assert times == pytest.approx(6.7, abs=0.4), "3 seeds at 0.0125: 3.3 at 0.05, and sqrt(4) as much at a fourth"
    one_seed = {name: scores(one.checkpoints[:1]) for name, one in STUDY.items()}
    assert "cannot decide anything about other seeds" in verdicts.limits(compared(one_seed))[0]
    assert verdicts.limits(compared({"adapterfusion": method(0.4)})) == []


def test_every_verdict_that_a_study_can_give_is_explained():
    without, within = verdicts.verdict_meanings(compared()), verdicts.verdict_meanings(compared(margin=2.0))
    assert "at most 0.05" in without and "On these seeds only" in without and "Equivalent" not in without
    assert "“Equivalent within 2” means" in within

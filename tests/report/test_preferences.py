"""What people preferred, in words: numbers of the record and no others, no rater in a sentence, every table complete."""

from __future__ import annotations

from studykit.evaluation.preferences import MethodPreference, Preferences, Preferred, Rater, Tally
from studykit.evaluation.results import Interval
from studykit.report import figures
from studykit.report import preferences as words

HOSTILE = "<b>bob</b> **x**"


def method(name: str, share: float) -> MethodPreference:
    interval = Interval(low=share - 9, high=share + 9)
    return MethodPreference(method=name, strength=0.0, share=share, interval=interval, judgements=20)


def against(name: str, share: float, verdict: str) -> Preferred:
    interval = Interval(low=share - 9, high=share + 9)
    return Preferred(method=name, share=share, interval=interval, p_holm=0.012, verdict=verdict)


FOUND = Preferences(
    baseline="lora",
    confidence=0.95,
    methods=[method("base", 20.0), method("lora", 50.0), method("bottleneck", 71.0), method("full", 52.0)],
    contrasts=[
        against("base", 22.0, "worse"),
        against("bottleneck", 73.0, "better"),
        against("full", 51.0, "undecided"),
    ],
    tallies=[Tally(method="base", against="lora", wins=1, ties=2, losses=7, alike=1)],
    raters=[
        Rater(rater="alice", pairs=12, ties=2, repeated=2, consistent=1, left=60.0, seconds=7.25),
        Rater(rater=HOSTILE, pairs=11, ties=11, repeated=1, consistent=1, left=None, seconds=3.0),
    ],
    shown=12,
    clusters=9,
    alpha=0.345,
    shared=11,
    connected=True,
    outdated=3,
)


def test_sentences_hold_verdicts_and_agreement_and_name_no_rater():
    text = "\n".join([*words.sentences(FOUND), *words.limits(FOUND)])
    assert (
        "2 raters compared 12 pairs" in text
        and "**bottleneck** is preferred to another method most often: in 71 %" in text
    )
    assert "**bottleneck is preferred** to lora: in 73 % of comparisons (64 to 82 %; p = 0.012" in text
    assert "**base is not preferred** to lora" in text and "do not decide between lora and full." in text
    assert "alpha between raters is **0.34** over 11 pairs" in text or "**0.35**" in text
    assert "the same choice in 2 of 3 cases" in text and "3 rated pairs do not count" in text
    assert "alice" not in text and "bob" not in text and "They resample the raters too" in text


def test_one_rater_and_methods_apart_are_said_to_be_so():
    alone = FOUND.model_copy(update={"raters": FOUND.raters[:1], "alpha": None, "connected": False, "outdated": 0})
    text = "\n".join([*words.sentences(alone), *words.limits(alone)])
    assert "1 rater compared" in text and "One rater cannot show whether people agree" in text
    assert "Not all methods were compared" in text and "of one rater" in text and "do not count" not in text


def test_tables_show_both_sides_and_each_rater():
    lines = {line["method"]: line for line in words.tally_table(FOUND)}
    assert lines["base"]["lora"] == "1 / 2 / 7" and lines["lora"]["base"] == "7 / 2 / 1"
    assert lines["full"]["base"] is lines["base"]["base"] is None and "1 tie of equal texts is" in words.tally_caption(
        FOUND
    )
    assert [row["rater"] for row in words.rater_table(FOUND)] == ["alice", HOSTILE]
    assert [row["left (%)"] for row in words.rater_table(FOUND)] == [60, None]


def test_the_figure_orders_methods_and_says_what_it_shows():
    figure = figures.preferences(FOUND, looks=figures.method_looks(["base", "lora", "bottleneck", "full"]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ["bottleneck" in labels[0], "full" in labels[1], "lora" in labels[2], "base" in labels[3]] == [True] * 4
    assert (
        "bottleneck 71 % (62 to 80 %)" in figure.alt
        and "9 rows or groups of dependent rows and 2 raters" in figure.caption
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "baseline" in texts and "\u25b3 preferred" in texts and "<svg" in figures.svg(figure)

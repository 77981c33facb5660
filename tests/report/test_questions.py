"""The grid of questions: every difference once in each measure, drawn where it lies, and legible whatever the study."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Annotation

from studykit.report import conclusions, verdicts
from studykit.report.figures import questions, style
from tests.evaluation.test_comparison import STUDY, compared
from tests.made_scores import method

METRICS = ("pass_at_1", "loss")
MANY = {"base": method(0.1, seeds=(None,)), "bottleneck": method(0.3), "lora": method(0.31)} | {
    word: method(0.3 + 0.02 * i, spread=0.01 * i, loss=1 - 0.03 * i, rng_seed=i)
    for i, word in enumerate((
        "adapterfusion", "adapterfusion-lora", "adapterfusion~lua", "adapterfusion~java", "adapterfusion^random",
        "advfusion_none", "advfusion_zero", "advfusion_exclude", "advfusion_exclude-lora", "advfusion_exclude@java",
    ))
}  # fmt: skip
STUDIES = {"several": STUDY, "many": MANY}


def judged(study, metrics=METRICS):
    return [compared(study, metric, resamples=8000) for metric in metrics]


def drawn(study, metrics=METRICS):
    by = judged(study, metrics)
    looks = style.method_looks(study)
    return by, questions.question_grid(by, looks=looks), looks


def pairs(one):
    return [contrast for contrasts in conclusions.by_question(one).values() for contrast in contrasts]


def lines(axes, width):
    """The horizontal lines of one width, as (y, low, high)."""
    found = [line for line in axes.lines if line.get_linewidth() == width and line.get_marker() == "None"]
    return [(line.get_ydata()[0], *line.get_xdata()) for line in found if line.get_ydata()[0] == line.get_ydata()[-1]]


@pytest.mark.parametrize("study", STUDIES)
def test_each_difference_has_a_row_with_its_intervals_marker_and_verdict_in_every_measure(study):
    by, figure, looks = drawn(STUDIES[study])
    assert len(figure.axes) == len(by)
    for axes, one in zip(figure.axes, by, strict=True):
        low, high = axes.get_xlim()
        markers = [(line.get_ydata()[0], line) for line in axes.lines if line.get_markeredgewidth() in (0.8, 1.8)]
        rows, thick, thin = sorted(markers, key=lambda row: row[0]), sorted(lines(axes, 3.2)), sorted(lines(axes, 1.1))
        inside = [contrast for contrast in pairs(one) if low <= contrast.value <= high]
        np.testing.assert_allclose([line.get_xdata()[0] for _, line in rows], [c.value for c in inside])
        assert low < 0 < high and len(inside) >= len(pairs(one)) - 2, "only what is far from the rest is an arrow"
        for contrast, (y, line) in zip(inside, rows, strict=True):
            look = style.look_of(contrast.method, looks)
            assert (line.get_color(), line.get_marker()) == (look.colour, look.marker)
            for bounds, drawn_lines in ((contrast.interval, thick), (contrast.overall_interval, thin)):
                ends = [ends for at, *ends in drawn_lines if at == y]
                expected = [np.clip((bounds.low, bounds.high), low, high)] if bounds else []
                np.testing.assert_allclose(ends, expected)
        written = [text.get_text().replace(",\n", ", ") for text in axes.texts]
        for contrast in pairs(one):
            assert verdicts.signed(contrast.value, one.metric) in written
        signs = sorted(text for text in written if text[0] in "\u25b2\u25b3\u25bc\u25bd\u25cb\u2261")
        assert signs == sorted(verdicts.verdict_sign(contrast.verdict) for contrast in pairs(one))


@pytest.mark.parametrize("study", STUDIES)
def test_no_text_of_the_grid_covers_another_or_leaves_the_picture(study):
    _, figure, _ = drawn(STUDIES[study])
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    texts = [text for axes in figure.axes for text in axes.texts if isinstance(text, Annotation)]
    boxes = [text.get_window_extent().padded(-0.5) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text.get_text()
        assert text.get_fontsize() >= 8
    assert not [(a, b) for (a, one), (b, two) in combinations(zip(texts, boxes, strict=True), 2) if one.overlaps(two)]


def test_one_seed_has_no_thin_lines_and_the_caption_says_why():
    alone = {word: method(0.3 + 0.1 * i, seeds=(0,)) for i, word in enumerate(("bottleneck", "adapterfusion"))}
    _, figure, _ = drawn(alone)
    assert lines(figure.axes[0], 3.2) and not lines(figure.axes[0], 1.1)
    assert "over test rows alone, as there is one seed" in figure.caption and figure.caption.endswith("1 seed.")


def test_a_study_with_one_measure_has_one_column_as_wide_as_two():
    _, two, _ = drawn(STUDY)
    _, one, _ = drawn(STUDY, ("loss",))
    assert len(one.axes) == 1 and one.axes[0].get_position().width > 2 * two.axes[0].get_position().width
    assert "Completion loss" in {text.get_text() for text in one.axes[0].texts}


def test_what_lies_far_away_or_reaches_far_does_not_squeeze_the_rest():
    one = compared(STUDY)
    base = next(contrast for contrast in one.contrasts if contrast.against == "base")
    near = [contrast for contrast in pairs(one) if contrast is not base]
    wide = base.interval.model_copy(update={"low": -1e4, "high": 1e4})
    near = [contrast.model_copy(update={"overall_interval": wide}) for contrast in near]
    far = base.model_copy(update={"value": 1e5})
    low, high = questions._limits([far, *near])
    rows = [end for contrast in near for end in (contrast.interval.low, contrast.interval.high, 0)]
    span = max(rows) - min(rows)
    assert low < min(rows) and max(rows) < high and high - low < 3 * span
    compared_far = one.model_copy(update={"contrasts": [far, *near]})
    figure = questions.question_grid([compared_far])
    assert {line.get_marker() for line in figure.axes[0].lines} >= {"<", ">"}
    assert "Arrows point beyond an edge" in figure.caption


def test_alternative_text_and_caption_hold_the_numbers_and_begin_with_what_was_found():
    by, figure, _ = drawn(STUDY)
    for one in by:
        for contrast in pairs(one):
            value = verdicts.signed(contrast.value, one.metric)
            where = verdicts.metric_in_sentence(one)
            assert f"{contrast.method} \u2212 {contrast.against} {value} in {where}" in figure.alt
    assert figure.caption.startswith(conclusions.tally(by)) and figure.caption.endswith("n = 200 test rows, 3 seeds.")


def test_many_questions_are_parted_into_figures_that_fit_a_page(monkeypatch):
    by = judged(MANY, ("loss",))
    asked = list(conclusions.by_question(by[0]))
    assert questions.question_parts(by) == [asked]
    monkeypatch.setattr(questions, "TALLEST", 3.0)
    parts = questions.question_parts(by)
    assert len(parts) > 1 and [question for part in parts for question in part] == asked
    figures = [questions.question_grid(by, part) for part in parts]
    assert all(figure.get_figheight() <= 3.0 + questions.HEAD + questions.FOOT for figure in figures)
    assert sum(figure.alt.count("in the completion loss") for figure in figures) == len(pairs(by[0]))
    assert all(sum(question in figure.alt for figure in figures) == 1 for question in asked)


def test_two_states_of_a_method_have_its_name_once():
    assert questions._pair_in_lines("lora", "base") == "lora\n\u2212 base"
    assert questions._pair_in_lines("adapterfusion", "adapterfusion^random") == (
        "adapterfusion\n\u2212 adapterfusion\n  ^random"
    )
    restored, after = "advfusion_zero, phase 1, restored", "advfusion_zero, phase 1"
    assert questions._pair_in_lines(restored, after) == "advfusion_zero:\nrestored \u2212 phase 1"
    assert questions._pair_in_lines("advfusion_zero", restored) == "advfusion_zero:\nfinished \u2212 restored"

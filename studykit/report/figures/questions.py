"""The grid of a study's questions: a row per question, a column per measure that judges, a small forest plot in a cell.

A cell holds the paired differences that answer its question. All cells of a column share one scale and the vertical
line of no difference, so that large and small differences can be told apart down the page.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studykit.evaluation.metrics.properties import less_is_better
from studykit.evaluation.results import Contrast, MetricComparison
from studykit.report.conclusions import by_question, tally
from studykit.report.figures.forest import FAR
from studykit.report.figures.style import (
    GREY,
    WIDTH,
    Look,
    look_of,
    marker_style,
    new_figure,
    styled,
    verdict_colour,
)
from studykit.report.verdicts import (
    difference_unit,
    metric_in_sentence,
    sample_size,
    signed,
    signed_interval,
    verdict_sign,
)
from studykit.runs.text import plural
from studykit.study.methods import PHASE_1

# Inches of the figure. The columns of text are as wide as they need to be, and the plots share what is left.
PAIRS_AT, CELLS_AT = 1.86, 3.14  # where the names of the methods and the first cell begin
VALUE, CHIP = 0.43, 0.95  # what a cell keeps at its right edge for the difference and for the verdict
LINE, ROW, GAP = 0.142, 0.33, 0.07  # heights of a line of text, of a difference, and between two questions
TALLEST = 10.0  # of the questions in one figure: with its caption it fits on a printed page
HEAD, FOOT = 0.38, 0.4  # above the first question, and below the last
ARROW = 0.06  # half of an arrow at the edge of a plot
QUESTION_WIDTH = 27  # characters of a line of a question
PAIR_WIDTH = 20  # characters of a line of a pair
REACH = 0.6  # intervals over rows and seeds are cut that reach further than this share beyond the other ends
TINT = 0.12  # opacity of a chip's ground, which is seen on white and on black


@dataclass
class Question:
    """One question of the grid, and where it stands, in inches below the head."""

    text: str
    top: float
    bottom: float
    rows: dict[tuple[str, str], float]  # the middle of each row, by its two methods

    @property
    def middle(self) -> float:
        """Returns where its text is centred."""
        return (self.top + self.bottom) / 2


def question_parts(judged_by: Sequence[MetricComparison]) -> list[list[str]]:
    """Returns the questions that a study answers in parts for one figure each, of which most studies have one."""
    parts: list[list[str]] = []
    top = 0.0
    for question in _placed(judged_by):
        if not parts or question.bottom - top > TALLEST:
            parts.append([])
            top = question.top
        parts[-1].append(question.text)
    return parts


@styled
def question_grid(
    judged_by: Sequence[MetricComparison],
    asked: Sequence[str] | None = None,
    *,
    looks: Mapping[str, Look] | None = None,
) -> tuple[Figure, str, str]:
    """Draws the paired differences that answer each question, by every metric that judges.

        for part in question_parts(results.judged_by):
            question_grid(results.judged_by, part, looks=looks)

    A line is the difference between two methods in the look of the first one: a marker at the difference, the interval
    over test rows (thick), that over rows and seeds (thin), and at the right edge the verdict as a chip.

    Args:
        judged_by: the comparisons by the metrics that judge. At least one must answer a question.
        asked: the questions of the figure; None: all.
        looks: colours and markers by method, see `style.method_looks`.
    """
    placed = _placed(judged_by, asked)
    below = placed[-1].bottom  # inches from the head to the foot
    figure, grid = new_figure(1, len(judged_by), height=HEAD + below + FOOT)
    figure.set_layout_engine("none")
    height, each = figure.get_figheight(), (WIDTH - CELLS_AT) / len(judged_by)
    cut = False
    for column, (axes, compared) in enumerate(zip(grid[0], judged_by, strict=True)):
        width = each - VALUE - CHIP - ARROW
        axes.set_position((
            (CELLS_AT + column * each) / WIDTH, FOOT / height, width / WIDTH, below / height,
        ))  # fmt: skip
        cut |= _draw_column(axes, compared, placed, looks)
    _write_questions(grid[0, 0], placed)
    for axes in grid[0]:
        axes.set_ylim(below, 0)
    sizes = {metric_in_sentence(one): sample_size(one.summaries[0], "test row") for one in judged_by}
    alike = len(set(sizes.values())) == 1
    rows = next(iter(sizes.values())) if alike else ", ".join(f"{size} for {name}" for name, size in sizes.items())
    about = f"n = {rows}, {plural(judged_by[0].seeds, 'seed')}"
    alt = f"Differences that answer {plural(len(placed), 'question')}, {about}: {_in_words(placed, judged_by)}."
    return figure, alt, f"{tally(judged_by, asked)} {_how_to_read(judged_by, cut)} {about}."


def _placed(judged_by: Sequence[MetricComparison], asked: Sequence[str] | None = None) -> list[Question]:
    """Returns the questions in their order with the pairs that answer them, placed from the top downwards."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for compared in judged_by:
        for text, contrasts in by_question(compared).items():
            if asked is not None and text not in asked:
                continue
            of_question = pairs.setdefault(text, [])
            of_question += [(c.method, c.against) for c in contrasts if (c.method, c.against) not in of_question]
    placed, top = [], 0.0
    for text, of_question in pairs.items():
        heights = [max(ROW, LINE * (0.5 + _pair_in_lines(*pair).count("\n"))) for pair in of_question]
        bottom = top + max(len(textwrap.wrap(text, QUESTION_WIDTH)) * LINE, sum(heights)) + GAP
        first = (top + bottom - sum(heights)) / 2
        middles = (first + sum(heights[:i]) + height / 2 for i, height in enumerate(heights))
        placed.append(Question(text, top, bottom, dict(zip(of_question, middles, strict=True))))
        top = bottom
    return placed


def _draw_column(
    axes: Axes, compared: MetricComparison, asked: Sequence[Question], looks: Mapping[str, Look] | None
) -> bool:
    """Draws the cells of one metric; returns whether an interval or a difference reaches beyond them."""
    drawn = [(y, compared.contrast(*pair)) for question in asked for pair, y in question.rows.items()]
    found = [contrast for _, contrast in drawn if contrast]
    low, high = _limits(found)
    axes.set_xlim(low, high)
    axes.axvline(0, color=GREY, linewidth=1.0)
    for question in asked[1:]:
        axes.axhline(question.top, color="#dddddd", linewidth=0.6)
    cut = False
    for y, contrast in drawn:
        if contrast:  # None where a phase was not measured by this metric
            cut |= _draw_difference(axes, y, contrast, look_of(contrast.method, looks))
            _write_verdict(axes, y, contrast, compared)
    left = less_is_better(compared.metric)
    name = metric_in_sentence(compared).removeprefix("the ")
    title = f"{name[0].upper()}{name[1:]}" if compared.metric == "loss" else name
    side, text = ("left", "\u25c4 left is better") if left else ("right", "right is better \u25ba")
    _write(axes, 0, -0.27, title, weight="bold", size=9)
    _write(axes, 0, -0.09, text, color=GREY, size=8)
    axes.set(xlabel=f"difference ({difference_unit(compared)})", yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="x", labelsize=8)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return cut


def _limits(contrasts: Sequence[Contrast]) -> tuple[float, float]:
    """Returns the ends of a scale that holds 0 and all differences, without the base's where it lies far away."""
    far = [contrast for contrast in contrasts if contrast.against == "base"]
    near = [contrast for contrast in contrasts if contrast.against != "base"]
    low, high = _ends(near or far)
    span = high - low or 1.0
    for contrast in far if near else []:
        if low - FAR * span <= contrast.value <= high + FAR * span:
            low, high = (min(low, _ends([contrast])[0]), max(high, _ends([contrast])[1]))
    span, shown = high - low or 1.0, [c for c in contrasts if low <= c.value <= high]
    wide = [end for c in shown if c.overall_interval for end in (c.overall_interval.low, c.overall_interval.high)]
    low, high = (
        max(min([low, *wide]), low - REACH * span),
        min(max([high, *wide]), high + REACH * span),
    )
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _ends(contrasts: Sequence[Contrast]) -> tuple[float, float]:
    """Returns the least and the largest of 0, the differences, and the ends of their intervals over rows."""
    ends = [0.0, *(contrast.value for contrast in contrasts)]
    ends += [end for c in contrasts if c.interval for end in (c.interval.low, c.interval.high)]
    return min(ends), max(ends)


def _draw_difference(axes: Axes, y: float, contrast: Contrast, look: Look) -> bool:
    """Draws one difference; returns whether a part of it lies beyond the scale, where an arrow points to it."""
    low, high = axes.get_xlim()
    beyond = set()
    for bounds, width in ((contrast.overall_interval, 1.1), (contrast.interval, 3.2)):
        if bounds and bounds.low < high and bounds.high > low:
            ends = (max(bounds.low, low), min(bounds.high, high))
            axes.plot(ends, (y, y), color=look.colour, linewidth=width, solid_capstyle="butt")
            beyond |= {end for end, is_cut in ((low, bounds.low < low), (high, bounds.high > high)) if is_cut}
    if low <= contrast.value <= high:
        axes.plot(contrast.value, y, zorder=4, **marker_style(look, size=5.5))
    else:
        beyond = {low if contrast.value < low else high}
    for end in beyond:
        arrow = "<" if end == low else ">"
        axes.plot(end, y, arrow, color=look.colour, markersize=5, clip_on=False, zorder=3)
    return bool(beyond)


def _write_verdict(axes: Axes, y: float, contrast: Contrast, compared: MetricComparison) -> None:
    """Writes a difference and its verdict at the right edge of a cell."""
    colour = verdict_colour(contrast.verdict)
    _write(axes, ARROW + VALUE, y, signed(contrast.value, compared.metric), edge=1, size=8, ha="right")
    ground = {"boxstyle": "round,pad=0.22", "facecolor": (colour, TINT), "edgecolor": "none"}
    words = verdict_sign(contrast.verdict).replace(", ", ",\n")
    _write(axes, ARROW + VALUE + 0.07, y, words, edge=1, size=8, color=colour, bbox=ground, linespacing=1.05)


def _write_questions(axes: Axes, asked: Sequence[Question]) -> None:
    """Writes the questions and their pairs of methods at the left of the first column."""
    for question in asked:
        _write(axes, 0.03 - CELLS_AT, question.middle, textwrap.fill(question.text, QUESTION_WIDTH), size=8.5)
        for pair, y in question.rows.items():
            _write(axes, PAIRS_AT - CELLS_AT, y, _pair_in_lines(*pair), size=8, color=GREY, linespacing=1.05)


def _pair_in_lines(method: str, against: str) -> str:
    """Returns a difference in two lines or more; two states of one method have its name once.

    "advfusion_zero, phase 1, restored" − "advfusion_zero, phase 1" is "advfusion_zero:" above "restored − phase 1".
    """
    (name, *state), (other, *before) = method.split(", ", 1), against.split(", ", 1)
    lines = [method, f"\u2212 {against}"]
    if name == other:
        after, first = (
            "".join(one).removeprefix(f"{PHASE_1.title}, ") or "finished" for one in (state, before)
        )  # fmt: skip
        lines = [f"{name}:", f"{after} \u2212 {first}"]
    return "\n".join(short for line in lines for short in _broken(line))


def _broken(line: str) -> list[str]:
    """Returns a line in pieces of at most PAIR_WIDTH characters, broken before the signs of a method's word."""
    pieces = [""]
    for part in re.split(r"(?=[~^@-])", line):
        if pieces[-1] and len(pieces[-1] + part) > PAIR_WIDTH:
            pieces.append("  ")
        pieces[-1] += part
    return [short for piece in pieces for short in textwrap.wrap(piece, PAIR_WIDTH, break_on_hyphens=False)]


def _write(axes: Axes, x: float, y: float, text: str, *, edge: int = 0, **style: Any) -> None:
    """Writes a text, x inches from the left (`edge` 0) or right (1) edge of the cells and y inches below the head."""
    options: dict[str, Any] = {"ha": "left", "va": "center", "annotation_clip": False} | style
    axes.annotate(
        text, (edge, y), (72 * x, 0), xycoords=("axes fraction", "data"), textcoords="offset points", **options
    )


def _how_to_read(judged_by: Sequence[MetricComparison], cut: bool) -> str:
    """Returns the part of the caption that explains lines, markers and verdicts."""
    thin = any(contrast.overall_interval for one in judged_by for contrast in one.contrasts)
    both = "thick over test rows, thin over rows and seeds" if thin else "over test rows alone, as there is one seed"
    return (
        "Rows are differences, the first method minus the second, in the look of the first. "
        f"{judged_by[0].confidence:.0%} intervals, not corrected for many comparisons: {both}. "
        f"{'Arrows point beyond an edge. ' * cut}Other seeds could reverse “these seeds”."
    )


def _in_words(asked: Sequence[Question], judged_by: Sequence[MetricComparison]) -> str:
    """Returns all differences with their intervals and verdicts, question by question, for the alternative text."""
    parts = []
    for question in asked:
        found = [(one, one.contrast(*pair)) for pair in question.rows for one in judged_by]
        differences = "; ".join(
            f"{c.method} \u2212 {c.against} {signed(c.value, one.metric)} in {metric_in_sentence(one)} "
            f"({signed_interval(c.interval, one.metric)}, {c.verdict})"
            for one, c in found
            if c
        )
        parts.append(f"{question.text} {differences}")
    return ". ".join(parts)

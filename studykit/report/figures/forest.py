"""The forest plot: every method of a comparison on one axis, with both intervals, seeds, phases and verdicts.

The intervals are those of the paired difference from the baseline, drawn around the score: where a line crosses the
dotted line of the baseline, the difference may be 0. A score's own interval would not show this, since easy and hard
test rows move all methods alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from studykit.evaluation.metrics.properties import format_score, less_is_better, limits
from studykit.evaluation.results import Contrast, MethodSummary, MetricComparison
from studykit.report.figures.style import (
    GREY,
    Look,
    look_of,
    marker_style,
    method_rows,
    new_figure,
    styled,
    verdict_colour,
)
from studykit.report.verdicts import p_text, signed, signed_interval, verdict_sign
from studykit.runs.text import plural

FAR = 0.75  # what lies further from the rest than this share of their range is drawn at the edge
EDGE = 0.69  # where the axes end, in widths of the figure
COLUMNS = {"difference": 0.7, "p": 0.785, "verdict": 0.84}  # x of the columns at the right, in widths of the figure


@styled
def forest(
    compared: MetricComparison, *, looks: Mapping[str, Look] | None = None, message: str = ""
) -> tuple[Figure, str, str]:
    """Draws the scores of all methods by one metric, and what is known of their differences from the baseline.

    A row holds the mean of a method over its seeds, one tick per seed, the interval over test rows (thick) and that
    over rows and seeds (thin), and at the right edge the difference, its corrected p and the verdict. Above the mean
    of AdvFusion, a hollow marker is its phase 1, and an arrow leads to the finished fusion.

    Args:
        looks: colours and markers by method, see `style.method_looks`.
        message: what the figure shows, in a sentence with which the caption begins.
    """
    rows, cut = [row for row in compared.summaries if row.final], False
    names, row_height = method_rows(row.method for row in rows)
    figure, grid = new_figure(height=1.0 + row_height * len(rows))
    axes: Axes = grid[0, 0]
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, EDGE, 1))
    bounds = limits(compared.metric)
    low, high = _limits(compared, rows, bounds)
    baseline = compared.summary(compared.baseline)
    axes.axvline(baseline.mean, color=GREY, linewidth=1.0, linestyle=":")
    for y, row in enumerate(rows):
        look = look_of(row.method, looks)
        contrast = compared.contrast(row.method, compared.baseline) if row is not baseline else None
        if low <= row.mean <= high:
            cut |= _draw_row(axes, y, row, contrast, look, bounds)
            _draw_phases(axes, y, row, compared, looks)
        else:  # an arrow to where it is
            at, sign = (low, "\u25c4 ") if row.mean < low else (high, "\u25ba ")
            text = sign + format_score(row.mean, compared.metric)
            axes.text(at, y, text, ha="left" if at == low else "right", va="center", color=look.colour)
        _write_edge(axes, y, contrast, compared)
    for name, x in COLUMNS.items():
        _write(axes, x, -0.72, name, color=GREY)
    better = "left" if less_is_better(compared.metric) else "right"
    axes.set_yticks(range(len(rows)), names)
    axes.set(xlim=(low, high), ylim=(len(rows) - 0.45, -0.95), xlabel=f"{compared.label} ({compared.unit})")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    about = f"n = {baseline.n} test rows, {plural(compared.seeds, 'seed')}"
    values = "; ".join(_in_words(row, compared) for row in rows)
    alt = f"{compared.label} ({compared.unit}) of {len(rows)} methods, {about}: {values}."
    phases = " Hollow: after phase 1; dot: the target's adapter restored; the arrow leads to the finished fusion." * (
        len(rows) < len(compared.summaries)
    )
    how = ", cut where no score can be" * cut
    caption = (
        f"{message} {better.capitalize()} is better; the dotted line is {compared.baseline}, from which the "
        f"differences are taken. Lines are {compared.confidence:.0%} intervals of that difference, drawn around the "
        f"score{how}, and not corrected for many comparisons: thick over test rows, thin over rows and seeds. Ticks "
        f"are seeds.{phases} p is over rows and seeds, after Holm's correction; “these seeds” is a verdict that others "
        f"could reverse. {about}."
    )
    return figure, alt, caption.strip()


def _limits(
    compared: MetricComparison, rows: Sequence[MethodSummary], bounds: tuple[float, float]
) -> tuple[float, float]:
    """Returns the ends of the axis: all that is drawn, without a base that lies far from the other methods."""
    ends: dict[str, list[float]] = {}
    for row in compared.summaries:
        ends.setdefault(row.method if row.final else "", []).extend([row.mean, *row.points])
        contrast = compared.contrast(row.method, compared.baseline) if row.final else None
        known = [one for one in (contrast.interval, contrast.overall_interval) if one] if contrast else []
        for bound in known:  # an interval over few seeds may be as wide as the page: its ends are cut
            ends[row.method] += [row.mean - contrast.value + end for end in (bound.low, bound.high)]  # type: ignore[union-attr]
    seen = [row.mean for row in rows] + [point for row in rows for point in row.points]
    others = [end for name, some in ends.items() if name != "base" for end in some] or seen
    reach = max(max(seen) - min(seen), 1e-9)
    low, high = max(min(others), min(seen) - reach), min(max(others), max(seen) + reach)
    if base := ends.get("base"):
        span = high - low or 1.0
        if low - FAR * span <= base[0] <= high + FAR * span:
            low, high = min(low, base[0]), max(high, base[0])
    low, high = max(low, bounds[0]), min(high, bounds[1])
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _draw_row(
    axes: Axes, y: float, row: MethodSummary, contrast: Contrast | None, look: Look, bounds: tuple[float, float]
) -> bool:
    """Draws intervals, seeds and mean of a method, and returns whether an interval reaches where no score can be."""
    cut = False
    if contrast:
        shift = row.mean - contrast.value  # the mean of the baseline over the seeds that both have
        for interval, width in ((contrast.overall_interval, 1.1), (contrast.interval, 3.2)):
            if interval:
                whole = (shift + interval.low, shift + interval.high)
                ends = np.clip(whole, *bounds)
                cut |= tuple(ends) != whole
                axes.plot(ends, (y, y), color=look.colour, linewidth=width, solid_capstyle="butt")
    axes.plot(row.points, np.full(len(row.points), y + 0.24), "|", color=look.colour, markersize=6, markeredgewidth=1.2)
    axes.plot(row.mean, y, zorder=4, **marker_style(look))
    return cut


def _draw_phases(
    axes: Axes, y: float, row: MethodSummary, compared: MetricComparison, looks: Mapping[str, Look] | None
) -> None:
    """Draws the way from phase 1, and from phase 1 with its member restored, to the finished fusion."""
    earlier = [one for one in compared.summaries if not one.final and one.method.startswith(f"{row.method}, ")]
    means = [one.mean for one in earlier]
    if not means:
        return
    look, above = look_of(earlier[0].method, looks), y - 0.3
    axes.plot(means, np.full(len(means), above), color=look.colour, linewidth=0.9)
    arrow = {"arrowstyle": "->", "color": look.colour, "linewidth": 0.9, "shrinkB": 4}
    axes.annotate("", xy=(row.mean, y), xytext=(means[-1], above), arrowprops=arrow)
    axes.plot(means[0], above, zorder=4, **marker_style(look, size=7))
    axes.plot(means[1:], np.full(len(means) - 1, above), ".", color=look.colour, markersize=4)


def _write_edge(axes: Axes, y: float, contrast: Contrast | None, compared: MetricComparison) -> None:
    """Writes difference, p and verdict at the right of a row."""
    if contrast is None:
        _write(axes, COLUMNS["difference"], y, "baseline", color=GREY)
        return
    _write(axes, COLUMNS["difference"], y, signed(contrast.value, compared.metric))
    _write(axes, COLUMNS["p"], y, p_text(contrast.verdict.p_overall).removeprefix("= "))
    _write(axes, COLUMNS["verdict"], y, verdict_sign(contrast.verdict), color=verdict_colour(contrast.verdict))


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Writes a text in a column: x in widths of the figure, y in rows."""
    across = axes.get_figure().transFigure  # type: ignore[union-attr]
    place = blended_transform_factory(across, axes.transData)
    axes.text(x, y, text, transform=place, va="center", fontsize=8.5, **style).set_in_layout(False)


def _in_words(row: MethodSummary, compared: MetricComparison) -> str:
    metric = compared.metric
    text = f"{row.method} {format_score(row.mean, metric)}"
    contrast = compared.contrast(row.method, compared.baseline) if row.method != compared.baseline else None
    if contrast is None:
        return text
    return (
        f"{text} ({signed(contrast.value, metric)}, {signed_interval(contrast.interval, metric)}, {contrast.verdict})"
    )

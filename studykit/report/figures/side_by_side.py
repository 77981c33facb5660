"""Figures of a family: the scores of all methods in every study, and all pooled differences in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studykit.evaluation.gathered import GatheredResults
from studykit.evaluation.metrics.properties import less_is_better
from studykit.evaluation.results import MethodSummary, MetricComparison
from studykit.report.figures.style import BAD, GOOD, GREY, WIDTH, Look, look_of, marker_style, new_figure, styled
from studykit.report.pooled import pair, unit
from studykit.report.side_by_side import StudyScores, leads, methods_of, metrics_of, states_of
from studykit.report.verdicts import signed
from studykit.runs.text import plural
from studykit.study.gather_parameters import Level
from studykit.study.methods import parse

MOST_LINES = 8  # methods that are drawn as lines; more are rows of dots
MOST_PANELS = 6  # studies side by side as panels of dots
MOST_ROWS = 4  # combinations of the other keys with panels of their own; over more, scores are averaged
CHARACTER = 0.075  # inches of width of a label of the axis
PAIR_WIDTH = 34  # characters of a line of a difference's name
REACH = 2.5  # an interval is cut that reaches further than so many times the largest difference


@styled
def scores_by_study(
    studies: Sequence[StudyScores], key: str, *, looks: Mapping[str, Look] | None = None
) -> tuple[Figure, str, str]:
    """Draws the mean score of every method in every study, by all metrics that judge.

    Few methods are lines along the values of a key, with a row of panels for each combination of the other keys. Many
    methods in few studies, and few studies that are judged by unlike metrics, are rows of dots, with a panel per study.

    Args:
        key: what varies along a line: the first key over which the family is gathered.
        looks: colours and markers by method, see `style.method_looks`.
    """
    mains = {study.judged_by[0].metric for study in studies}
    as_dots = len(studies) <= MOST_PANELS and (len(methods_of(studies)) > MOST_LINES or len(mains) > 1)
    as_dots |= not any(all(study.by(metric) for study in studies) for metric in metrics_of(studies))
    figure, how = _dots(studies, looks) if as_dots else _lines(studies, key, looks)
    means = "; ".join(
        f"{study.study}: {', '.join(f'{row.method} {row.mean:.3g}' for row in compared.summaries if row.final)}"
        for study in studies
        for compared in study.judged_by[:1]
    )
    alt = f"Scores of {plural(len(methods_of(studies)), 'method')} in {len(studies)} studies. {means}."
    return figure, alt, f"{' '.join(leads(studies)).replace('**', '')} {how}"


def _lines(studies: Sequence[StudyScores], key: str, looks: Mapping[str, Look] | None) -> tuple[Figure, str]:
    """Draws lines of methods along the values of a key; returns how they are read, too."""
    methods = methods_of(studies)[:MOST_LINES]
    rows = _rows(studies, key)
    metrics = [one for one in metrics_of(studies) if all(study.by(one) for study in studies)]
    levels = list(dict.fromkeys(study.levels.get(key) for study in studies))
    room = max(4, int((WIDTH - 1.5) / len(metrics) / len(levels) / CHARACTER))
    names = [textwrap.fill(str(level), room, break_long_words=False) for level in levels]
    lines = max(name.count("\n") + 1 for name in names)
    height = 0.75 + 0.25 * -(-len(methods) // 3) + len(rows) * (1.75 + 0.13 * lines)
    figure, grid = new_figure(len(rows), len(metrics), height=height, sharex=True)
    for at, (title, members) in enumerate(rows.items()):
        for metric, axes in zip(metrics, grid[at], strict=True):
            compared = [study.by(metric) for study in members]
            places = [levels.index(study.levels.get(key)) for study in members]
            _draw_lines(axes, methods, [one for one in compared if one], places, looks)
            axes.set(ylabel=f"{compared[0].label}\n({compared[0].unit})" if compared[0] else "", title=title)
            axes.set_xticks(range(len(levels)), names)
            axes.grid(axis="y")
    for axes in grid[-1]:
        axes.set_xlabel(key)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)))
    fewer = f"Of {len(methods_of(studies))} methods {MOST_LINES} are drawn. " * (len(methods_of(studies)) > MOST_LINES)
    several = max(len(members) for members in rows.values()) > len(levels)
    dots = "means of single studies" if several else "seeds"
    return figure, f"{fewer}{_how(studies)} Small dots are {dots}."


def _draw_lines(
    axes: Axes,
    methods: Sequence[str],
    compared: Sequence[MetricComparison],
    places: Sequence[int],
    looks: Mapping[str, Look] | None,
) -> None:
    """Draws one panel: a line per method through its means at each place, and hollow markers for phase 1."""
    step = min(0.09, 0.6 / len(methods))
    ends = []
    for order, method in enumerate(methods):
        look, shift = look_of(method, looks), (order - (len(methods) - 1) / 2) * step
        found: dict[int, list[MethodSummary]] = {}
        first: dict[int, list[float]] = {}
        for one, place in zip(compared, places, strict=True):
            for row in states_of(one):
                if row.final and row.method == method:
                    found.setdefault(place, []).append(row)
                elif row.method.startswith(f"{method}, ") and _is_masked(method):
                    first.setdefault(place, []).append(row.mean)
        xs = sorted(found)
        means = [float(np.mean([row.mean for row in found[x]])) for x in xs]
        style = marker_style(look, size=6)
        axes.plot(np.array(xs) + shift, means, linewidth=1.2, label=method, zorder=3, **style)
        for x in xs:
            single = found[x][0].points if len(found[x]) == 1 else [row.mean for row in found[x]]
            axes.plot(np.full(len(single), x + shift), single, ".", color=look.colour, markersize=3.5, alpha=0.55)
            ends += [*single] if method != "base" else []
        hollow = marker_style(look_of(f"{method}, phase 1", looks), size=6)
        before = sorted(first)
        axes.plot(np.array(before) + shift, [np.mean(first[x]) for x in before], linestyle="", zorder=2, **hollow)
    if ends:  # the base, and a fusion without training, may lie far from all others
        margin = 0.06 * (max(ends) - min(ends)) or 0.5
        axes.set_ylim(min(ends) - margin, max(ends) + margin)


def _dots(studies: Sequence[StudyScores], looks: Mapping[str, Look] | None) -> tuple[Figure, str]:
    """Draws a row per method and a panel per study and metric; returns how they are read, too."""
    methods = methods_of(studies)
    depth = max(len(study.judged_by) for study in studies)
    figure, grid = new_figure(depth, len(studies), height=depth * (0.75 + 0.175 * len(methods)), sharey=True)
    for study, panels in zip(studies, grid.T, strict=True):
        for axes, compared in zip(panels, study.judged_by, strict=False):
            known = {row.method: row for row in states_of(compared)}
            for y, method in enumerate(methods):
                before, row = known.get(f"{method}, phase 1"), known.get(method)
                if before and _is_masked(method):
                    hollow = marker_style(look_of(before.method, looks), size=5)
                    axes.plot(before.mean, y, zorder=2, **hollow)
                if row:
                    look = look_of(method, looks)
                    axes.plot(row.points, np.full(len(row.points), y), "|", color=look.colour, markersize=5)
                    axes.plot(row.mean, y, zorder=3, **marker_style(look, size=5))
            axes.set(xlabel=f"{compared.label}\n({compared.unit})")
            axes.set_ylim(len(methods) - 0.4, -0.6)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.grid(axis="both")
        for axes in panels[len(study.judged_by) :]:
            axes.set_visible(False)
        panels[0].set_title(textwrap.fill(_short(study), 22))
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(methods)), methods)
        axes.tick_params(axis="y", labelsize=7.5, length=0)
    return figure, f"{_how(studies)} Ticks are seeds. Every panel has a scale of its own."


@styled
def pooled_differences(results: GatheredResults, *, looks: Mapping[str, Look] | None = None) -> tuple[Figure, str, str]:
    """Draws all pooled differences of a family, a row each and a column per metric.

    A marker is the mean over the studies, with its interval (thick) and that of one more unit (thin).
    """
    names = [textwrap.fill(pair(one), PAIR_WIDTH, break_on_hyphens=False) for one in results.main.gathered]
    heights = [max(0.34, 0.1 + 0.15 * (name.count("\n") + 1)) for name in names]
    figure, grid = new_figure(1, len(results.metrics), height=0.95 + sum(heights), sharey=True)
    middles = np.cumsum(heights) - np.array(heights) / 2
    spoken = []
    for axes, of_metric in zip(grid[0], results.metrics, strict=True):
        largest = max(abs(one.value) for one in of_metric.gathered) or 1.0
        axes.axvline(0, color=GREY, linewidth=1.0)
        for y, one in zip(middles, of_metric.gathered, strict=True):
            look = look_of(one.method, looks)
            for bounds, width in ((one.prediction, 1.0), (one.interval, 3.2)):
                if bounds:
                    ends = np.clip((bounds.low, bounds.high), -REACH * largest, REACH * largest)
                    axes.plot(ends, (y, y), color=look.colour, linewidth=width, solid_capstyle="butt")
            axes.plot(one.value, y, zorder=4, **marker_style(look, size=6))
            colour = {"better": GOOD, "worse": BAD}.get(one.direction, GREY)
            text = f"{signed(one.value, of_metric.metric)}  {one.direction}"
            axes.annotate(text, (1, y), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                          va="center", fontsize=8, color=colour, annotation_clip=False)  # fmt: skip
            spoken.append(f"{of_metric.label} {pair(one)} {signed(one.value, of_metric.metric)}, {one.direction}")
        better = "left" if less_is_better(of_metric.metric) else "right"
        axes.set(title=of_metric.label, xlabel=f"difference ({unit(of_metric)}), {better} is better")
        axes.set_ylim(sum(heights), 0)
        axes.set_yticks(middles, names)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x")
    over = " and ".join(results.over)
    caption = (
        f"Differences pooled over {over}, the first method minus the second. {results.confidence:.0%} intervals: thick "
        "of the mean, thin of the true difference in one more unit; both are cut where they reach far. The verdict is "
        "that after Holm's correction."
    )
    return figure, f"Differences pooled over {over}: {'; '.join(spoken)}.", caption


def _rows(studies: Sequence[StudyScores], key: str) -> dict[str, list[StudyScores]]:
    """Returns the studies of each row of panels, by its title; "" is the only row, over whose studies is averaged."""
    others = [name for name in studies[0].levels if name != key]
    values = [list(dict.fromkeys(study.levels[name] for study in studies)) for name in others]
    combinations = list(product(*values))
    if not others or len(combinations) > MOST_ROWS:
        return {"": list(studies)}
    found: dict[str, list[StudyScores]] = {}
    for combination in combinations:
        members = [study for study in studies if tuple(study.levels[name] for name in others) == combination]
        if members:
            found[", ".join(map(_said, others, combination))] = members
    return found


def _said(key: str, level: Level) -> str:
    return str(level) if isinstance(level, str) and level != "none" else f"{key} {level}"


def _short(study: StudyScores) -> str:
    return ", ".join(_said(key, level) for key, level in study.levels.items())


def _is_masked(method: str) -> bool:
    return parse(method).mask != "none"


def _how(studies: Sequence[StudyScores]) -> str:
    """Returns how the markers of all states are read."""
    phases = any(not row.final for study in studies for row in states_of(study.judged_by[0]))
    return "Means over seeds, without a test." + " Hollow: after phase 1." * phases

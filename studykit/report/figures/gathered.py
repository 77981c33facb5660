"""Figures of notebook 07: a difference unit by unit with its pooled mean, and its slope on a covariate."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from studykit.evaluation.gathered import Gathered, GatheredMetric, GatheredResults
from studykit.report.figures.style import COLOURS, GREY, new_figure, styled
from studykit.runs.text import plural


@styled
def forest_of_studies(one: Gathered, results: GatheredResults, of_metric: GatheredMetric) -> tuple[Figure, str, str]:
    """Draws a forest plot: each unit's difference with its interval, its weight as the size of the marker.

    The last line is the pooled mean with its interval (thick) and the prediction interval (thin).
    """
    count = len(one.units)
    figure, axes = new_figure(height=1.4 + 0.34 * (count + 1))
    axes = axes[0, 0]
    axes.axvline(0, color="black", linewidth=0.9)
    for y, unit in enumerate(one.units):
        axes.plot((unit.interval.low, unit.interval.high), (y, y), color=COLOURS[0], linewidth=1.4)
        axes.scatter(unit.value, y, s=20 + 160 * unit.weight, marker="s", color=COLOURS[0], zorder=3)
    if one.prediction:
        axes.plot((one.prediction.low, one.prediction.high), (count, count), color=COLOURS[1], linewidth=1.0)
    if one.interval:
        axes.plot((one.interval.low, one.interval.high), (count, count), color=COLOURS[1], linewidth=4)
    axes.plot(one.value, count, marker="D", color=COLOURS[1], markeredgecolor="black", markersize=8)
    axes.axhline(count - 0.5, color=GREY, linewidth=0.6)
    axes.set_yticks(range(count + 1), [*(unit.name for unit in one.units), "pooled"])
    label = f"{of_metric.label}: {one.method} \u2212 {one.against}"
    below = f"{label} ({_unit(of_metric)})"
    if " \u2212 " in one.method:  # a difference of differences, too long for one line
        label = f"{of_metric.label}: ({one.method}) \u2212 ({one.against})"
        below = f"{of_metric.label}: ({one.method})\n\u2212 ({one.against}) ({_unit(of_metric)})"
    axes.set(ylim=(count + 0.6, -0.6), xlabel=below, ylabel=results.over[0])
    axes.grid(axis="x")
    values = "; ".join(f"{unit.name} {unit.value:+.3g}" for unit in one.units)
    alt = f"{label} by {results.over[0]}: {values}; pooled {one.value:+.3g}."
    caption = (
        f"{label}, {plural(count, 'unit')} of {plural(len(one.studies), 'comparison')}, with {results.confidence:.0%} "
        "intervals; those of the units hold their error over rows and seeds alone, that over seeds as all studies "
        "together have it. Larger squares weigh more."
    )
    return figure, alt, caption


@styled
def slope(one: Gathered, results: GatheredResults, of_metric: GatheredMetric) -> tuple[Figure, str, str]:
    """Draws the units' differences against the covariate, with the fitted line. The difference must have a slope."""
    assert one.slope is not None
    figure, axes = new_figure(height=3.2)
    axes = axes[0, 0]
    xs = np.array([unit.covariate for unit in one.units], dtype=float)
    axes.axhline(0, color="black", linewidth=0.9)
    for x, unit in zip(xs, one.units, strict=True):
        axes.plot((x, x), (unit.interval.low, unit.interval.high), color=COLOURS[0], linewidth=1.4)
        axes.scatter(x, unit.value, s=20 + 160 * unit.weight, marker="s", color=COLOURS[0], zorder=3)
    ends = np.array([xs.min(), xs.max()])
    axes.plot(ends, one.slope.constant + one.slope.value * ends, color=COLOURS[1], linestyle="--")
    label = f"{of_metric.label}: {one.method} \u2212 {one.against}"
    axes.set(xlabel=results.covariate, ylabel=f"{label}\n({_unit(of_metric)})")
    interval = one.slope.interval
    known = f", interval {interval.low:+.3g} to {interval.high:+.3g}" if interval else ""
    about = f"slope {one.slope.value:+.3g}{known}, p = {one.slope.p_holm:.3f} after Holm's correction"
    alt = f"{label} against {results.covariate}: {about}."
    return figure, alt, f"{label} against {results.covariate}, with {results.confidence:.0%} intervals; {about}."


def _unit(of_metric: GatheredMetric) -> str:
    return "points" if of_metric.unit == "%" else of_metric.unit

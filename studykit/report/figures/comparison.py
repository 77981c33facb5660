"""Figures of notebook 06: scores of all methods, their differences, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from studykit.report.figures.style import GREY, category, drawn, legend_above, sheet
from studykit.runs.text import plural


@drawn
def scores(
    rows: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    samples: int,
    confidence: float = 0.95,
    baseline: str | None = None,
    title: str = "",
) -> tuple[Figure, str, str]:
    """Methods against each other: rows with method, mean, low, high (the interval) and points (one score per seed).

    Args:
        metric: name and unit, the label of the axis, as "pass@1 (%)".
        baseline: the method whose mean is drawn through the figure.
    """
    figure, axes = sheet(width=6.5, height=1.0 + 0.42 * len(rows))
    axes = axes[0, 0]
    seeds = max((len(row.get("points") or ()) for row in rows), default=0)
    for y, row in enumerate(rows):
        colour, strong = category(y)["color"], row["method"] == baseline
        axes.plot(_bounds(row), (y, y), color=colour, linewidth=2.6, solid_capstyle="butt")
        axes.plot(row["mean"], y, color=colour, marker=category(y)["marker"], markersize=8, markeredgecolor="black")
        points = list(row.get("points") or ())
        axes.scatter(points, np.full(len(points), y + 0.26), s=14, facecolors="white", edgecolors=colour, zorder=3)
        if strong:
            axes.axvline(row["mean"], color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=metric, ylabel="method", title=title)
    axes.grid(axis="x")
    said = "; ".join(f"{row['method']} {row['mean']:.4g} {_said(row, '.4g')}" for row in rows)
    alt = f"{metric} of {len(rows)} methods, n = {samples} samples, {seeds} seeds, {confidence:.0%} intervals: {said}."
    line = f" The dotted line is {baseline}." if any(row["method"] == baseline for row in rows) else ""
    caption = (
        f"{metric}: mean and {confidence:.0%} interval per method; open points are seeds.{line} n = {samples} samples, "
        f"{plural(seeds, 'seed')}."
    )
    return figure, alt, caption


@drawn
def differences(
    rows: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    baseline: str,
    samples: int,
    confidence: float = 0.95,
) -> tuple[Figure, str, str]:
    """Differences to one method: rows with method, value, low, high (the interval) and by_seed (one per seed).

    Args:
        metric: name and unit of the differences, as "pass@1 (points)".
    """
    figure, axes = sheet(width=6.5, height=1.0 + 0.42 * len(rows))
    axes = axes[0, 0]
    axes.axvline(0, color="black", linewidth=0.9)
    for y, row in enumerate(rows):
        style = category(y)
        axes.plot(_bounds(row), (y, y), color=style["color"], linewidth=2.6, solid_capstyle="butt")
        axes.plot(row["value"], y, color=style["color"], marker=style["marker"], markersize=8, markeredgecolor="black")
        seeds = np.full(len(row["by_seed"]), y + 0.26)
        axes.scatter(row["by_seed"], seeds, s=14, facecolors="white", edgecolors=style["color"], zorder=3)
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f"{metric}: difference to {baseline}", ylabel="method")
    axes.grid(axis="x")
    said = "; ".join(f"{row['method']} {row['value']:+.4g} {_said(row, '+.4g')}" for row in rows)
    about = f"{confidence:.0%} intervals, paired over n = {samples} samples"
    alt = f"Differences in {metric} to {baseline}, {about}: {said}."
    caption = f"Differences in {metric} to {baseline}, {about}; 0 is no difference, open points are seeds."
    return figure, alt, caption


def _bounds(row: Mapping[str, Any]) -> tuple[float, float]:
    """An interval to draw: nothing where a single row leaves none."""
    return tuple(np.nan if row[end] is None else row[end] for end in ("low", "high"))


def _said(row: Mapping[str, Any], digits: str) -> str:
    return "(no interval)" if row["low"] is None else f"({row['low']:{digits}} to {row['high']:{digits}})"


@drawn
def cost(
    rows: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    samples: int,
    title: str = "",
) -> tuple[Figure, str, str]:
    """Score against what it costs: rows with method, score and any of parameters, seconds, memory_mb (or None)."""
    costs = {"parameters": "trainable parameters", "seconds": "training time (s)", "memory_mb": "peak memory (MB)"}
    shown = {key: label for key, label in costs.items() if any(row.get(key) is not None for row in rows)}
    figure, axes = sheet(1, len(shown), width=1.2 + 2.3 * len(shown), height=3.2, sharey=True)
    missing = []
    for place, (key, label) in zip(axes[0], shown.items(), strict=True):
        for i, row in enumerate(rows):
            style = category(i) | {"linestyle": "none"}
            known = row.get(key) is not None
            missing += [] if known else [f"{row['method']} ({label})"]
            x, y = ([row[key]], [row["score"]]) if known else ([], [])
            place.plot(x, y, label=row["method"], markersize=8, markeredgecolor="black", markeredgewidth=0.6, **style)
        if key == "parameters":
            smallest = min((row[key] for row in rows if row.get(key)), default=1)
            # the untouched base trains 0 parameters, which a logarithm has no place for
            place.set_xscale("symlog", linthresh=smallest / 2, linscale=0.5)
            decades = 10.0 ** np.arange(np.ceil(np.log10(smallest / 2)), 13)
            place.set_xticks([0, *decades[decades < 3 * max(row.get(key) or 1 for row in rows)]])
            place.xaxis.set_major_formatter(EngFormatter(sep=""))
        place.margins(0.1, 0.12)
        place.minorticks_off()
        if key != "parameters":
            place.set_xlim(0, 1.12 * max(row.get(key) or 0 for row in rows))
        place.set_xlabel(label)
        place.grid()
    axes[0, 0].set(ylabel=metric)
    figure.suptitle(title) if title else None
    legend_above(figure, axes[0, 0])
    left_out = f" Not measured, hence left out: {', '.join(missing)}." if missing else ""
    said = "; ".join(f"{row['method']} {row['score']:.4g}" for row in rows)
    alt = (
        f"{metric} of {len(rows)} methods against {', '.join(shown.values())}, n = {samples} samples: {said}.{left_out}"
    )
    return figure, alt, f"{metric} against cost; up and left is better.{left_out} n = {samples} samples."

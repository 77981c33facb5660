"""Figures for notebooks, reports and papers; one call each. `show` displays one with alternative text and caption.

Here are training, data and comparison; the figures of fusion weights come from `fusion_figures` and `token_strip` and
are offered under this name too. All are safe for colour-blind readers, legible in grey print, and pure vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from studykit.canvas import GREY, category, drawn, figure_html, legend_above, save, sheet, show, svg
from studykit.fusion_figures import (
    attention_by_phase,
    entropy_per_layer,
    fusion_heatmap,
    fusion_panels,
    phase_comparison,
    stacked_bars,
    target_share_per_layer,
)
from studykit.token_strip import token_strip

__all__ = [
    "attention_by_phase",
    "comparison",
    "cost",
    "differences",
    "entropy_per_layer",
    "figure_html",
    "fusion_heatmap",
    "fusion_panels",
    "length_histograms",
    "loss_curves",
    "phase_comparison",
    "save",
    "show",
    "stacked_bars",
    "svg",
    "target_share_per_layer",
    "token_strip",
]

# Keys of a training log and how their curves look: validation is marked, completion-only is dashed.
LOSSES = {
    "loss": {"color": "#0072B2", "linewidth": 1.0},
    "eval_sequence_loss": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "eval_loss": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
}


@drawn
def loss_curves(
    logs: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    samples: int,
    best: Mapping[str, int] | None = None,
    loss_on: str = "completion",
    title: str = "",
) -> tuple[Figure, str, str]:
    """Training and validation loss over steps, all on one scale: phase -> rows as Trainer logs them (`step`, `LOSSES`).

    Args:
        logs: one entry per phase, in order; steps of a later phase continue where the earlier one ended.
        samples: number of validation samples.
        best: phase -> the step whose weights were kept.
        loss_on: "completion" or "sequence", the tokens of the training loss.
    """
    trained = "completion only" if loss_on == "completion" else "prompt + completion"
    penalised = any("value_penalty" in row for rows in logs.values() for row in rows)
    labels = {
        "loss": f"train, {trained}" + ", with value penalty" * penalised,
        "eval_sequence_loss": "validation, prompt + completion",
        "eval_loss": "validation, completion only",
    }
    figure, axes = sheet(width=6.5, height=3.3)
    axes, start, ends, kept = axes[0, 0], 0, {}, []
    for number, (phase, rows) in enumerate(logs.items()):
        for key, style in LOSSES.items():
            points = [(start + row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                dash = {"linestyle": "--" if loss_on == "completion" else "-"} if key == "loss" else {}
                axes.plot(*zip(*points, strict=True), label=None if key in ends else labels[key], **style, **dash)
                ends[key] = (ends.get(key, (points[0][1],))[0], points[-1][1])
        if number:
            axes.axvline(start, color="black", linewidth=0.9)
        if len(logs) > 1:
            at = {"xy": (start, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(phase, xytext=(0, 3), **at)
        if best and phase in best:
            label = None if kept else "kept step"
            axes.axvline(start + best[phase], color=GREY, linewidth=1.2, linestyle=":", label=label)
            kept.append(f"{phase} step {best[phase]}".strip())
        start += max((row["step"] for row in rows), default=0)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", title=title)
    axes.grid(axis="y")
    legend_above(figure, axes, columns=2)
    spans = "; ".join(f"{labels[key]} from {first:.3f} to {last:.3f}" for key, (first, last) in ends.items())
    weights = f" Weights kept: {', '.join(kept)}." if kept else ""
    alt = f"Loss over {start:.0f} steps, n = {samples} validation samples: {spans}.{weights}"
    caption = f"Loss (cross entropy, nats per token), all on one scale.{weights} Validation: n = {samples} samples."
    return figure, alt, caption


@drawn
def length_histograms(
    lengths: Mapping[str, Mapping[str, Sequence[int]]],
    *,
    limit: int | None = None,
    what: str = "sequence length",
    unit: str = "tokens",
) -> tuple[Figure, str, str]:
    """Lengths per language and split (language -> split -> lengths), a panel per language, as shares of the split."""
    columns = min(3, len(lengths))
    rows = -(-len(lengths) // columns)
    figure, axes = sheet(rows, columns, height=0.7 + 1.5 * rows, sharex=True, sharey=True)
    everything = np.concatenate([np.asarray(values) for splits in lengths.values() for values in splits.values()])
    bins = np.linspace(0, max(everything.max(), limit or 0) * 1.02, 31)
    names = list(dict.fromkeys(split for splits in lengths.values() for split in splits))
    for spare in axes.flat[len(lengths) :]:
        spare.set_visible(False)
    for place, (language, splits) in zip(axes.flat, lengths.items(), strict=False):
        for split, values in splits.items():
            style = category(names.index(split))
            shares = 100 * np.histogram(values, bins)[0] / max(len(values), 1)
            place.stairs(shares, bins, color=style["color"], linestyle=style["linestyle"], linewidth=1.4, label=split)
        if limit is not None:
            place.axvline(limit, color="black", linewidth=1.0, linestyle=(0, (1, 1)), label=f"limit {limit}")
        place.set_title(language)
        place.grid(axis="y")
    for place in axes[:, 0]:
        place.set_ylabel("samples (%)")
    for i, place in enumerate(axes.flat):
        place.set_xlabel(f"{what} ({unit})" if i >= len(lengths) - columns else "")
        place.tick_params(labelbottom=len(lengths) - columns <= i < len(lengths))
    legend_above(figure, axes[0, 0])
    over = int((everything > limit).sum()) if limit is not None else 0
    counts = "; ".join(
        f"{name} {', '.join(f'{k} {len(v)}' for k, v in splits.items())}" for name, splits in lengths.items()
    )
    beyond = f" {over} of {len(everything)} are longer than the limit of {limit} {unit}." if limit is not None else ""
    alt = (
        f"Histograms of the {what} in {unit} for {', '.join(lengths)}, n = {len(everything)} samples; median "
        f"{np.median(everything):.0f}, longest {everything.max():.0f}.{beyond}"
    )
    return (
        figure,
        alt,
        f"Distribution of the {what}, in percent of each split.{beyond} n = {len(everything)} ({counts}).",
    )


@drawn
def comparison(
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
        f"{seeds} seed{'s' * (seeds != 1)}."
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

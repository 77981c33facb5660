"""Figures of notebooks 00 to 03: losses of trainings, lengths of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studykit.report.figures.style import GREY, category_style, legend_above, new_figure, styled

# Looks of the curves by the key of a training log: validation has markers, and completion only is dashed.
LOSSES: dict[str, dict[str, Any]] = {
    "loss": {"color": "#0072B2", "linewidth": 1.0},
    "eval_sequence_loss": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "eval_loss": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
}


@styled
def attention_curves(
    logs: Mapping[str, Sequence[Mapping[str, Any]]], members: Sequence[str], target: str, *, samples: int
) -> tuple[Figure, str, str]:
    """Draws the attention of a fusion while it trains, over the steps of `loss_curves`.

    From above: the mean weight of each member over the layers, the share of saturated tokens, and the gradient norms of
    W_q and W_k; the last two are means over the layers, in bands from the least to the largest layer.

    Args:
        logs: `TrainingResult.log` by phase, in order.
        samples: number of validation samples that were read.
    """
    figure, axes = new_figure(3, 1, width=6.5, height=6.0, sharex=True)
    start, borders = 0.0, []
    steps: list[float] = []
    looks: list[Mapping[str, Any]] = []
    for phase, rows in logs.items():
        borders.append((start, phase))
        steps += [start + row["step"] for row in rows if "attention" in row]
        looks += [row["attention"] for row in rows if "attention" in row]
        start += max((row["step"] for row in rows), default=0)
    weights = np.array([np.mean(look["weights"], axis=0) for look in looks])  # (looks, A)
    for i, member in enumerate(members):
        size, name = (2.4, f"{member} (target)") if member == target else (1.3, member)
        axes[0, 0].plot(steps, 100 * weights[:, i], label=name, **category_style(i) | {"linewidth": size})
    curves = [(axes[1, 0], "saturated", "saturated tokens", 100.0)]
    curves += [(axes[2, 0], f"{matrix}_gradient", f"gradient of W_{matrix[0]}", 1.0) for matrix in ("query", "key")]
    for number, (panel, key, label, scale) in enumerate(curves):
        values = scale * np.array([look[key] for look in looks])  # (looks, L)
        if values.size:
            style = category_style(number)
            panel.plot(steps, values.mean(1), label=label, **style)
            panel.fill_between(steps, values.min(1), values.max(1), color=style["color"], alpha=0.15, linewidth=0)
    for panel, unit in zip(axes[:, 0], ("mean weight (%)", "saturated tokens (%)", "gradient norm"), strict=True):
        panel.set(ylabel=unit)
        panel.set_ylim(0, None)
        panel.grid(axis="y")
        for at, _ in borders[1:]:
            panel.axvline(at, color="black", linewidth=0.9)
    for at, phase in borders if len(logs) > 1 else ():
        axes[1, 0].annotate(
            phase, xy=(at, 1), xycoords=("data", "axes fraction"), xytext=(2, 3), textcoords="offset points"
        )
    if axes[2, 0].lines:
        axes[2, 0].legend(frameon=False, fontsize=8)
    axes[2, 0].set(xlabel="optimizer step")
    legend_above(figure, axes[0, 0])
    spans = ", ".join(f"{m} from {weights[0, i]:.1%} to {weights[-1, i]:.1%}" for i, m in enumerate(members))
    first, last = (float(np.mean(look["saturated"])) for look in (looks[0], looks[-1]))
    alt = (
        f"Attention while the fusion trains, over {start:.0f} steps, n = {samples} validation samples: mean weight of "
        f"{spans}; saturated tokens from {first:.1%} to {last:.1%}."
    )
    caption = (
        "Attention while the fusion trains, on the steps of the loss above: mean weight per member, tokens with one "
        "weight above 0.99, and norm of the gradient of the loss at W_q and W_k. Lines: means over layers; bands: from "
        f"the least to the largest layer. n = {samples} validation samples, completion tokens."
    )
    return figure, alt, caption


@styled
def loss_curves(
    logs: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    samples: int,
    best: Mapping[str, int] | None = None,
    loss_on: str = "completion",
    title: str = "",
) -> tuple[Figure, str, str]:
    """Draws training and validation loss over the steps, all on one scale.

    Args:
        logs: `TrainingResult.log` by phase, in order; steps of a later phase go on where the earlier one ended.
        samples: number of validation samples.
        best: the step whose weights were kept, by phase.
        loss_on: "completion" or "sequence", the tokens of the training loss.
    """
    trained = "completion only" if loss_on == "completion" else "prompt + completion"
    penalised = any("value_penalty" in row for rows in logs.values() for row in rows)
    labels = {
        "loss": f"train, {trained}" + ", with value penalty" * penalised,
        "eval_sequence_loss": "validation, prompt + completion",
        "eval_loss": "validation, completion only",
    }
    figure, axes = new_figure(width=6.5, height=3.3)
    axes, start = axes[0, 0], 0.0
    ends: dict[str, tuple[float, float]] = {}  # first and last value of each loss
    best_steps: list[str] = []
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
            label = None if best_steps else "kept step"
            axes.axvline(start + best[phase], color=GREY, linewidth=1.2, linestyle=":", label=label)
            best_steps.append(f"{phase} step {best[phase]}".strip())
        start += max((row["step"] for row in rows), default=0)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", title=title)
    axes.grid(axis="y")
    legend_above(figure, axes, columns=2)
    spans = "; ".join(f"{labels[key]} from {first:.3f} to {last:.3f}" for key, (first, last) in ends.items())
    weights = f" Weights kept: {', '.join(best_steps)}." if best_steps else ""
    alt = f"Loss over {start:.0f} steps, n = {samples} validation samples: {spans}.{weights}"
    caption = f"Loss (cross entropy, nats per token), all on one scale.{weights} Validation: n = {samples} samples."
    return figure, alt, caption


@styled
def length_histograms(
    lengths: Mapping[str, Mapping[str, Sequence[int]]],
    *,
    limit: int | None = None,
    what: str = "sequence length",
    unit: str = "tokens",
) -> tuple[Figure, str, str]:
    """Draws the distribution of lengths, a panel per language and a line per split, in percent of the split.

    Args:
        lengths: lengths by language and split.
        limit: drawn as a line; the caption counts the longer samples.
    """
    columns = min(3, len(lengths))
    rows = -(-len(lengths) // columns)
    figure, axes = new_figure(rows, columns, height=0.7 + 1.5 * rows, sharex=True, sharey=True)
    everything = np.concatenate([np.asarray(values) for splits in lengths.values() for values in splits.values()])
    bins = np.linspace(0, max(everything.max(), limit or 0) * 1.02, 31)
    names = list(dict.fromkeys(split for splits in lengths.values() for split in splits))
    for spare in axes.flat[len(lengths) :]:
        spare.set_visible(False)
    for panel, (language, splits) in zip(axes.flat, lengths.items(), strict=False):
        for split, values in splits.items():
            style = category_style(names.index(split))
            shares = 100 * np.histogram(values, bins)[0] / max(len(values), 1)
            panel.stairs(shares, bins, color=style["color"], linestyle=style["linestyle"], linewidth=1.4, label=split)
        if limit is not None:
            panel.axvline(limit, color="black", linewidth=1.0, linestyle=(0, (1, 1)), label=f"limit {limit}")
        panel.set_title(language)
        panel.grid(axis="y")
    for panel in axes[:, 0]:
        panel.set_ylabel("samples (%)")
    for i, panel in enumerate(axes.flat):
        panel.set_xlabel(f"{what} ({unit})" if i >= len(lengths) - columns else "")
        panel.tick_params(labelbottom=len(lengths) - columns <= i < len(lengths))
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

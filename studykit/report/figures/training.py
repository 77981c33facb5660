"""Figures of notebooks 00 to 03: losses of trainings, lengths of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studykit.report.figures.style import (
    GREY,
    SEQUENTIAL,
    category_style,
    colour_bar,
    legend_above,
    logarithmic,
    new_figure,
    styled,
)
from studykit.runs.text import plural
from studykit.training.stability import gradient_norms, spikes

# Looks of the curves beside the completion loss of validation, by the key of a training log.
OTHER_LOSSES: dict[str, dict[str, Any]] = {
    "loss": {"color": "#0072B2", "linewidth": 1.0},
    "eval_sequence_loss": {"color": "#D55E00", "linestyle": "--", "marker": "o"},
}
COMPLETION: dict[str, Any] = {"color": "#D55E00", "linestyle": "-", "marker": "s"}
Log = Mapping[str, Sequence[Mapping[str, Any]]]  # `TrainingResult.log` by phase, in order


def _phases(log: Log) -> list[tuple[float, str, Any]]:
    """Returns the step at which each phase begins, its title and its log: a later phase goes on where one ended."""
    starts = np.cumsum([0, *(max((row["step"] for row in rows), default=0) for rows in log.values())])
    return [(float(start), phase, rows) for start, (phase, rows) in zip(starts, log.items(), strict=False)]


def _draw_completion_loss(axes: Axes, log: Log, best: Mapping[str, int] | None = None) -> list[float]:
    """Draws the completion loss of validation, a line per phase, and an arrow for the jump between two phases.

    Returns all losses in order. best: the step whose weights were kept, by phase.
    """
    losses: list[float] = []
    for start, phase, rows in _phases(log):
        points = [(start + row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
        if points and losses:  # the same weights, before and after the restore
            before, after = losses[-1], points[0][1]
            arrow = {"arrowstyle": "->", "color": "black", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=(start, after), xytext=(start, before), arrowprops=arrow)
            label: dict[str, Any] = {"xytext": (-7, 9), "textcoords": "offset points", "ha": "right", "fontsize": 8.5}
            axes.annotate(f"restored: {after - before:+.3f}", (start, max(before, after)), **label)
        if points:
            axes.plot(*zip(*points, strict=True), **COMPLETION)
        losses += [loss for _, loss in points]
        if best and phase in best:
            axes.axvline(start + best[phase], color=GREY, linewidth=1.2, linestyle=":")
    axes.set(ylabel="completion loss\n(nats per token)")
    axes.grid(axis="y")
    return losses


def _kept_loss(log: Log, best: Mapping[str, int] | None) -> float | None:
    """Returns the completion loss of validation with the weights that the last phase kept."""
    phase = list(log)[-1]
    if not best or phase not in best:
        return None
    return next((row["eval_loss"] for row in log[phase] if row["step"] == best[phase] and "eval_loss" in row), None)


def _draw_borders(panels: np.ndarray, log: Log) -> None:
    """Draws the border between two phases through all panels, and the titles of those with steps above the first."""
    for start, phase, rows in _phases(log) if len(log) > 1 else ():
        if not any(row["step"] for row in rows):
            continue
        for panel in panels if start else ():
            panel.axvline(start, color="black", linewidth=0.7)
        at: dict[str, Any] = {"xy": (start, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        panels[0].annotate(phase, xytext=(2, 3), **at)


def _draw_weights_by_layer(axes: Axes, phases: Sequence[tuple], members: Sequence[str], target: str) -> None:
    """Draws the mean weight of each member in each layer at every look, as colours: a band of rows per member.

    Between two looks the colour changes half-way. phases: the result of `_phases`.
    """
    looks = [[(start + row["step"], row["attention"]["weights"]) for row in rows if "attention" in row]
             for start, _, rows in phases]  # fmt: skip
    looks = [of_phase for of_phase in looks if of_phase]  # a phase without steps has none
    most = max(np.max(weights) for of_phase in looks for _, weights in of_phase)
    depth = len(looks[0][0][1])
    for of_phase in looks:
        steps = np.array([step for step, _ in of_phase], dtype=float)
        edges = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
        rows = np.array([np.array(weights).T[::-1].ravel() for _, weights in of_phase]).T  # (A L, looks), last A first
        mesh = axes.pcolormesh(edges, np.arange(len(rows) + 1), 100 * rows, cmap=SEQUENTIAL, vmin=0, vmax=100 * most)
        mesh.set_edgecolor("face")  # no hairlines between the cells
    for border in range(depth, depth * len(members), depth):
        axes.axhline(border, color="white", linewidth=1.5)
    middle = depth * (np.arange(len(members))[::-1] + 0.5)
    axes.set_yticks(middle, [f"{name} (target)" if name == target else name for name in members])
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel(f"weight in {plural(depth, 'layer')}")
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    colour_bar(figure, mesh, axes, label="mean weight (%)", pad=0.01, aspect=14).outline.set_visible(False)


@styled
def attention_curves(
    logs: Log, members: Sequence[str], target: str, *, samples: int, best: Mapping[str, int] | None = None
) -> tuple[Figure, str, str]:
    """Draws the attention of a fusion while it trains, under its completion loss on the same steps.

    From above: the completion loss of validation, the mean weight of each member over the layers, the same weights
    layer by layer, the share of saturated tokens, and the gradient norms of W_q and W_k; the last two are means over
    the layers, in bands from the least to the largest layer.

    Args:
        logs: `TrainingResult.log` by phase, in order.
        samples: number of validation samples that were read.
        best: the step whose weights were kept, by phase.
    """
    phases = _phases(logs)
    steps = [start + row["step"] for start, _, rows in phases for row in rows if "attention" in row]
    looks: list[Mapping[str, Any]] = [row["attention"] for _, _, rows in phases for row in rows if "attention" in row]
    tall = float(np.clip(0.11 * np.size(looks[0]["weights"]), 1.6, 5.0))  # inches of the panel of single layers
    ratios = {"height_ratios": [1.3, 1.9, tall, 1.1, 1.1]}
    figure, grid = new_figure(5, 1, height=6.8 + tall, sharex=True, gridspec_kw=ratios)
    axes = grid[[1, 3, 4]]
    losses = _draw_completion_loss(grid[0, 0], logs, best)
    _draw_weights_by_layer(grid[2, 0], phases, members, target)
    weights = np.array([np.mean(look["weights"], axis=0) for look in looks])  # (looks, A)
    for i, member in enumerate(members):
        size, name = (2.4, f"{member} (target)") if member == target else (1.3, member)
        axes[0, 0].plot(steps, 100 * weights[:, i], label=name, **category_style(i) | {"linewidth": size})
    curves = [(axes[1, 0], "saturated", "saturated tokens", 100.0, {"marker": "o"})]  # in no member's colour
    curves += [(axes[2, 0], "query_gradient", "gradient of W_q", 1.0, {"marker": "s"})]
    curves += [(axes[2, 0], "key_gradient", "gradient of W_k", 1.0, {"marker": "^", "linestyle": "--"})]
    for panel, key, label, scale, style in curves:
        values = scale * np.array([look[key] for look in looks])  # (looks, L)
        if values.size:
            panel.plot(steps, values.mean(1), label=label, color=GREY, **style)
            panel.fill_between(steps, values.min(1), values.max(1), color=GREY, alpha=0.15, linewidth=0)
    for panel, unit in zip(axes[:, 0], ("mean weight (%)", "saturated\ntokens (%)", "gradient norm"), strict=True):
        panel.set(ylabel=unit)
        panel.set_ylim(0, None)
        panel.grid(axis="y")
    _draw_borders(grid[:, 0], logs)
    kept = [start + best[phase] for start, phase, _ in phases if best and phase in best]
    for panel in axes[:, 0]:
        for step in kept:
            panel.axvline(step, color=GREY, linewidth=1.2, linestyle=":")
    grid[0, 0].set_xlim(-0.015 * steps[-1], 1.015 * steps[-1])  # no marker is cut at an end
    if axes[2, 0].lines:
        axes[2, 0].legend(frameon=False, fontsize=8)
    axes[2, 0].set(xlabel="optimizer step")
    legend_above(figure, axes[0, 0], columns=6)
    at = np.flatnonzero(np.array(steps) == kept[-1])[-1] if kept and kept[-1] in steps else -1  # of equals, the later
    spans = ", ".join(
        f"{member} from {start:.1%}{'' if start else ' (excluded)'} to {end:.1%}"
        for member, start, end in zip(members, weights[0], weights[at], strict=True)
    )
    first, last = (float(np.mean(look["saturated"])) for look in (looks[0], looks[at]))
    until = "the weights kept" if at >= 0 else "the last"
    kept_loss = _kept_loss(logs, best)
    alt = (
        f"Attention while the fusion trains, over {steps[-1]:.0f} steps, n = {samples} validation samples; from the "
        f"first step to {until}: mean weight of {spans}; saturated tokens from {first:.1%} to {last:.1%}; completion "
        f"loss from {losses[0]:.3f} to {losses[-1] if kept_loss is None else kept_loss:.3f}."
    )
    caption = (
        f"From the first step to {until}, the mean weight goes for {spans}. "
        "Attention while the fusion trains, under its completion loss on validation rows: mean weight per member, the "
        "same layer by layer (in the band of each member, the first layer is at the bottom), tokens with one weight "
        "above 0.99, and norm of the gradient of the loss at W_q and W_k. Lines: means over layers; bands: from the "
        f"least to the largest layer; vertical line: next phase{'; dotted: weights kept' * bool(kept)}. "
        f"n = {samples} validation samples, completion tokens."
    )
    return figure, alt, caption


@styled
def stability_curves(logs: Log, *, title: str = "") -> tuple[Figure, str, str]:
    """Draws the gradient norm of every step with its spikes and, of a probed fusion, the cosines of its probes.

    Args:
        logs: `TrainingResult.log` by phase, in order; steps of a later phase go on where the earlier one ended.
    """
    probed = any(row["probe"]["cosine"] is not None for rows in logs.values() for row in rows if "probe" in row)
    figure, axes = new_figure(1 + probed, 1, height=2.6 + 1.6 * probed, sharex=True)
    count, total, cosines = 0, 0, []
    for start, _, rows in _phases(logs):
        norms = gradient_norms(rows)
        total += len(norms)
        steps, found = start + 1 + np.arange(len(norms)), spikes(norms)
        count += len(found)
        axes[0, 0].plot(steps, norms, color="#0072B2", linewidth=1.0)
        axes[0, 0].plot([start + step for step in found], [norms[step - 1] for step in found], "v", color="#D55E00")
        looks = [(start + row["step"], row["probe"]["cosine"]) for row in rows if "probe" in row]
        looks = [(step, value) for step, value in looks if value is not None]
        cosines += [value for _, value in looks]
        if looks:
            axes[1, 0].plot(*zip(*looks, strict=True), **COMPLETION)
    _draw_borders(axes[:, 0], logs)
    axes[0, 0].set(ylabel="gradient norm", title=title)
    logarithmic(axes[0, 0])
    axes[-1, 0].set(xlabel="optimizer step")
    for panel in axes[:, 0]:
        panel.grid(axis="y")
    if probed:
        axes[1, 0].set(ylabel="cosine with the\nfull-precision gradient")
    about = f" Cosines at {len(cosines)} probes, from {min(cosines):.4f} to {max(cosines):.4f}." if cosines else ""
    caption = (
        f"{plural(count, 'spike')} (triangles) in n = {plural(total, 'step')}: norm of the gradient before clipping."
        f"{about}"
    )
    return figure, caption, caption


@styled
def loss_curves(
    logs: Log,
    *,
    samples: int,
    best: Mapping[str, int] | None = None,
    loss_on: str = "completion",
    title: str = "",
) -> tuple[Figure, str, str]:
    """Draws the losses over the steps: the completion loss of validation on its own scale, the others below.

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
    completion = any(row.get("eval_loss") is not None for rows in logs.values() for row in rows)
    ratios = {"height_ratios": [1.6, 1] if completion else [1]}
    height = 4.6 if completion else 3.3
    figure, axes = new_figure(1 + completion, 1, height=height, sharex=True, gridspec_kw=ratios)
    below: Axes = axes[-1, 0]
    ends: dict[str, tuple[float, float]] = {}  # first and last value of each loss
    if completion:
        losses = _draw_completion_loss(axes[0, 0], logs, best)
        ends["eval_loss"] = losses[0], losses[-1]
    for start, phase, rows in _phases(logs):
        for key, style in OTHER_LOSSES.items():
            points = [(start + row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                below.plot(*zip(*points, strict=True), label=None if key in ends else labels[key], **style)
                ends[key] = (ends.get(key, (points[0][1],))[0], points[-1][1])
        if best and phase in best:
            below.axvline(start + best[phase], color=GREY, linewidth=1.2, linestyle=":")
    _draw_borders(axes[:, 0], logs)
    below.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    below.grid(axis="y")
    below.legend(loc="best")
    values = [end for pair in ends.values() for end in pair]
    if completion and min(values) > 0:  # one scale would press the smaller of the two to the floor
        logarithmic(below)
    axes[0, 0].set_title(title)
    kept = [f"{phase} step {best[phase]}".strip() for phase in logs if best and phase in best]
    spans = "; ".join(f"{labels[key]} from {first:.3f} to {last:.3f}" for key, (first, last) in ends.items())
    spans += f"; {kept_loss:.3f} with the weights kept" if (kept_loss := _kept_loss(logs, best)) is not None else ""
    weights = f" Weights kept (dotted): {', '.join(kept)}." if kept else ""
    total = max((start + row["step"] for start, _, rows in _phases(logs) for row in rows), default=0)
    alt = f"Loss over {total:.0f} steps, n = {samples} validation samples: {spans}.{weights}"
    first = "Above: the completion loss of validation; arrow: what changed between two phases. " if completion else ""
    caption = (
        f"{spans[0].upper()}{spans[1:]}. {first}Cross entropy in nats per token.{weights} "
        f"Validation: n = {samples} samples."
    )
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
        f"The median {what} is {np.median(everything):.0f} {unit}, the longest {everything.max():.0f}.{beyond} "
        f"Distribution in percent of each split. n = {len(everything)} ({counts}).",
    )

"""Heatmaps of fusion weights: one, several on one scale, and two with their difference.

Weights are those of `figures.fusion`. Every cell holds its number, so that a heatmap can be read in grey print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from studykit.report.figures.fusion import layer_labels, layer_rows, own_weight, samples_text
from studykit.report.figures.style import DIVERGING, SEQUENTIAL, WIDTH, colour_bar, ink_on, new_figure, styled

TITLE_CHARACTER = 0.08  # inches of width
SHARES = Normalize(0.0, 1.0)  # always the whole range, so that figures can be compared with each other


def _percent(value: float, signed: bool = False) -> str:
    """Returns a share as the text of a cell, in percent or percentage points; "<1" is more than 0 and rounds to it."""
    if abs(value) < 0.005:
        return "<1" if value > 0 and not signed else "0"
    return f"{100 * value:+.0f}" if signed else f"{100 * value:.0f}"


def _heatmap(
    axes: Axes,
    values: np.ndarray,
    members: Sequence[str],
    target: str,
    layers: Sequence[str] | None,
    cell: float,
    norm: Normalize = SHARES,
    cmap: Colormap = SEQUENTIAL,
) -> Collection:
    """Draws cells with their numbers and a frame around the target's column; returns the mesh for the colour bar.

    Args:
        values: (L, A).
        cell: width of a cell in inches, which decides the size of the numbers.
    """
    numbers = [[_percent(value, signed=norm.vmin is not None and norm.vmin < 0) for value in row] for row in values]
    sns.heatmap(
        values,
        ax=axes,
        norm=norm,
        cmap=cmap,
        annot=np.array(numbers),
        fmt="",
        annot_kws={"fontsize": np.clip(28 * cell, 5.0, 9.0)},
        linewidths=1.0,
        cbar=False,
        xticklabels=False,
        yticklabels=False,
    )
    mesh = axes.collections[0]
    for text, value in zip(axes.texts, values[~np.isnan(values)], strict=True):
        text.set_color(ink_on(cmap(norm(value))))  # seaborn's own choice has too little contrast on medium colours
    axes.set_xticks(np.arange(len(members)) + 0.5, members, rotation=35, ha="right", rotation_mode="anchor")
    if target in members:
        column, depth = list(members).index(target), len(values)
        axes.add_patch(Rectangle((column, 0), 1, depth, fill=False, edgecolor="black", linewidth=1.8, clip_on=False))
        axes.get_xticklabels()[column].set_fontweight("bold")
    axes.set_yticks(np.arange(len(values)) + 0.5, layer_rows(layers, len(values)))
    axes.set(xlabel="member adapter", ylim=(0, len(values)))
    axes.tick_params(length=0)
    return mesh


def _bar(figure: Figure, mesh: Collection, axes: Axes | np.ndarray, label: str) -> None:
    length = figure.get_figheight() - 1.2  # inches, about
    percent = PercentFormatter(1.0, symbol="")
    bar = colour_bar(figure, mesh, axes, label=label, format=percent, pad=0.015, aspect=max(14.0, 11 * length))
    bar.outline.set_visible(False)


def _depth(layers: int) -> float:
    """Returns the inches for the cells of so many layers, at least as many as the label of a colour bar needs."""
    return max(0.26 * layers, 1.3)


@styled
def fusion_heatmap(
    weights: np.ndarray,
    members: Sequence[str],
    target: str,
    *,
    samples: int,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
    title: str = "",
    weighted: bool = False,
    seeds: int | None = None,
) -> tuple[Figure, str, str]:
    """Draws the mean weight per layer and member, (L, A), as a heatmap with its numbers.

    weighted: whether the values are norm-weighted shares.
    """
    quantity = "norm-weighted share" if weighted else "fusion weight"
    figure, axes = new_figure(height=1.2 + _depth(len(weights)))
    mesh = _heatmap(axes[0, 0], weights, members, target, layers, (WIDTH - 1.8) / len(members))
    axes[0, 0].set(ylabel="layer", title=title)
    _bar(figure, mesh, axes, "weight (%)" if not weighted else "share (%)")
    own = own_weight(weights, members, target)
    top = tuple(map(int, np.unravel_index(np.argmax(weights), weights.shape)))
    alt = (
        f"Heatmap of the mean {quantity}, {len(weights)} layers by {len(members)} members, n = {samples} samples. "
        f"The target {target} gets {own:.1%} on average; the largest cell is {members[top[1]]} in "
        f"{layer_labels(layers, len(weights))[top[0]]} with {weights[top]:.1%}."
    )
    about = samples_text(samples, tokens, seeds)
    caption = (
        f"{target} gets {own:.0%} of the {quantity} on average, and {members[top[1]]} most in one layer. Mean "
        f"{quantity} per layer and member (percent); target {target} framed. {about}."
    )
    return figure, alt, caption


@styled
def fusion_panels(
    panels: Mapping[str, np.ndarray],
    members: Sequence[str],
    targets: str | Mapping[str, str],
    *,
    samples: int,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
    seeds: int | None = None,
    quantity: str = "fusion weight",
) -> tuple[Figure, str, str]:
    """Draws one heatmap per panel, all on one colour scale.

    Args:
        panels: values (L, A) by the title of the panel.
        targets: the target of all panels, or targets by title.
        quantity: name of the values.
    """
    target = dict.fromkeys(panels, targets) if isinstance(targets, str) else targets
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows, width = -(-len(panels) // columns), max(WIDTH, 1.4 + columns * (0.3 + 0.3 * len(members)))
    cell = ((width - 1.4) / columns - 0.3) / len(members)
    narrow = max(map(len, panels)) * TITLE_CHARACTER > 0.3 + cell * len(
        members
    )  # two titles side by side would overlap
    height = 0.3 + rows * (1.0 + 0.16 * narrow + _depth(max(map(len, panels.values()))))
    figure, axes = new_figure(rows, columns, width=width, height=height, sharey=True)
    for spare in axes.flat[len(panels) :]:
        spare.set_visible(False)
    for panel, (title, weights) in zip(axes.flat, panels.items(), strict=False):
        mesh = _heatmap(panel, weights, members, target[title], layers, cell)
        panel.set_title(title.replace(", ", ",\n") if narrow else title)
    for panel in axes[:, 0]:
        panel.set_ylabel("layer")
    _bar(figure, mesh, axes, f"{quantity} (%)")
    target_text = ", ".join(
        f"{name} {own_weight(weights, members, target[name]):.1%}" for name, weights in panels.items()
    )
    what = f"{len(panels)} heatmaps of the mean {quantity} by layer and member"
    alt = f"{what}, n = {samples} samples. The target gets: {target_text}."
    caption = (
        f"The target gets, as a mean over layers: {target_text}. Mean {quantity} per layer and member (percent); "
        f"target framed. {samples_text(samples, tokens, seeds)}."
    )
    return figure, alt, caption


@styled
def change_panels(
    changes: Mapping[str, Mapping[str, np.ndarray]],
    members: Sequence[str],
    target: str,
    *,
    samples: int,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
) -> tuple[Figure, str, str]:
    """Draws weights of several methods minus a reference, a row of small heatmaps for each reference.

    Args:
        changes: weights minus the reference, (S, L, A), by the name of the reference and by method; NaN where a member
            is not in the fusion. Cells are means over the S seeds; those whose seeds differ in sign are in brackets.
    """
    panels = [(f"{method}\n{reference}", one) for reference, by in changes.items() for method, one in by.items()]
    columns = min(5 if len(members) <= 4 else 4, max(map(len, changes.values())))
    per_row = -(-max(map(len, changes.values())) // columns)
    limit = max(0.05, *(float(np.nanmax(np.abs(one.mean(0)))) for _, one in panels))
    depth, seeds = max(one.shape[1] for _, one in panels), max(len(one) for _, one in panels)
    rows, cell = per_row * len(changes), 0.32
    size = {
        "width": max(WIDTH, 1.5 + columns * (0.25 + cell * len(members))),
        "height": 0.3 + rows * (0.75 + 0.24 * depth),
    }
    figure, axes = new_figure(rows, columns, **size, sharey=True)
    at = [(r, c) for start in range(0, rows, per_row) for r in range(start, start + per_row) for c in range(columns)]
    counts = [len(by) for by in changes.values()]
    used = {place for n, count in enumerate(counts) for place in at[n * per_row * columns :][:count]}
    for place in set(at) - used:
        axes[place].set_visible(False)
    for place, (title, one) in zip(sorted(used), panels, strict=True):
        norm = Normalize(-limit, limit)
        mesh = _heatmap(axes[place], one.mean(0), members, target, layers, cell, norm, DIVERGING)
        agree = (np.sign(one) == np.sign(one[0])).all(0)[~np.isnan(one.mean(0))]
        for text, is_sure in zip(axes[place].texts, agree, strict=True):
            text.set_text(text.get_text() if is_sure else f"({text.get_text()})")
        axes[place].set_title(title, fontsize=8.5)
        is_lowest = (place[0] + 1, place[1]) not in used
        axes[place].set_xlabel("member adapter" if is_lowest else "")
        axes[place].tick_params(labelbottom=is_lowest)
    for panel in axes[:, 0]:
        panel.set_ylabel("layer")
    _bar(figure, mesh, axes, "difference (points)")
    about = samples_text(samples, tokens, seeds)
    names = ", ".join(dict.fromkeys(method for by in changes.values() for method in by))
    alt = f"Heatmaps of fusion weights of {names}, {' and '.join(changes)}, by layer and member, n = {samples} samples."
    brackets = f" In brackets: the {seeds} seeds differ in sign." * (seeds > 1)
    caption = (
        f"{_largest_change(changes, members, layer_labels(layers, depth))} Weights of the finished fusions, "
        f"{' and '.join(changes)}, by layer and member (points, colour centred at 0); "
        f"target {target} framed.{brackets} {about}."
    )
    return figure, alt, caption


def _largest_change(changes: Mapping[str, Mapping[str, np.ndarray]], members: Sequence[str], layers: Sequence) -> str:
    """A sentence with the largest change from the last reference, and with how many changes the seeds agree."""
    reference, by_method = list(changes.items())[-1]
    means = {method: np.nan_to_num(one.mean(0)) for method, one in by_method.items()}  # (L, A)
    method = max(means, key=lambda name: np.abs(means[name]).max())
    layer, member = np.unravel_index(np.abs(means[method]).argmax(), means[method].shape)
    cells = [one.reshape(len(one), -1)[:, ~np.isnan(one.mean(0)).ravel()] for one in by_method.values()]  # (S, cells)
    alike = sum(int((np.sign(one) == np.sign(one[0])).all(0).sum()) for one in cells)
    together = f"; the seeds agree on the sign in {alike} of {sum(one.shape[1] for one in cells)} cells"
    return (
        f"{reference.capitalize()}, the largest difference is that of {members[member]} in {layers[layer]} of "
        f"{method}, "
        f"{100 * means[method][layer, member]:+.0f} points{together * (max(map(len, cells)) > 1)}."
    )


@styled
def phase_comparison(
    first: np.ndarray,
    second: np.ndarray,
    members: Sequence[str],
    target: str,
    *,
    samples: int,
    names: tuple[str, str],
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
) -> tuple[Figure, str, str]:
    """Draws two arrays of weights (S, L, A) on the same samples, and second - first in percentage points.

    Cells are means over the S seeds. A change whose sign differs between seeds stands in brackets.
    """
    changes, seeds = second - first, len(first)
    agree = (np.sign(changes) == np.sign(changes[0])).all(0)  # (L, A)
    first, second, change = first.mean(0), second.mean(0), changes.mean(0)
    limit = max(np.abs(change).max(), 0.05)
    width = np.clip(2.0 + 3 * (0.3 + 0.28 * len(members)), WIDTH, 11.0)
    cell = (width - 2.9) / 3 / len(members)
    figure, axes = new_figure(1, 3, height=1.2 + _depth(len(first)), width=width, sharey=True)
    for panel, weights, name in zip(axes[0], (first, second), names, strict=False):
        mesh = _heatmap(panel, weights, members, target, layers, cell)
        panel.set_title(name)
    _bar(figure, mesh, axes[0, :2], "weight (%)")
    mesh = _heatmap(axes[0, 2], change, members, target, layers, cell, Normalize(-limit, limit), DIVERGING)
    for text, is_sure in zip(axes[0, 2].texts, agree.flat, strict=True):
        if seeds > 1 and not is_sure:
            text.set_text(f"({text.get_text()})")
    axes[0, 2].set_title("difference")
    axes[0, 0].set_ylabel("layer")
    _bar(figure, mesh, axes[0, 2], "difference (points)")
    brackets = f" In brackets: the {seeds} seeds differ in sign." if seeds > 1 else ""
    alt = (
        f"Heatmaps of fusion weights by layer and member, {names[0]} and {names[1]}, and their difference, on the "
        f"same n = {samples} samples. The weight of the target {target} goes from "
        f"{own_weight(first, members, target):.1%} to {own_weight(second, members, target):.1%}; in {agree.sum()} of "
        f"{agree.size} cells all seeds change in the same direction."
    )
    own = f"{own_weight(first, members, target):.0%} to {own_weight(second, members, target):.0%}"
    together = f"; the {seeds} seeds change together in {agree.sum()} of {agree.size} cells" * (seeds > 1)
    caption = (
        f"The weight of {target} goes from {own}{together}. Mean fusion weight per layer and member, {names[0]} and "
        f"{names[1]} (percent), and the second minus the first "
        f"(percentage points, colour centred at 0); target {target} framed.{brackets} The same samples in both: "
        f"{samples_text(samples, tokens, seeds)}."
    )
    return figure, alt, caption


@styled
def transfer_matrix(losses: Mapping[str, Mapping[str, float]]) -> tuple[Figure, str, str]:
    """Draws how well the adapter of each language does on the rows of each other one, untrained on them.

    Args:
        losses: nats per token, by target and source. A language is no source of itself: its cell is empty.
    """
    targets, sources = list(losses), list(dict.fromkeys(name for of in losses.values() for name in of))
    sources.sort(key=lambda name: targets.index(name) if name in targets else len(targets))
    values = np.array([[losses[target].get(source, np.nan) for target in targets] for source in sources])  # (S, T)
    known = values[~np.isnan(values)]
    norm, cmap = Normalize(known.min(), known.max()), SEQUENTIAL
    figure, axes = new_figure(width=2.2 + 0.75 * len(targets), height=1.4 + 0.36 * len(sources))
    axes = axes[0, 0]
    sns.heatmap(values, ax=axes, norm=norm, cmap=cmap, annot=True, fmt=".2f", linewidths=1.0,
                cbar=False, annot_kws={"fontsize": 9.0})  # fmt: skip
    for text, value in zip(axes.texts, known, strict=True):
        text.set_color(ink_on(cmap(norm(value))))
    axes.set_xticks(np.arange(len(targets)) + 0.5, targets, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(sources)) + 0.5, sources, rotation=0)
    axes.set(xlabel="target, whose rows are read", ylabel="source, whose adapter reads")
    axes.tick_params(length=0)
    bar = colour_bar(figure, axes.collections[0], axes, label="completion loss\n(nats per token)", pad=0.02)
    bar.outline.set_visible(False)
    best = {target: min(of, key=of.__getitem__) for target, of in losses.items()}
    alt = "The source with the least loss on each target: " + ", ".join(
        f"{target} {source} {losses[target][source]:.2f}" for target, source in best.items()
    )
    caption = (
        "Completion loss of each source's adapter on the target's validation rows, before any training on them; less "
        "is better. Compare down a column: targets differ in how hard their rows are."
    )
    return figure, f"{alt}.", caption

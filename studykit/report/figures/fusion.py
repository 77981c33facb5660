"""Figures of fusion weights: heatmaps, phases, lines per layer, the authors' stacked bars.

Weights come as arrays (L, A), layers by members, rows summing to 1 (from `studykit.attention.mean`); layer 1, nearest
the embeddings, is at the bottom or on the left. A member keeps its colour in all figures, by its place in `members`.
Every caption tells the number of samples and which tokens they are about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from studykit.report.figures.style import (
    COLOURS,
    DIVERGING,
    GREY,
    SEQUENTIAL,
    category,
    colour_bar,
    drawn,
    ink_on,
    legend_above,
    sheet,
)
from studykit.runs.text import plural
from studykit.study.methods import PHASE_1, PHASE_2

SHARES = Normalize(0.0, 1.0)  # always the whole range, so that figures can be compared with each other


def _about(samples: int, tokens: str, seeds: int | None = None) -> str:
    """What the numbers of a caption stand on."""
    kind = {"both": "prompt and completion"}.get(tokens, tokens)
    over = f", {plural(seeds, 'seed')}" if seeds else ""
    return f"n = {plural(samples, 'sample')}{over}, {kind} tokens, padding excluded"


def _labels(layers: Sequence[str] | None, count: int) -> list[str]:
    return list(layers) if layers is not None else [f"L{i + 1}" for i in range(count)]


def _percent(value: float, signed: bool = False) -> str:
    """A share as the text of a cell, in percent or percentage points; what rounds to 0 but is not 0 says so."""
    if abs(value) < 0.005:
        return "<1" if value > 0 and not signed else "0"
    return f"{100 * value:+.0f}" if signed else f"{100 * value:.0f}"


def _own(weights: np.ndarray, members: Sequence[str], target: str) -> float:
    """The target's share, layers counting alike."""
    return float(weights[:, list(members).index(target)].mean())


def _heatmap(axes: Axes, values: np.ndarray, members, target: str, layers, cell: float, norm=SHARES, cmap=SEQUENTIAL):
    """Cells, `cell` inches wide, with their numbers, the target's column framed; the mesh, for the colour bar."""
    mesh = axes.pcolormesh(values, cmap=cmap, norm=norm, edgecolors="white", linewidth=1.0)
    text = {"ha": "center", "va": "center", "fontsize": np.clip(28 * cell, 5.0, 9.0)}
    for (layer, member), value in np.ndenumerate(values):
        label = _percent(value, signed=norm.vmin < 0)
        axes.text(member + 0.5, layer + 0.5, label, color=ink_on(cmap(norm(value))), **text)
    column = list(members).index(target)
    axes.add_patch(Rectangle((column, 0), 1, len(values), fill=False, edgecolor="black", linewidth=1.8, clip_on=False))
    axes.set_xticks(np.arange(len(members)) + 0.5, members, rotation=35, ha="right", rotation_mode="anchor")
    axes.get_xticklabels()[column].set_fontweight("bold")
    axes.set_yticks(np.arange(len(values)) + 0.5, _labels(layers, len(values)))
    axes.tick_params(length=0)
    axes.set_xlabel("member adapter")
    axes.spines[:].set_visible(False)
    return mesh


def _bar(figure: Figure, mesh, axes, label: str) -> None:
    bar = colour_bar(figure, mesh, axes, label=label, format=PercentFormatter(1.0, symbol=""), pad=0.015, aspect=14)
    bar.outline.set_visible(False)


def _depth(layers: int) -> float:
    """Inches for the cells of so many layers; never less than the label of a colour bar needs."""
    return max(0.26 * layers, 1.3)


@drawn
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
    """Mean share per layer and member, (L, A), as a heatmap with its numbers; `weighted` names norm-weighted shares."""
    quantity = "norm-weighted share" if weighted else "fusion weight"
    width = min(7.5, 1.8 + 0.7 * len(members))
    figure, axes = sheet(height=1.2 + _depth(len(weights)), width=width)
    mesh = _heatmap(axes[0, 0], weights, members, target, layers, (width - 1.8) / len(members))
    axes[0, 0].set(ylabel="layer", title=title)
    _bar(figure, mesh, axes, "weight (%)" if not weighted else "share (%)")
    own, top = _own(weights, members, target), np.unravel_index(np.argmax(weights), weights.shape)
    alt = (
        f"Heatmap of the mean {quantity}, {len(weights)} layers by {len(members)} members, n = {samples} samples. "
        f"The target {target} gets {own:.1%} on average; the largest cell is {members[top[1]]} in "
        f"{_labels(layers, len(weights))[top[0]]} with {weights[top]:.1%}."
    )
    about = _about(samples, tokens, seeds)
    caption = f"Mean {quantity} per layer and member (percent); target {target} framed. {about}."
    return figure, alt, caption


@drawn
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
    """Small multiples on one colour scale: title -> `quantity` (L, A); `targets` is one name, or title -> name."""
    target = dict.fromkeys(panels, targets) if isinstance(targets, str) else targets
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows, width = -(-len(panels) // columns), 1.4 + columns * (0.3 + 0.3 * len(members))
    height = 0.3 + rows * (1.0 + _depth(max(map(len, panels.values()))))
    figure, axes = sheet(rows, columns, width=width, height=height, sharey=True)
    for spare in axes.flat[len(panels) :]:
        spare.set_visible(False)
    for place, (title, weights) in zip(axes.flat, panels.items(), strict=False):
        mesh = _heatmap(place, weights, members, target[title], layers, 0.3)
        place.set_title(title)
    for place in axes[:, 0]:
        place.set_ylabel("layer")
    _bar(figure, mesh, axes, f"{quantity} (%)")
    own = ", ".join(f"{name} {_own(weights, members, target[name]):.1%}" for name, weights in panels.items())
    what = f"{len(panels)} heatmaps of the mean {quantity} by layer and member"
    alt = f"{what}, n = {samples} samples. The target gets: {own}."
    caption = f"Mean {quantity} per layer and member (percent); target framed. {_about(samples, tokens, seeds)}."
    return figure, alt, caption


@drawn
def phase_comparison(
    first: np.ndarray,
    second: np.ndarray,
    members: Sequence[str],
    target: str,
    *,
    samples: int,
    tokens: str = "completion",
    names: tuple[str, str] = (PHASE_1.title, PHASE_2.title),
    layers: Sequence[str] | None = None,
    seeds: int | None = None,
) -> tuple[Figure, str, str]:
    """Two weight arrays (L, A) on the same samples and their difference, second less first, in percentage points."""
    change = second - first
    limit = max(np.abs(change).max(), 0.05)
    width = np.clip(2.0 + 3 * (0.3 + 0.28 * len(members)), 7.0, 11.0)
    cell = (width - 2.9) / 3 / len(members)
    figure, axes = sheet(1, 3, height=1.2 + _depth(len(first)), width=width, sharey=True)
    for place, weights, name in zip(axes[0], (first, second), names, strict=False):
        mesh = _heatmap(place, weights, members, target, layers, cell)
        place.set_title(name)
    _bar(figure, mesh, axes[0, :2], "weight (%)")
    mesh = _heatmap(axes[0, 2], change, members, target, layers, cell, Normalize(-limit, limit), DIVERGING)
    axes[0, 2].set_title(f"{names[1]} \u2212 {names[0]}")
    axes[0, 0].set_ylabel("layer")
    _bar(figure, mesh, axes[0, 2], "difference (points)")
    alt = (
        f"Heatmaps of fusion weights by layer and member in {names[0]} and {names[1]}, and their difference, on the "
        f"same n = {samples} samples. The share of the target {target} goes from {_own(first, members, target):.1%} to "
        f"{_own(second, members, target):.1%}."
    )
    caption = (
        f"Mean fusion weight per layer and member in {names[0]} and {names[1]} (percent), and the difference "
        f"(percentage points, colour centred at 0); target {target} framed. The same samples in both: "
        f"{_about(samples, tokens, seeds)}."
    )
    return figure, alt, caption


@drawn
def attention_by_phase(
    shares: Mapping[str, np.ndarray],
    members: Sequence[str],
    target: str,
    *,
    samples: int,
    tokens: str = "completion",
    title: str = "",
) -> tuple[Figure, str, str]:
    """Mean share of each member in each phase, in order: phase -> (seeds, A). Points are seeds, lines join means."""
    figure, axes = sheet(width=6.0, height=3.6)
    axes, phases = axes[0, 0], list(shares)
    means = np.stack([np.mean(shares[phase], axis=0) for phase in phases])  # (P, A)
    seeds = max(len(values) for values in shares.values())
    for i, member in enumerate(members):
        # side by side, or equal shares would hide each other
        x = np.arange(len(phases)) + 0.035 * (i - (len(members) - 1) / 2)
        style, size = category(i), {"linewidth": 1.5, "markersize": 5.5}
        if member == target:
            size, member = {"linewidth": 3.0, "markersize": 8}, f"{member} (target)"
        axes.plot(x, 100 * means[:, i], label=member, clip_on=False, **style, **size)
        for at, phase in zip(x, phases, strict=True):
            points = 100 * np.asarray(shares[phase])[:, i]
            axes.scatter([at] * len(points), points, s=12, facecolors="white", edgecolors=style["color"], zorder=3)
    _level(axes, 100 / len(members), f"uniform over all {len(members)} members")
    axes.set_xticks(range(len(phases)), phases)
    axes.set(ylabel="mean fusion weight (%)", xlabel="phase", title=title, xlim=(-0.3, len(phases) - 0.7))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    legend_above(figure, axes)
    own = ", ".join(f"{phase} {_own(means[[i]], members, target):.1%}" for i, phase in enumerate(phases))
    over = f"n = {samples} samples, {plural(seeds, 'seed')}"
    alt = f"Mean fusion weight of {len(members)} members by phase, {over}. The target {target}: {own}."
    caption = f"Mean fusion weight per member over all layers; open points: seeds. {_about(samples, tokens, seeds)}."
    return figure, alt, caption


def _level(axes: Axes, y: float, label: str, below: bool = False) -> None:
    """A dotted level to compare with, named at the right end, above or below it."""
    axes.axhline(y, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
    at = {"xy": (1, y), "xycoords": ("axes fraction", "data"), "xytext": (-2, -2 if below else 2)}
    look = {"ha": "right", "va": "top" if below else "bottom", "color": GREY, "fontsize": 7.5}
    axes.annotate(label, **at, textcoords="offset points", **look)


def _levels(members: int | Mapping[str, int], lines: Mapping, level: Callable[[int], float]) -> dict[str, float]:
    """What uniform weights come to, by name: one level for each number of members that take part in a line."""
    counts = dict.fromkeys(lines, members) if isinstance(members, int) else members
    levels = {}
    for count in sorted({counts[label] for label in lines}, reverse=True):
        its = [label for label in lines if counts[label] == count]
        levels[f"uniform over {count} members" + f" ({', '.join(its)})" * (len(its) < len(lines))] = float(level(count))
    return levels


@drawn
def entropy_per_layer(
    lines: Mapping[str, np.ndarray],
    *,
    members: int | Mapping[str, int],
    samples: int,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
    normalised: bool = False,
) -> tuple[Figure, str, str]:
    """Entropy of the fusion weights per layer: label -> (seeds, L), bits or (`normalised`) divided by log2 A.

    `members` is the number that take part, all but the excluded: one for all lines, or label -> number.
    """
    levels = {"uniform": 1.0} if normalised else _levels(members, lines, np.log2)
    unit = "entropy / log2 of the members" if normalised else "entropy (bits)"
    return _per_layer(lines, unit, "Entropy of the fusion weights per layer", levels, samples, tokens, layers)


@drawn
def target_share_per_layer(
    lines: Mapping[str, np.ndarray],
    *,
    target: str,
    members: int | Mapping[str, int],
    samples: int,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
) -> tuple[Figure, str, str]:
    """Share of the target's own adapter per layer: label -> (seeds, L), shares in 0..1; `members` as above."""
    percent = {label: 100 * np.asarray(values) for label, values in lines.items()}
    what = f"Mean fusion weight on the target's own adapter ({target}) per layer"
    levels = _levels(members, lines, lambda count: 100 / count)
    return _per_layer(percent, f"weight on {target} (%)", what, levels, samples, tokens, layers)


def _per_layer(lines, unit, what, levels, samples, tokens, layers) -> tuple[Figure, str, str]:
    """One line per label over the layers, a band of +- 1 sd over its seeds, and dotted levels to compare with."""
    figure, axes = sheet(width=6.0, height=3.2)
    axes = axes[0, 0]
    arrays = {label: np.atleast_2d(values) for label, values in lines.items()}  # (seeds, L)
    depth = max(values.shape[1] for values in arrays.values())
    for i, (label, values) in enumerate(arrays.items()):
        x, middle, style = np.arange(values.shape[1]), values.mean(0), category(i)
        axes.plot(x, middle, label=label, **style)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            axes.fill_between(x, middle - spread, middle + spread, color=style["color"], alpha=0.15, linewidth=0)
    for name, level in levels.items():
        _level(axes, level, name, below=level < max(levels.values()))
    step = -(-depth // 16)
    axes.set_xticks(range(0, depth, step), _labels(layers, depth)[::step])
    axes.set(xlabel="layer", ylabel=unit)
    axes.set_ylim(0, None)
    axes.grid(axis="y")
    legend_above(figure, axes)
    seeds = max(map(len, arrays.values()))
    means = ", ".join(f"{label} {values.mean():.2f}" for label, values in arrays.items())
    even = ", ".join(f"{name} {level:.4g}" for name, level in levels.items())
    over = f"n = {samples} samples, {plural(seeds, 'seed')}"
    alt = f"{what}, {depth} layers, {over}; mean over layers, {unit}: {means}; {even}."
    band = " Bands are \u00b1 1 sd over seeds." if seeds > 1 else ""
    return figure, alt, f"{what}; dotted: {even}.{band} {_about(samples, tokens, seeds)}."


@drawn
def stacked_bars(
    weights: np.ndarray,
    members: Sequence[str],
    target: str | None = None,
    *,
    samples: int | None = None,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
    title: str = "",
    seeds: int | None = None,
) -> tuple[Figure, str, str]:
    """The AdvFusion authors' figure: a bar per layer, layer 1 at the bottom, split by member; >= 2 % is labelled."""
    figure, axes = sheet(height=1.1 + 0.34 * len(weights))
    axes, left, y = axes[0, 0], np.zeros(len(weights)), np.arange(len(weights))
    edge = {"edgecolor": "white", "linewidth": 0.6}
    for i, member in enumerate(members):
        colour, label = category(i)["color"], f"{member} (target)" if member == target else member
        # the target in grey print; colours return
        hatch = "//" if member == target else "\\\\" if i >= len(COLOURS) else None
        bars = axes.barh(y, weights[:, i], left=left, height=0.8, color=colour, label=label, hatch=hatch, **edge)
        for bar, share in zip(bars, weights[:, i], strict=True):
            if share >= 0.02:
                at = (bar.get_x() + share / 2, bar.get_y() + bar.get_height() / 2)
                fit = {"fontsize": 7.5} if share >= 0.06 else {"fontsize": 6.0, "rotation": 90}
                axes.text(*at, f"{share:.1%}", ha="center", va="center", color=ink_on(colour), **fit)
        left = left + weights[:, i]
    axes.set_yticks(y, _labels(layers, len(weights)))
    axes.set(xlim=(0, max(1.0, left.max())), xlabel="share of the fusion weight", ylabel="layer", title=title)
    axes.margins(y=0.01)
    legend_above(figure, axes, columns=5)
    count = "n not given by the source" if samples is None else f"n = {samples} samples"
    own = f" The target {target} gets {_own(weights, members, target):.1%} on average." if target else ""
    named = f"{title}: " if title else ""
    bars = f"Stacked bars of the mean fusion weight of {len(members)} members in {len(weights)} layers"
    alt = f"{named}{bars}, {count}.{own}"
    about = count if samples is None else _about(samples, tokens, seeds)
    caption = f"{named}Mean fusion weight per layer, split by member; shares from 2 % are labelled. {about}."
    return figure, alt, caption

"""Lines and bars of fusion weights: by phase, by layer, and the authors' stacked bars.

Weights come as arrays (L, A), layers by members, whose rows sum to 1 (from `attention.record.mean_weights`); layer 1,
the nearest to the embeddings, is at the bottom or on the left. The colour of a member depends on its index in `members`
alone. Every caption gives the number of samples and the tokens that the weights are means over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studykit.attention.record import SATURATED
from studykit.report.figures.style import COLOURS, GREY, category_style, ink_on, legend_above, new_figure, styled
from studykit.runs.text import plural


def samples_text(samples: int, tokens: str, seeds: int | None = None) -> str:
    """Returns the samples, seeds and tokens behind the numbers of a caption."""
    kind = {"both": "prompt and completion"}.get(tokens, tokens)
    over = f", {plural(seeds, 'seed')}" if seeds else ""
    return f"n = {plural(samples, 'sample')}{over}, {kind} tokens, padding excluded"


def layer_labels(layers: Sequence[str] | None, count: int) -> list[str]:
    return list(layers) if layers is not None else [f"L{i + 1}" for i in range(count)]


def layer_rows(layers: Sequence[str] | None, count: int) -> list[str]:
    """Returns the labels of layers where each has a row of its own, so that the first can say where it is."""
    first, *others = layer_labels(layers, count)
    return [f"{first} (input)", *others]


def own_weight(weights: np.ndarray, members: Sequence[str], target: str) -> float:
    """Returns the target's weight, mean over layers; 0 where the target's adapter is no member."""
    return float(weights[:, list(members).index(target)].mean()) if target in members else 0.0


@styled
def attention_by_phase(
    weights: Mapping[str, np.ndarray],
    members: Sequence[str],
    target: str,
    *,
    samples: int,
    tokens: str = "completion",
    title: str = "",
) -> tuple[Figure, str, str]:
    """Draws the mean weight of each member in each phase: points are seeds, and lines join their means.

    weights: weights (seeds, A) by the title of the phase, in order.
    """
    figure, axes = new_figure(height=3.6)
    axes, phases = axes[0, 0], list(weights)
    means = np.stack([np.mean(weights[phase], axis=0) for phase in phases])  # (P, A)
    seeds = max(len(values) for values in weights.values())
    for i, member in enumerate(members):
        # points stand side by side, or equal weights would hide each other
        x = np.arange(len(phases)) + 0.035 * (i - (len(members) - 1) / 2)
        style, size = category_style(i), {"linewidth": 1.5, "markersize": 5.5}
        if member == target:
            size, member = {"linewidth": 3.0, "markersize": 8}, f"{member} (target)"
        axes.plot(x, 100 * means[:, i], label=member, clip_on=False, **style, **size)
        for at, phase in zip(x, phases, strict=True):
            points = 100 * np.asarray(weights[phase])[:, i]
            axes.scatter([at] * len(points), points, s=12, facecolors="white", edgecolors=style["color"], zorder=3)
    _level(axes, 100 / len(members), f"uniform over all {len(members)} members")
    axes.set_xticks(range(len(phases)), phases)
    axes.set(ylabel="mean fusion weight (%)", xlabel="phase", title=title, xlim=(-0.3, len(phases) - 0.7))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    legend_above(figure, axes)
    target_text = ", ".join(f"{phase} {own_weight(means[[i]], members, target):.1%}" for i, phase in enumerate(phases))
    over = f"n = {samples} samples, {plural(seeds, 'seed')}"
    alt = f"Mean fusion weight of {len(members)} members by phase, {over}. The target {target}: {target_text}."
    caption = (
        f"The weight of {target}: {target_text}. Mean fusion weight per member over all layers; open points: seeds. "
        f"{samples_text(samples, tokens, seeds)}."
    )
    return figure, alt, caption


def _level(axes: Axes, y: float, label: str, below: bool = False) -> None:
    """Draws a dotted level to compare with, and its name at the right end, above or below it."""
    axes.axhline(y, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.annotate(
        label,
        xy=(1, y),
        xycoords=("axes fraction", "data"),
        xytext=(-2, -2 if below else 2),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        color=GREY,
        fontsize=7.5,
    )


def _levels(members: int | Mapping[str, int], lines: Mapping, level: Callable[[int], float]) -> dict[str, float]:
    """Returns the levels of uniform weights by name, one for each number of members that take part in a line."""
    counts = dict.fromkeys(lines, members) if isinstance(members, int) else members
    levels = {}
    for count in sorted({counts[label] for label in lines}, reverse=True):
        labels = [label for label in lines if counts[label] == count]
        some = f" ({', '.join(labels)})" if len(labels) < len(lines) else ""
        levels[f"uniform over {count} members{some}"] = float(level(count))
    return levels


@styled
def entropy_per_layer(
    lines: Mapping[str, np.ndarray],
    *,
    members: int | Mapping[str, int],
    samples: int,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
    normalised: bool = False,
) -> tuple[Figure, str, str]:
    """Draws the entropy of the fusion weights per layer.

    Args:
        lines: entropies (seeds, L) in bits by label, or divided by log2 of `members` if `normalised`.
        members: number of members that take part, all except the excluded ones: one for all lines, or by label.
    """
    levels = {"uniform": 1.0} if normalised else _levels(members, lines, np.log2)
    unit = "entropy / log2 of the members" if normalised else "entropy (bits)"
    return _per_layer(lines, unit, "Entropy of the fusion weights per layer", levels, samples, tokens, layers)


@styled
def target_share_per_layer(
    lines: Mapping[str, np.ndarray],
    *,
    target: str,
    members: int | Mapping[str, int],
    samples: int,
    tokens: str = "completion",
    layers: Sequence[str] | None = None,
) -> tuple[Figure, str, str]:
    """Draws the weight of the target's own adapter per layer.

    Args:
        lines: weights (seeds, L), 0 to 1, by label.
        members: as for `entropy_per_layer`.
    """
    percent = {label: 100 * np.asarray(values) for label, values in lines.items()}
    what = f"Mean fusion weight on the target's own adapter ({target}) per layer"
    levels = _levels(members, lines, lambda count: 100 / count)
    return _per_layer(percent, f"weight on {target} (%)", what, levels, samples, tokens, layers)


@styled
def saturation_per_layer(
    lines: Mapping[str, np.ndarray], *, samples: int, tokens: str = "completion", layers: Sequence[str] | None = None
) -> tuple[Figure, str, str]:
    """Draws the share of tokens with one weight above `SATURATED` per layer.

    lines: shares (seeds, L), 0 to 1, by label.
    """
    percent = {label: 100 * np.asarray(values) for label, values in lines.items()}
    what = f"Tokens with one fusion weight above {SATURATED} per layer"
    return _per_layer(percent, "saturated tokens (%)", what, {}, samples, tokens, layers)


def _per_layer(
    lines: Mapping[str, np.ndarray],
    unit: str,
    what: str,
    levels: Mapping[str, float],
    samples: int,
    tokens: str,
    layers: Sequence[str] | None,
) -> tuple[Figure, str, str]:
    """Draws one line per label over the layers, a band of 1 sd over its seeds, and dotted levels to compare with."""
    figure, axes = new_figure(height=3.2)
    axes = axes[0, 0]
    arrays = {label: np.atleast_2d(values) for label, values in lines.items()}  # (seeds, L)
    depth = max(values.shape[1] for values in arrays.values())
    for i, (label, values) in enumerate(arrays.items()):
        x, middle, style = np.arange(values.shape[1]), values.mean(0), category_style(i)
        axes.plot(x, middle, label=label, **style)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            axes.fill_between(x, middle - spread, middle + spread, color=style["color"], alpha=0.15, linewidth=0)
    for name, level in levels.items():
        _level(axes, level, name, below=level < max(levels.values()))
    step = -(-depth // 16)
    axes.set_xticks(range(0, depth, step), layer_labels(layers, depth)[::step])
    axes.set(xlabel="layer", ylabel=unit)
    axes.set_ylim(0, None)
    axes.grid(axis="y")
    legend_above(figure, axes)
    seeds = max(map(len, arrays.values()))
    means = ", ".join(f"{label} {values.mean():.2f}" for label, values in arrays.items())
    even = "; dotted: " * bool(levels) + ", ".join(f"{name} {level:.4g}" for name, level in levels.items())
    over = f"n = {samples} samples, {plural(seeds, 'seed')}"
    alt = f"{what}, {depth} layers, {over}; mean over layers, {unit}: {means}{even}."
    band = " Bands are \u00b1 1 sd over seeds." if seeds > 1 else ""
    message = "; ".join(
        f"{label} {values.mean():.3g}" + (f" \u00b1 {values.mean(1).std(ddof=1):.2g}" if len(values) > 1 else "")
        for label, values in arrays.items()
    )
    over_seeds = " \u00b1 sd over seeds" * (seeds > 1)
    caption = (
        f"{unit[0].upper()}{unit[1:]}, mean over layers{over_seeds}: {message}. {what}{even}.{band} "
        f"{samples_text(samples, tokens, seeds)}."
    )
    return figure, alt, caption


@styled
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
    """Draws the AdvFusion authors' figure: a bar per layer, split by member, with labels on shares of 2 % and more."""
    figure, axes = new_figure(height=1.1 + 0.34 * len(weights))
    axes, left, y = axes[0, 0], np.zeros(len(weights)), np.arange(len(weights))
    edge = {"edgecolor": "white", "linewidth": 0.6}
    for i, member in enumerate(members):
        colour, label = category_style(i)["color"], f"{member} (target)" if member == target else member
        # hatches show the target in grey print, and members whose colour has been used before
        hatch = "//" if member == target else "\\\\" if i >= len(COLOURS) else None
        bars = axes.barh(y, weights[:, i], left=left, height=0.8, color=colour, label=label, hatch=hatch, **edge)
        for bar, share in zip(bars, weights[:, i], strict=True):
            if share >= 0.02:
                at = (bar.get_x() + share / 2, bar.get_y() + bar.get_height() / 2)
                fit = {"fontsize": 7.5} if share >= 0.06 else {"fontsize": 6.0, "rotation": 90}
                axes.text(*at, f"{share:.1%}", ha="center", va="center", color=ink_on(colour), **fit)
        left = left + weights[:, i]
    axes.set_yticks(y, layer_rows(layers, len(weights)))
    axes.set(xlim=(0, max(1.0, left.max())), xlabel="weight, 0 to 1", ylabel="layer", title=title)
    axes.margins(y=0.01)
    legend_above(figure, axes, columns=5)
    count = "n not given by the source" if samples is None else f"n = {samples} samples"
    target_text = f" The target {target} gets {own_weight(weights, members, target):.1%} on average." if target else ""
    named = f"{title}: " if title else ""
    bars = f"Stacked bars of the mean fusion weight of {len(members)} members in {len(weights)} layers"
    alt = f"{named}{bars}, {count}.{target_text}"
    about = count if samples is None else samples_text(samples, tokens, seeds)
    message = f"{target_text.strip()} " if target_text else ""
    caption = f"{named}{message}Mean fusion weight per layer, split by member; weights from 2 % are labelled. {about}."
    return figure, alt, caption

"""Figures of notebooks 04 and 06: scores, the weight of the target's own adapter, the worth of members, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from matplotlib.transforms import Bbox

from studykit.evaluation.results import Interval, MethodCost, MethodSummary, OwnAttention
from studykit.evaluation.worth import Worth
from studykit.report.figures.style import (
    GREY,
    Look,
    legend_above,
    logarithmic,
    look_of,
    marker_style,
    method_looks,
    method_rows,
    new_figure,
    styled,
)
from studykit.report.fusion_weights import is_surely_worth_most
from studykit.runs.text import plural
from studykit.study.methods import PHASE_1

ALIKE = 0.06  # memories that differ by a smaller share are not drawn
LABEL, LETTER, BESIDE = 0.15, 0.07, 0.1  # inches: a name's height, a letter's width, from a point to its name


@styled
def scores(
    rows: Sequence[MethodSummary],
    *,
    metric: str,
    samples: int,
    confidence: float = 0.95,
    baseline: str | None = None,
    looks: Mapping[str, Look] | None = None,
    title: str = "",
) -> tuple[Figure, str, str]:
    """Draws the mean of every method with its interval over rows, and one open point per seed.

    Args:
        metric: name and unit, the label of the axis, as "pass@1 (%)".
        baseline: the method whose mean is drawn through the figure.
        looks: colours and markers by method, see `style.method_looks`.
    """
    names, row_height = method_rows(row.method for row in rows)
    figure, axes = new_figure(height=1.0 + row_height * len(rows))
    axes = axes[0, 0]
    seeds = max((len(row.points) for row in rows), default=0)
    for y, row in enumerate(rows):
        _plot_row(axes, y, row.mean, row.interval, row.points, look_of(row.method, looks))
        if row.method == baseline:
            axes.axvline(row.mean, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), names)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=metric, title=title)
    axes.grid(axis="x")
    values = "; ".join(f"{row.method} {row.mean:.4g} {_interval_text(row.interval, '.4g')}" for row in rows)
    about = f"n = {samples} samples, {plural(seeds, 'seed')}, {confidence:.0%} intervals"
    alt = f"{metric} of {len(rows)} methods, {about}: {values}."
    line = f" The dotted line is {baseline}." if any(row.method == baseline for row in rows) else ""
    caption = (
        f"{metric} from {min(row.mean for row in rows):.3g} to {max(row.mean for row in rows):.3g}: mean and "
        f"{confidence:.0%} interval per method; open points are seeds.{line} n = {samples} samples, "
        f"{plural(seeds, 'seed')}."
    )
    return figure, alt, caption


@styled
def own_weight_slopes(
    rows: Sequence[OwnAttention], target: str, *, looks: Mapping[str, Look] | None = None
) -> tuple[Figure, str, str]:
    """Draws the weight of the target's own adapter from the initialisation to the end, a line per method.

    A method of one phase has a straight line. Points are means over seeds; thin lines are the seeds.

    Args:
        looks: colours and markers by method, see `style.method_looks`.
    """
    figure, axes = new_figure(height=2.9)
    axes = axes[0, 0]
    methods = list(dict.fromkeys(row.method for row in rows))
    states = {method: [row for row in rows if row.method == method] for method in methods}
    # the columns: all states between the first and the last of a method, in their order
    between = list(dict.fromkeys(_between(row.phase) for of_method in states.values() for row in of_method[1:-1]))
    columns = [rows[0].phase, *sorted(between), "finished"]
    ends = []
    for method, of_method in states.items():
        look = look_of(method, looks)
        x = [0, *(columns.index(_between(row.phase)) for row in of_method[1:-1]), len(columns) - 1][-len(of_method) :]
        for seed in zip(*(row.by_seed for row in of_method), strict=True):
            axes.plot(x, 100 * np.array(seed), color=look.colour, linewidth=0.6, alpha=0.5)
        y = [100 * row.own_weight for row in of_method]
        axes.plot(x, y, clip_on=False, **marker_style(look, size=6))
        ends.append((y[-1], f" {method} {y[-1]:.0f}", look.colour))
    top = max(100 * weight for row in rows for weight in row.by_seed) * 1.08 or 1.0
    axes.set(
        ylim=(0, top), xlim=(-0.15, len(columns) - 1), ylabel=f"weight on {target} (%)", xlabel="state of the fusion"
    )
    for (_, label, colour), height in zip(
        sorted(ends), _spread([end[0] for end in sorted(ends)], top / 15), strict=True
    ):
        axes.annotate(label, (len(columns) - 1, height), xytext=(5, 0), textcoords="offset points", va="center",
                      color=colour, fontsize=8, annotation_clip=False)  # fmt: skip
    axes.set_xticks(range(len(columns)), [column.replace(", ", ",\n") for column in columns])
    axes.grid(axis="y")
    samples, seeds = rows[0].samples, max(len(row.by_seed) for row in rows)
    about = f"n = {samples} samples, {plural(seeds, 'seed')}, {rows[0].tokens} tokens"
    from_to = "; ".join(f"{m} {of[0].own_weight:.1%} to {of[-1].own_weight:.1%}" for m, of in states.items())
    alt = f"Weight of the {target} adapter, from initialisation to the finished fusion, {about}: {from_to}."
    moved = ", ".join(f"{m} {_change(of[0], of[-1])}" for m, of in states.items())
    caption = (
        f"Training changed the weight of the {target} adapter by these points (and by seed): {moved}. Thin lines: "
        f"seeds. {about}."
    )
    return figure, alt, caption


def _change(first: OwnAttention, last: OwnAttention) -> str:
    """Returns the change of a weight in points and, in brackets, the least and the largest change of a seed."""
    by_seed = 100 * np.subtract(last.by_seed, first.by_seed)
    text = f"{100 * (last.own_weight - first.own_weight):+.0f}"
    return text if len(by_seed) < 2 else f"{text} ({by_seed.min():+.0f} to {by_seed.max():+.0f})"


def _between(state: str) -> str:
    """Returns the column of a state: phase 1 with and without a mask share one."""
    return PHASE_1.title if state.startswith(PHASE_1.title) and not state.endswith(", restored") else state


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Returns rising values, moved up as little as needed to lie at least `gap` apart."""
    spread: list[float] = []
    for value in values:
        spread.append(max(value, spread[-1] + gap) if spread else value)
    return spread


def _plot_row(axes: Axes, y: int, value: float, interval: Interval | None, points: Sequence[float], look: Look) -> None:
    """Draws a value with its interval, if a single test row has not left it without one, and its seeds below."""
    if interval:
        axes.plot((interval.low, interval.high), (y, y), color=look.colour, linewidth=2.6, solid_capstyle="butt")
    axes.plot(value, y, **marker_style(look))
    below = np.full(len(points), y + 0.26)
    axes.scatter(points, below, s=14, facecolors="white", edgecolors=look.colour, zorder=3)


def _interval_text(interval: Interval | None, digits: str) -> str:
    return f"({interval.low:{digits}} to {interval.high:{digits}})" if interval else "(no interval)"


@styled
def member_worth(worths: Mapping[str, Worth], *, looks: Mapping[str, Look] | None = None) -> tuple[Figure, str, str]:
    """Draws what each member is worth to the finished fusion of each method, with its interval over the test rows.

    Args:
        worths: worth by method, each with members that were excluded in turn.
        looks: colours and markers by method, see `style.method_looks`.
    """
    first = next(iter(worths.values()))
    members = list(dict.fromkeys(row.member for worth in worths.values() for row in worth.finished))
    members.sort(key=lambda member: member == first.target)  # the target's comes last
    figure, axes = new_figure(height=1.0 + len(members) * max(0.28, 0.085 * len(worths)))
    axes, step = axes[0, 0], 0.7 / len(worths)
    for n, (method, worth) in enumerate(worths.items()):
        look = look_of(method, looks)
        places = [members.index(row.member) + (n - (len(worths) - 1) / 2) * step for row in worth.finished]
        for y, row in zip(places, worth.finished, strict=True):
            if row.interval:
                axes.plot((row.interval.low, row.interval.high), (y, y), color=look.colour, linewidth=1.4)
        values = [row.value for row in worth.finished]
        axes.plot(values, places, label=method, linestyle="none", **marker_style(look, size=6))
    for border in np.arange(len(members) - 1) + 0.5:
        axes.axhline(border, color="#dddddd", linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(members)), [f"{m} (target)" if m == first.target else m for m in members])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="loss without the member \u2212 loss with it (nats per token)", ylim=(len(members) - 0.5, -0.5))
    axes.grid(axis="x")
    legend_above(figure, axes)
    most = {method: max(worth.finished, key=lambda row: row.value) for method, worth in worths.items()}
    about = f"n = {plural(first.samples, 'sample')}, {plural(first.seeds, 'seed')}, completion tokens"
    alt = f"What each of {len(members)} members is worth to {len(worths)} fusions, {about}; most: " + "; ".join(
        f"{method} {row.member} {row.value:+.3f}" for method, row in most.items()
    )
    needs: dict[str, list[str]] = {}
    for method, row in most.items():
        needs.setdefault(row.member, []).append(method)
    message = "; ".join(f"{', '.join(methods)} {'need' if len(methods) > 1 else 'needs'} {member} most"
                        for member, methods in needs.items())  # fmt: skip
    unsure = [method for method, worth in worths.items() if not is_surely_worth_most(most[method], worth.finished)]
    limit = f" Other seeds could need another member most in {', '.join(unsure)}." if unsure else ""
    caption = (
        f"{message}.{limit} What each member is worth to the finished fusion: its loss without the member (taken out "
        "of the softmax, after training) minus its loss with it. A fusion that was trained without the member, as "
        f"those marked ~, can do better. Bars: 95 % intervals over the test rows. {about}."
    )
    return figure, f"{alt}.", caption


@styled
def cost(
    costs: Sequence[MethodCost],
    scores: Mapping[str, float],
    *,
    metric: str,
    samples: int,
    looks: Mapping[str, Look] | None = None,
    title: str = "",
) -> tuple[Figure, str, str]:
    """Draws the score of every method against each of its costs that is known for at least one method.

    The scales of the costs are logarithmic, and every point has the name of its method beside it.

    Args:
        scores: mean of the metric by method.
        metric: name and unit, the label of the axis, as "pass@1 (%)".
        looks: colours and markers by method, see `style.method_looks`; by default those of these methods in order.
    """
    looks = looks or method_looks(one.method for one in costs)
    labels = {"parameters": "trainable parameters", "seconds": "training time (s)", "memory_mb": "peak memory (MB)"}
    values = {key: [getattr(cost, key) for cost in costs] for key in labels}
    shown = {key: label for key, label in labels.items() if _differs(key, values[key])}
    shown = shown or {"parameters": labels["parameters"]}  # a study of the base alone has no other cost
    figure, axes = new_figure(1, len(shown), height=max(3.0, 0.9 + LABEL * len(costs)), sharey=True)
    missing = []
    for panel, (key, label) in zip(axes[0], shown.items(), strict=True):
        missing += [f"{one.method} ({label})" for one in costs if getattr(one, key) is None]
        for one in costs:
            if (value := getattr(one, key)) is not None:
                panel.plot(value, scores[one.method], linestyle="none", **marker_style(look_of(one.method, looks)))
        if key == "parameters":
            _scale_parameters(panel, values[key])
        else:
            logarithmic(panel, "x")
        panel.set_xlabel(label)
        panel.grid()
    axes[0, 0].set(ylabel=metric)
    axes[0, 0].margins(y=0.12)
    figure.suptitle(title) if title else None
    figure.draw_without_rendering()  # places the axes, as the labels are placed between their markers
    for panel, key in zip(axes[0], shown, strict=True):
        points = {one.method: (getattr(one, key), scores[one.method]) for one in costs if getattr(one, key) is not None}
        _label_points(panel, points)
    alike = [label for key, label in labels.items() if key not in shown and any(values[key])]
    left_out = f" All methods are within {ALIKE:.0%} in {', '.join(alike)}." if alike else ""
    left_out += f" Not measured, hence left out: {', '.join(missing)}." if missing else ""
    means = "; ".join(f"{one.method} {scores[one.method]:.4g}" for one in costs)
    about = f"n = {samples} samples"
    alt = f"{metric} of {len(costs)} methods against {', '.join(shown.values())}, {about}: {means}.{left_out}"
    trained = sorted((one for one in costs if one.parameters), key=lambda one: one.parameters or 0)
    ends = {"most": trained[-1], "fewest": trained[0]} if len(trained) > 1 else {}
    message = "; ".join(
        f"{one.method} trains {how} parameters ({one.parameters:,}) and has {scores[one.method]:.3g}"
        for how, one in ends.items()
    )
    caption = f"{message}{'. ' * bool(message)}{metric}, mean over seeds, against cost.{left_out} {about}."
    return figure, alt, caption


def _scale_parameters(panel: Axes, values: Sequence[int]) -> None:
    """Makes the scale of the trained parameters logarithmic, with a place for 0 where the base is shown."""
    if all(values):
        logarithmic(panel, "x", EngFormatter(sep=""))
        return
    smallest = min((value for value in values if value), default=1)
    panel.set_xscale("symlog", linthresh=smallest / 2, linscale=0.5)
    decades = 10.0 ** np.arange(np.ceil(np.log10(smallest / 2)), 13)
    panel.set_xticks([0, *decades[decades < 3 * max(*values, 1)]])
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.minorticks_off()


def _label_points(panel: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Writes a name beside each point (x, y), no two at one height, with a line to each that had to move away."""
    names = sorted(points, key=lambda name: points[name][1])
    figure: Any = panel.get_figure()
    panel_box = panel.get_window_extent().transformed(figure.dpi_scale_trans.inverted())  # inches, as all lengths here
    at = {name: panel.transData.transform(points[name]) / figure.dpi for name in names}
    upwards = _spread([max(at[name][1], panel_box.y0 + LABEL / 2) for name in names], LABEL)
    downwards = _spread([-min(height, panel_box.y1 - LABEL / 2) for height in reversed(upwards)], LABEL)
    for name, y in zip(names, [-height for height in reversed(downwards)], strict=True):
        others = [point for other, point in at.items() if other != name]
        side, moved = _side_of_point(at[name][0], y, len(name), others, panel_box), y - at[name][1]
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        panel.annotate(
            name, points[name], (72 * side * BESIDE, 72 * moved), textcoords="offset points", fontsize=8.5,
            ha="left" if side > 0 else "right", va="center", arrowprops=line if abs(moved) > LABEL / 3 else None,
        ).set_in_layout(False)  # fmt: skip


def _side_of_point(x: float, y: float, letters: int, others: Sequence[np.ndarray], panel_box: Bbox) -> int:
    """Returns 1, to the right of its point, or -1: where a name stays in the panel and covers the fewest points."""

    def misfit(side: int) -> int:
        low, high = sorted((x + side * BESIDE, x + side * (BESIDE + LETTER * letters)))
        covered = sum(low - 0.05 < one[0] < high + 0.05 and abs(one[1] - y) < LABEL for one in others)
        return covered + 100 * (low < panel_box.x0 or high > panel_box.x1)

    return min((1, -1), key=misfit)


def _differs(cost: str, values: Sequence[float | None]) -> bool:
    """Returns whether a cost is known, and a panel of it would show a difference; memory may be alike for all."""
    known = [value for value in values if value]
    return bool(known) and not (cost == "memory_mb" and len(known) > 1 and max(known) <= (1 + ALIKE) * min(known))

"""Figures of notebook 05 on the members of one fusion: what each gets, and what the fusion would lose without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from studykit.attention.summary import AttentionSummary
from studykit.evaluation.worth import MemberWorth, Worth
from studykit.report.figures.fusion import samples_text
from studykit.report.figures.style import GREY, category_style, legend_above, new_figure, styled


@styled
def weight_and_worth(summary: AttentionSummary, worth: Worth | None, *, message: str = "") -> tuple[Figure, str, str]:
    """Draws what training made of each member's weight and, beside it, what muting the member costs.

    A row holds one member: its weight before training, after phase 1 with every member in place, and in the finished
    fusion, each a mean over layers and seeds, with the seeds of the finished fusion as dots.

    Args:
        worth: what the members are worth; None: they were not muted, so the right panel is missing.
        message: what the figure shows, in a sentence with which the caption begins.
    """
    members, rows = summary.members, list(range(len(summary.members)))
    states = {title: 100 * state.weights.mean((0, 1)) for title, state in summary.unmasked.items()}  # (A,) each
    finished = worth.finished if worth else []
    figure, axes = new_figure(1, 2 if finished else 1, height=1.0 + 0.36 * len(members), sharey=True)
    panel, names = axes[0, 0], [f"{name} (target)" if name == summary.target else name for name in members]
    seeds = 100 * summary.last.weights.mean(1)  # (S, A)
    *before, last = states
    for y in rows:
        colour, path = category_style(y)["color"], [values[y] for values in states.values()]
        panel.plot(path, [y] * len(path), color=colour, linewidth=1.2, alpha=0.6)
        panel.plot(seeds[:, y], np.full(len(seeds), y + 0.24), ".", color=colour, alpha=0.6, markersize=4)
    for title, marker in zip(before, ("|", "o"), strict=False):
        size = {"markersize": 11, "markeredgewidth": 2.0} if marker == "|" else {"markersize": 6}
        panel.plot(states[title], rows, marker, color=GREY, markerfacecolor="white", label=title, **size)
    colours = [category_style(y)["color"] for y in rows]
    panel.scatter(states[last], rows, s=60, c=colours, edgecolors="black", linewidths=0.8, zorder=3)
    panel.plot([], [], "o", color="black", markersize=7, label=last)
    panel.plot([], [], ".", color=GREY, alpha=0.6, markersize=4, label="one seed")
    if finished:
        panel.plot([], [], color=GREY, linewidth=2.6, label="95 % over test rows")
    panel.axvline(100 / len(members), color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), label="uniform")
    panel.set(xlabel="weight, mean over layers (%)", ylim=(len(members) - 0.45, -0.55))
    panel.set_xlim(left=0)
    panel.set_yticks(rows, names)
    if finished:
        _draw_costs(axes[0, 1], finished, members)
    for each in axes[0]:
        each.tick_params(axis="y", length=0)
        each.grid(axis="x")
    legend_above(figure, panel)
    weights = "; ".join(
        f"{name} " + ", ".join(f"{values[y]:.0f} % ({title})" for title, values in states.items())
        for y, name in enumerate(names)
    )
    costs = "".join(f"; without {row.member} the loss changes by {row.value:+.3f}" for row in finished)
    about = samples_text(summary.samples, summary.tokens, len(summary.seeds))
    alt = f"Weight of {len(members)} members of {summary.method}, n = {summary.samples} samples: {weights}{costs}."
    right = (
        " Right: the loss without the member minus the loss with it, with 95 % intervals over test rows; right of "
        "0, this fusion needs the member." * bool(costs)
    )
    caption = (
        f"{message} {'Left: weight' if costs else 'Weight'} of each member; small dots are the seeds of the finished "
        f"fusion.{right} {about}."
    )
    return figure, alt, caption.strip()


def _draw_costs(panel, finished: Sequence[MemberWorth], members: Sequence[str]) -> None:
    """Draws the worth of each member in its row, with its interval over the test rows and its seeds below."""
    for row in finished:
        y = members.index(row.member)
        colour = category_style(y)["color"]
        if row.interval:
            panel.plot(
                [row.interval.low, row.interval.high], [y, y], color=colour, linewidth=2.6, solid_capstyle="butt"
            )
        panel.plot(row.value, y, "o", color=colour, markeredgecolor="black", markersize=7)
        panel.plot(row.by_seed, np.full(len(row.by_seed), y + 0.24), ".", color=colour, alpha=0.6, markersize=4)
    panel.axvline(0, color=GREY, linewidth=0.8)
    panel.set_xlabel("loss when muted \u2212 loss with it (nats per token)")


@styled
def weight_against_worth(
    members: Sequence[MemberWorth], target: str, *, samples: int, tokens: str = "completion"
) -> tuple[Figure, str, str]:
    """Draws what each member is worth against its weight and against its norm-weighted share.

    members: the worth of the members of one fusion in one state, all muted in one mode.
    """
    figure, axes = new_figure(1, 2, height=3.4, sharey=True)
    for panel, measure, label in zip(
        axes[0], ("weight", "share"), ("weight (%)", "norm-weighted share (%)"), strict=True
    ):
        for i, row in enumerate(members):
            style = category_style(i) | {"linestyle": "none", "markersize": 9 if row.member == target else 6}
            x, name = 100 * getattr(row, measure), f"{row.member} (target)" if row.member == target else row.member
            panel.plot([x] * len(row.by_seed), row.by_seed, ".", color=style["color"], alpha=0.5, markersize=4)
            if row.interval:
                bounds = [row.interval.low, row.interval.high]
                panel.plot([x, x], bounds, color=style["color"], linewidth=1.2)
            panel.plot([x], [row.value], label=name if measure == "weight" else None, **style)
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.set(xlabel=label)
        panel.grid(axis="y")
    axes[0, 0].set_ylabel("loss without it \u2212 with it\n(nats per token)")
    legend_above(figure, axes[0, 0])
    seeds = max(len(row.by_seed) for row in members)
    worths = ", ".join(f"{row.member} {row.value:+.3f} at {row.weight:.0%} of the weight" for row in members)
    how = "excluded from the softmax" if members[0].mode == "exclude" else "its output set to zero"
    what = f"What each member is worth (the loss with the member {how}, minus the loss with it) against its weight"
    alt = f"{what} and its norm-weighted share, n = {samples} samples: {worths}."
    best, heaviest = max(members, key=lambda row: row.value), max(members, key=lambda row: row.weight)
    between = f" ({best.interval.low:+.3f} to {best.interval.high:+.3f})" if best.interval else ""
    largest = (
        "also has the largest weight"
        if best is heaviest
        else f"does not have the largest weight: {heaviest.member} has"
    )
    caption = (
        f"{best.member} is worth most, {best.value:+.3f}{between}, and {largest}. {what} and its "
        f"norm-weighted share, {members[0].state}. Above 0 this fusion needs the member. Bars: intervals over the "
        f"test rows; dots: seeds. {samples_text(samples, tokens, seeds)}."
    )
    return figure, alt, caption

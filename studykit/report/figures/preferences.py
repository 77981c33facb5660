"""The forest plot of people's preferences: how often each method is preferred to another one, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from studykit.evaluation.preferences import Preferences
from studykit.report.figures.style import GREY, Look, look_of, marker_style, method_rows, new_figure, styled
from studykit.report.preferences import interval_text, sample, verdict_sign

EDGE = 0.71  # where the axes end, in widths of the figure
COLUMNS = {"preferred": 0.72, "judged": 0.805, "to the baseline": 0.88}  # x of the columns, likewise


@styled
def preferences(found: Preferences, *, looks: Mapping[str, Look] | None = None) -> tuple[Figure, str, str]:
    """Draws the share of comparisons that each method wins, the most preferred first; 50 % is the middle.

    looks: colours and markers by method, see `style.method_looks`.
    """
    rows = sorted(found.methods, key=lambda row: -row.share)
    names, row_height = method_rows(row.method for row in rows)
    figure, grid = new_figure(height=1.0 + row_height * len(rows))
    axes = grid[0, 0]
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, EDGE, 1))
    axes.axvline(50, color=GREY, linewidth=1.0, linestyle=":")
    place = blended_transform_factory(figure.transFigure, axes.transData)
    signs = {row.method: verdict_sign(row.verdict) for row in found.contrasts}

    def write(column: str, y: float, text: str, colour: str = "black") -> None:
        written = axes.text(COLUMNS[column], y, text, transform=place, va="center", fontsize=8.5, color=colour)
        written.set_in_layout(False)

    for y, row in enumerate(rows):
        look = look_of(row.method, looks)
        if row.interval:
            ends = (row.interval.low, row.interval.high)
            axes.plot(ends, (y, y), color=look.colour, linewidth=3.2, solid_capstyle="butt")
        axes.plot(row.share, y, zorder=4, **marker_style(look))
        write("preferred", y, f"{row.share:.0f} %")
        write("judged", y, f"{row.judgements:,}")
        is_baseline = row.method == found.baseline
        write("to the baseline", y, "baseline" if is_baseline else signs.get(row.method, "–"), GREY)
    for column in COLUMNS:
        write(column, -0.72, column, GREY)
    axes.set_yticks(range(len(rows)), names)
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.45, -0.95), xlabel="Preferred to another method (%)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    values = "; ".join(f"{row.method} {row.share:.0f} % ({interval_text(row.interval)})" for row in rows)
    alt = f"How often people prefer each method to another one: {values}."
    caption = (
        "How often people prefer each method to another one, by the model of Bradley and Terry; a tie is half a win, "
        f"the dotted line is the middle. Lines are {found.confidence:.0%} intervals over {sample(found)}. Right: the "
        f"verdict on each method against {found.baseline}, for these seeds."
    )
    return figure, alt, caption

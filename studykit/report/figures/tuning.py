"""The figure of a study's trials: the expected best loss against their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studykit.evaluation.tuning import MethodTrials, expected_best
from studykit.report.figures.style import Look, legend_above, look_of, marker_style, new_figure, styled


@styled
def expected_losses(
    trials: Sequence[MethodTrials], *, looks: Mapping[str, Look] | None = None, title: str = ""
) -> tuple[Figure, str, str]:
    """Draws the expected least loss of each method against its number of trials.

    Args:
        looks: colours and markers by method, see `style.method_looks`.
    """
    figure, axes = new_figure(height=3.4)
    panel = axes[0, 0]
    texts = []
    for one in trials:
        means = expected_best(one.means)
        panel.plot(range(1, len(means) + 1), means, label=one.method, **marker_style(look_of(one.method, looks)))
        texts.append(f"{one.method} {means[0]:.4g} to {means[-1]:.4g}")
    panel.set(xlabel="trials", ylabel="expected least loss (nats per token)", title=title)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, panel)
    rows = trials[0].rows
    seeds = len(trials[0].losses[0])
    caption = (
        f"Expected least completion loss of n trials, on the {rows} validation rows that selected no step; the loss of "
        f"a trial is its mean over {seeds} seed{'s' * (seeds > 1)}."
    )
    return figure, f"Expected least loss by number of trials: {'; '.join(texts)}.", caption

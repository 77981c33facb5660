"""Sentences and tables on fusion weights: what training changed in them, over seeds and test rows.

A weight by itself is no finding: the untrained fusion of a pretrained base may put nearly all of it on one member, on
another one for each seed. So every sentence is about the change from the initialisation on the same rows, or from phase
1 with the target's adapter restored to phase 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studykit.attention.summary import AttentionSummary
from studykit.evaluation.results import Interval, OwnAttention
from studykit.evaluation.statistics import student_t
from studykit.runs.text import plural
from studykit.study.languages import display_name
from studykit.study.methods import BEFORE_TRAINING

LARGEST = 5  # changes of single cells that a table lists


def own_weight_sentences(rows: Sequence[OwnAttention], target: str) -> list[str]:
    """Returns a sentence per fusion: how training changed the weight of the target's own adapter."""
    sentences = []
    for method in dict.fromkeys(row.method for row in rows):
        first, *_, last = (row for row in rows if row.method == method)
        changes = np.subtract(last.by_seed, first.by_seed)
        sentences.append(
            f"{method} gave the {display_name(target)} adapter {first.own_weight:.0%} of the weight before training "
            f"and {last.own_weight:.0%} after it: a change of {_spread(changes)}."
        )
    return sentences


def caption(rows: Sequence[OwnAttention]) -> str:
    """Returns the samples, tokens and seeds that the weights are means over."""
    sizes = {f"n = {row.samples} samples, {row.tokens} tokens, {plural(len(row.by_seed), 'seed')}" for row in rows}
    return "; ".join(sorted(sizes)) or "nothing was recorded"


def change_table(summary: AttentionSummary, since: str, until: str, confidence: float = 0.95) -> list[dict[str, str]]:
    """Returns the largest changes of single cells between two states for `tables.table`.

    The interval over the test rows is there for changes since the initialisation.
    """
    changes = summary.change(until, since)  # (S, L, A)
    mean = changes.mean(0)
    rows = []
    for at in np.argsort(-np.abs(mean), axis=None, kind="stable")[:LARGEST]:
        layer, member = np.unravel_index(at, mean.shape)
        before, after = (summary.phases[state].weights[:, layer, member].mean() for state in (since, until))
        row = {
            "layer": summary.layers[layer],
            "member": summary.members[member],
            since: f"{before:.1%}",
            until: f"{after:.1%}",
            "change (points)": _spread(changes[:, layer, member], unit=""),
        }
        if since == BEFORE_TRAINING.title:
            error = float(summary.phases[until].change_error[layer, member])
            row["interval over rows"] = interval(_over_rows(summary, mean[layer, member], error, confidence))
        rows.append(row)
    return rows


def change_sentences(summary: AttentionSummary, confidence: float = 0.95) -> list[str]:
    """Returns what training did to the own adapter's weight, and which other member changed most."""
    states = list(summary.unmasked)
    first, last = states[0], states[-1]
    change = summary.last.own_weight - summary.first.own_weight
    rows = _over_rows(summary, change.mean(), float(summary.last.own_change_error), confidence)
    sentences = [f"The {summary.target} adapter is not among the members."]
    if summary.own:
        sentences = [
            f"From {first} to {last}, the weight of the {summary.target} adapter changed by **{_spread(change)}**, "
            f"from {summary.first.own_weight.mean():.1%} to {summary.last.own_weight.mean():.1%}; over the test rows "
            f"{interval(rows)} points."
        ]
    for since in states[:-1]:
        changes = np.delete(summary.change(last, since).mean(1), summary.own, axis=1)  # (S, others), mean over layers
        others = [member for member in summary.members if member != summary.target]
        if others:
            most = np.abs(changes.mean(0)).argmax()
            sentences.append(
                f"Of the other members, **{others[most]}** changed most from {since} to {last}: by "
                f"{_spread(changes[:, most])}."
            )
    return sentences


def _spread(changes: np.ndarray, unit: str = " points") -> str:
    """Returns the mean of changes of a weight in points, their sd over seeds, and how many have its direction."""
    points = 100 * changes
    text = f"{points.mean():+.1f}{unit}"
    if len(points) == 1:
        return text
    alike = int((np.sign(points) == np.sign(points.mean())).sum())
    return f"{text} (sd over seeds {points.std(ddof=1):.1f}; {alike} of {len(points)} seeds in this direction)"


def _over_rows(summary: AttentionSummary, change: float, error: float, confidence: float) -> Interval | None:
    """Returns the interval of a change over the test rows; None for a single row or group."""
    if np.isnan(error):
        return None
    half = student_t(0.5 + confidence / 2, summary.clusters - 1) * error
    return Interval(low=change - half, high=change + half)


def interval(bounds: Interval | None) -> str:
    """Returns an interval of a change in points."""
    return f"{100 * bounds.low:+.1f} to {100 * bounds.high:+.1f}" if bounds else "–"

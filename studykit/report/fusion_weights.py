"""Sentences and tables on fusion weights: what training changed in them, over seeds and test rows.

A weight by itself is no finding: the untrained fusion of a pretrained base may put nearly all of it on one member, on
another one for each seed. So every sentence is about the change from the initialisation on the same rows, or from phase
1 with the target's adapter restored to phase 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studykit.attention.summary import AttentionSummary
from studykit.evaluation.muted_scores import MutedScores
from studykit.evaluation.results import Interval, OwnAttention
from studykit.evaluation.statistics import student_t
from studykit.evaluation.student import half_width, over_seeds
from studykit.evaluation.worth import MemberWorth, Worth, WorthCorrelation
from studykit.report.verdicts import unbreakable
from studykit.runs.text import plural
from studykit.study import methods
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


def changes(summaries: Mapping[str, AttentionSummary]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the weights of finished fusions minus two references, for `figures.change_panels`.

    The references are uniform weights over the members of the fusion, and its own initialisation. The columns are the
    members of all fusions; a member that is not in a fusion is NaN there. Fusions of other depths than the first are
    left out.
    """
    members: list[str] = about(summaries)["members"]
    found: dict[str, dict[str, np.ndarray]] = {"minus uniform": {}, "minus initialisation": {}}
    depth = len(next(iter(summaries.values())).layers)
    for method, one in summaries.items():
        if len(one.layers) != depth:
            continue
        columns = [members.index(member) for member in one.members]
        minus = {"minus uniform": 1 / len(columns), "minus initialisation": one.first.weights}
        for reference, subtracted in minus.items():
            cells = np.full((*one.last.weights.shape[:2], len(members)), np.nan)
            cells[..., columns] = one.last.weights - subtracted
            found[reference][method] = cells
    return found


def about(summaries: Mapping[str, AttentionSummary]) -> dict[str, Any]:
    """Returns what the figures of several fusions name: all members, the target, the rows and tokens."""
    first = next(iter(summaries.values()))
    members = list(dict.fromkeys(member for one in summaries.values() for member in one.members))
    members.sort(key=lambda member: member == first.target)  # the target's comes last
    options = {"samples": first.samples, "tokens": first.tokens, "layers": first.layers}
    return {"members": members, "target": first.target, **options}


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
    """Returns what training did to the own adapter's weight, by layer too, and which other member changed most."""
    states = list(summary.unmasked)
    first, last = states[0], states[-1]
    change = summary.last.own_weight - summary.first.own_weight
    rows = _over_rows(summary, change.mean(), float(summary.last.own_change_error), confidence)
    sentences = [f"The {summary.target} adapter is not among the members."]
    if summary.own:
        uniform = 1 / len(summary.members)
        above = [(state.weights.mean(0)[:, summary.own] > uniform).sum() for state in (summary.first, summary.last)]
        sentences = [
            f"From {first} to {last}, the weight of the {summary.target} adapter changed by **{_spread(change)}**, "
            f"from {summary.first.own_weight.mean():.1%} to {summary.last.own_weight.mean():.1%}; over the test rows "
            f"{interval(rows)} points.",
            f"In {last}, {above[1]} of {len(summary.layers)} layers give the {summary.target} adapter more than a "
            f"uniform weight; before training it was {above[0]}.",
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


def answer(summary: AttentionSummary, worth: Worth | None) -> list[str]:
    """Returns the answer of notebook 05 in two or three sentences: the member that a fusion attends to, and its worth.

    Without `worth` (members were not muted) there is no sentence on muting.
    """
    last, own = summary.last.weights.mean(1), summary.own  # (S, A)
    mean = last.mean(0)
    order = np.argsort(-mean, kind="stable")
    names = [_adapter(summary, member) for member in summary.members]
    first, second = order[0], order[1] if len(order) > 1 else None
    seeds = int((last.argmax(1) == first).sum())
    other = own[0] if own and first not in own else second
    beside = f" {names[other]} gets {mean[other]:.0%}." if other is not None else ""
    share = f"{mean[first]:.0%}"
    if 2 * seeds > len(last):
        alone = "" if len(last) == 1 else f", the most in {seeds} of {len(last)} seeds"
        most = f"**{summary.method} attends most to {names[first]}: {share} of the weight**{alone}."
    else:
        few = f"only {seeds} of {len(last)} seeds {'do' if seeds > 1 else 'does'}" if seeds else "no single seed does"
        most = f"**On average {summary.method} gives {names[first]} most weight ({share})**, but {few}."
    sentences = [f"{most}{beside}"]
    followed = own[0] if own else first
    start, *later = summary.unmasked
    hidden = methods.parse(summary.method).masked_member or summary.target
    restored = " (hidden there, then restored)" if summary.members[followed] == hidden else ""
    names_of = {start: "before training"} | {state: f"after {state.replace(', restored', restored)}" for state in later}
    if len(later) == 1:
        names_of[later[0]] = "after training"
    path = [
        f"{state.weights.mean((0, 1))[followed]:.0%} {names_of[title]}" for title, state in summary.unmasked.items()
    ]
    sentences.append(f"The weight of {names[followed]} went from {', to '.join(path)}.")
    if worth and worth.finished:
        sentences.append(_muting_sentence(worth, summary, summary.members[first]))
    return sentences


def _adapter(summary: AttentionSummary, member: str) -> str:
    name = display_name(member)
    return f"{name}'s own adapter" if member == summary.target else name


def _muting_sentence(worth: Worth, summary: AttentionSummary, heaviest: str) -> str:
    most = max(worth.finished, key=lambda row: row.value)
    if most.value <= 0:
        return "Muting a single member does not raise the loss: this fusion can do without any one of them."
    unsure = not is_surely_worth_most(most, worth.finished)
    name = _adapter(summary, most.member)
    text = (
        f"Muting {name} costs most"
        if not unsure
        else f"Other seeds could need another member most: muting {name} costs"
    )
    text += f"{':' * (not unsure)} {most.value:+.3f} nats per token{_bounds(most, unsure)}"
    weight = next(row for row in worth.finished if row.member == heaviest)
    if most.member == heaviest:
        return f"{text}."
    costs = f"{weight.value:+.3f}{_bounds(weight, unsure)}"
    return f"{text}; muting {_adapter(summary, heaviest)}, which gets most weight, costs {costs}."


def is_surely_worth_most(one: MemberWorth, members: Sequence[MemberWorth]) -> bool:
    """Returns whether muting a member costs more than muting any other with other seeds, too."""
    return all(_costs_more(one, row) for row in members if row is not one)


def _costs_more(one: MemberWorth, other: MemberWorth) -> bool:
    """Whether muting one member costs more than muting another with other seeds, too; one seed cannot deny it."""
    differences = [x - y for x, y in zip(one.by_seed, other.by_seed, strict=True)]
    if len(differences) < 2:
        return True
    return sum(differences) / len(differences) > half_width([over_seeds(differences)], 0.05)


def _bounds(row: MemberWorth, over_seeds: bool) -> str:
    """The interval of a member's worth over the seeds or the test rows in brackets; "" where there is none."""
    bounds = row.seed_interval if over_seeds else row.interval
    over = "seeds" if over_seeds else "test rows"
    return f" (95 % interval {bounds.low:+.3f} to {bounds.high:+.3f} over {over})" if bounds else ""


def worth_table(rows: Sequence[MemberWorth]) -> list[dict[str, str]]:
    """Returns what members are worth for `tables.table`: loss without each, its intervals, and its attention."""

    def between(bounds: Interval | None) -> str:
        return unbreakable(f"{bounds.low:+.4f} to {bounds.high:+.4f}") if bounds else "–"

    return [
        {
            "state": row.state,
            "muted": row.member,
            "how": row.mode,
            "change of loss": f"{row.value:+.4f}",
            "over rows": between(row.interval),
            "over seeds": between(row.seed_interval),
            "weight (%)": f"{100 * row.weight:.1f}",
            "norm-weighted share (%)": f"{100 * row.share:.1f}",
        }
        for row in rows
    ]


def score_table(scored: MutedScores) -> list[dict[str, str]]:
    """Returns what members are worth to the main score for `tables.table`."""

    def between(bounds: Interval | None) -> str:
        return f"{bounds.low:+.1f} to {bounds.high:+.1f}" if bounds else "–"

    return [
        {
            "muted": row.member,
            f"lost {scored.label} ({scored.unit})": f"{row.value:+.1f}",
            "over rows": between(row.interval),
            "over seeds": between(row.seed_interval),
        }
        for row in scored.members
    ]


def score_caption(scored: MutedScores) -> str:
    """Returns what stands below `score_table`."""
    reason = f" Programs were not executed: {scored.not_executed}" * bool(scored.not_executed)
    return (
        f"{scored.method}: {scored.label} of {scored.with_all:.1f} with all members, minus that without each; above 0, "
        f"the member helps. n = {scored.samples} samples; 95 % intervals over test rows (paired) and seeds.{reason}"
    )


def correlation_table(rows: Sequence[WorthCorrelation]) -> list[dict[str, str]]:
    """Returns how well attention predicts the worth of members for `tables.table`."""
    return [
        {
            "state": row.state,
            "measure": row.measure,
            "over": f"{row.over} ({row.points})",
            "rank correlation": "–" if row.mean is None else f"{row.mean:+.2f}",
            "sd over seeds": "–" if row.sd is None else f"{row.sd:.2f}",
        }
        for row in rows
    ]


def worth_sentences(worth: Worth) -> list[str]:
    """Returns which member the finished fusion needs most, whether any harms it, and whether attention shows that."""
    if not worth.finished:
        return []
    most = max(worth.finished, key=lambda row: row.value)
    heaviest = max(worth.finished, key=lambda row: row.weight)
    same = (
        "which also has the largest weight" if most is heaviest else f"while {heaviest.member} has the largest weight"
    )
    clear = "clear" if most.interval and most.interval.low > 0 else "unclear"
    sentences = [
        f"{worth.method} needs **{most.member}** most, {same}: without it the loss changes by {most.value:+.4f} nats "
        f"per token, {clear} over the test rows and above 0 in {sum(value > 0 for value in most.by_seed)} of "
        f"{plural(len(most.by_seed), 'seed')}."
    ]
    for row in worth.finished:
        if row.interval and row.interval.high < 0:
            sentences.append(f"Without **{row.member}** its loss is lower, by {-row.value:.4f} nats per token.")
    for found in worth.correlations:
        if found.state == most.state and found.mean is not None and found.over.startswith("members x kinds"):
            sentences.append(
                f"The rank correlation of the {found.measure} with the worth is {found.mean:+.2f}, over {found.points} "
                f"{found.over}."
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

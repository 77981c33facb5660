"""Similarity against attention in tables and sentences: what notebook 07 shows of `kinship.json`."""

from __future__ import annotations

from typing import Any

from studykit.evaluation.kinship import SAME, Kinship, RankedOutcome
from studykit.study.gather_parameters import NOT_CALIBRATED


def table_of(found: Kinship) -> list[dict[str, Any]]:
    """Returns a line per measure of similarity and outcome: the mean rank correlation and what is known of it."""
    return [
        {
            "similarity": _measure(one),
            "outcome": one.outcome,
            "mean rank correlation": _number(one.mean),
            "interval": _interval(one),
            "p (permutation)": "< 0.001" if one.p < 0.001 else f"{one.p:.3f}",
            "given quality": _number(one.partial),
            "most similar is first": f"{one.first:.0%}",
            "studies": len(one.by_study),
        }
        for one in found.ranked
    ]


def caption(found: Kinship) -> str:
    """Returns the caption of the table."""
    together = "languages changed places in all studies together"
    what = together if found.matrix else "the sources of each study changed places"
    same = [f"{name} and {SAME[name]}" for name in SAME if any(one.measure == name for one in found.ranked)]
    left_out = f" The same numbers are no pair: {'; '.join(same)}." if same else ""
    return (
        f"Spearman's rank correlation over the sources, mean of {found.studies} studies with {found.confidence:.0%} "
        f"interval over the studies; in the permutation test {what}. *given quality*: the partial correlation given "
        f"the loss of each source's adapter on its own rows.{left_out}"
    )


def sentences(found: Kinship) -> list[str]:
    """Returns a sentence on the attention for each measure, and what could not be measured."""
    said = []
    for one in found.ranked:
        if one.outcome.startswith("weight") and one.mean is not None:
            said.append(
                f"Similarity by {_measure(one)} and attention ({one.outcome}) have a mean rank correlation of "
                f"{_number(one.mean)} ({_interval(one)}); the most similar source is first in {one.first:.0%} of the "
                "studies."
            )
    if unchecked := [name for name in NOT_CALIBRATED if any(one.measure == name for one in found.ranked)]:
        said.append(
            f"{', '.join(unchecked)}: not calibrated. Made languages have no grammar for a parser, so nothing shows "
            "that this measure finds known kinship, and its correlations can be believed less than the others."
        )
    if found.missing:
        said.append(f"Not all studies have {', '.join(found.missing)}.")
    if found.studies < 5:
        said.append(f"{found.studies} studies say little: the interval needs more of them.")
    return said


def _measure(one: RankedOutcome) -> str:
    return f"{one.measure} (not calibrated)" if one.measure in NOT_CALIBRATED else one.measure


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}".replace("-", "\u2212")


def _interval(one: RankedOutcome) -> str:
    return f"{_number(one.interval.low)} to {_number(one.interval.high)}" if one.interval else ""

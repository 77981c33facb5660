"""Tables of the calibration of scores: how well each tells the same meaning from another one."""

from __future__ import annotations

from collections.abc import Sequence

from studykit.evaluation.scores import CHANGED, Calibration

UNKNOWN = "–"


def calibration_table(calibrations: Sequence[Calibration]) -> list[dict[str, str]]:
    """Returns a line per score with its AUC against each kind of other meaning, and its mean on the same meaning."""
    lines: dict[str, dict[str, str]] = {}
    for one in calibrations:
        line = lines.setdefault(one.metric, {"score": one.label})
        line[f"AUC, against {one.against}"] = str(one)
        line["mean on the same meaning"] = f"{one.mean_same:.1f}"
    return list(lines.values())


def calibration_caption(calibrations: Sequence[Calibration]) -> str:
    """Returns what the table shows, with the number of edits and their language; "" for none."""
    if not calibrations:
        return ""
    first = calibrations[0]
    what = (
        "the same program, written with other names and turned operands"
        if first.against == CHANGED
        else "a message that says the same edit in other words"
    )
    return (
        f"AUC: the probability that {what}, scores more than one of another meaning (ties count half; 0.5 is chance, "
        f"below it the score prefers the wrong one), with its 95 % interval over n = {first.n} built-in edits in "
        f"{first.language}."
    )


def auc_of(calibrations: Sequence[Calibration], metric: str) -> str:
    """Returns the AUC of a metric against the first kind of other meaning, with two decimals; a dash if unknown."""
    return next((f"{one.auc:.2f}" for one in calibrations if one.metric == metric), UNKNOWN)

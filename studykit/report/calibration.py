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
    first, n = calibrations[0], max(one.n for one in calibrations)
    what = (
        "the same program, written with other names and swapped operands"
        if first.against == CHANGED
        else "a message that says the same edit in other words"
    )
    fewer = {one.label: one.n for one in calibrations if one.n < n}
    covered = "".join(f" {label} covers {of_score} of them." for label, of_score in fewer.items())
    executed = (
        " Scores that run programs have no AUC: what fails a test has been chosen as the other meaning."
        if first.against == CHANGED
        else ""
    )
    return (
        f"AUC: the probability that {what}, scores more than one of another meaning (ties count half; 0.5 is chance, "
        f"below it the score prefers the wrong one), with its 95 % interval over n = {n} built-in edits in "
        f"{first.language}.{covered}{executed}"
    )


def auc_of(calibrations: Sequence[Calibration], metric: str) -> str:
    """Returns the AUC of a metric against the first kind of other meaning, with two decimals; a dash if unknown."""
    return next((f"{one.auc:.2f}" for one in calibrations if one.metric == metric), UNKNOWN)

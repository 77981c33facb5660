"""Cross-validation: the rows that train a target also say how many steps to train, so it needs no validation rows.

With `data.valid: k_fold` the target's training rows are divided into folds by the seed (`data.rows.folds`). For each
fold, an adapter of the target and every fusion over it are trained without the rows of the fold, which validate them as
validation rows would (Stone 1974, "Cross-validatory choice"). The mean of these losses over the folds, step by step, is
a curve. The adapter, or each phase of the fusion, is then trained on all rows, with the same schedule, and ends at the
step at which the curve is best. The curve stands in its log in the place of validation losses of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from studykit.errors import UserError
from studykit.training.result import LogEntry, TrainingResult
from studykit.training.trainer import shortfall


def fold_curve(runs: Sequence[str | Path] | None, phase: str = "") -> list[LogEntry]:
    """Returns the mean validation losses of runs over the folds, for each step that all of them have reached, in order.

    Args:
        runs: finished runs, one per fold; none, or None, has no curve.
        phase: of fusion runs, the key of the phase.
    Raises: UserError if they have no step in common.
    """
    of_folds = [TrainingResult.read(Path(run, phase, "training.json")).evaluations for run in runs or []]
    if not of_folds:
        return []
    by_step: list[dict[int, Any]] = [{entry["step"]: entry for entry in evaluations} for evaluations in of_folds]
    steps = sorted(set.intersection(*(set(of_fold) for of_fold in by_step)))
    if not steps:
        raise UserError(f"steps_from names {', '.join(map(str, runs or []))}, which were validated at no common step.")
    curve: list[Any] = []
    for step in steps:
        entries = [of_fold[step] for of_fold in by_step]
        names = [name for name in entries[0] if name.startswith("eval_")]
        curve.append({"step": step} | {name: sum(entry[name] for entry in entries) / len(entries) for name in names})
    return curve


def chosen_step(curve: Sequence[LogEntry], keep: str, select_on: str) -> int:
    """Returns the step at which a curve is best, the first of equal ones; with the word `last` for `keep`, its last."""
    may_be_kept = [entry for entry in curve if entry["step"] > 0 or keep != "best_after_start"]
    if keep == "last":
        return may_be_kept[-1]["step"]
    return min(may_be_kept, key=lambda entry: shortfall(dict(entry), select_on))["step"]


def with_curve(log: Sequence[LogEntry], curve: Sequence[LogEntry]) -> list[LogEntry]:
    """Returns the log of a training with a curve in the place of its own validation losses."""
    looks = {entry["step"]: {"attention": entry["attention"]} for entry in log if "attention" in entry}
    trained = [entry for entry in log if "eval_loss" not in entry]
    merged: list[Any] = [*trained, *({**entry, **looks.get(entry["step"], {})} for entry in curve)]
    return sorted(merged, key=lambda entry: entry["step"])


class StopAt(TrainerCallback):
    """Ends a training after a step of its schedule, with an evaluation and a checkpoint."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.step:
            control.should_evaluate = control.should_save = control.should_training_stop = True

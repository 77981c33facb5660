"""The trials of a study read from their runs: what was tried for each method, how good it was, and what the study took.

The expected best loss of n trials (Dodge et al. 2019, "Show Your Work", here for a minimum) tells how much
a method owes to its number of trials: of two methods with equal curves, neither was tuned more than the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studykit.errors import UserError
from studykit.runs.manifest import finished_run


@dataclass(frozen=True)
class MethodTrials:
    """The trials of one method, in the order of the study file."""

    method: str  # kind of adapter, or word of a composition
    runs: list[str]  # directories
    values: list[dict[str, Any]]  # by trial: the parameters in which the trials differ
    losses: list[float]  # by trial: nats per token of the completions that judge it
    rows: int  # validation rows that judge
    used: dict[str, Any] | None  # the values of the study's own run of this method; None if it has none

    @property
    def best(self) -> int:
        """Returns the number of the trial with the least loss; the first of several."""
        return self.losses.index(min(self.losses))


def read_trials(trials: Mapping[str, Sequence[str]], trained: Mapping[str, Sequence[str]]) -> list[MethodTrials]:
    """Reads finished trials, by method.

    Args:
        trials: trial runs by method.
        trained: the study's own runs by method.
    Raises: UserError for a run that is not finished, or that is no trial.
    """
    found = []
    for method, runs in trials.items():
        manifests = [finished_run(run).manifest for run in runs]
        if strangers := [run for run, of in zip(runs, manifests, strict=True) if "trial_loss" not in of.about]:
            raise UserError(f"{strangers[0]} is no trial; a trial was trained with validation: half.")
        first, *others = [of.params for of in manifests]
        tried = [key for key, value in first.items() if key != "out" and any(of[key] != value for of in others)]
        own = [finished_run(run).params for run in trained.get(method, [])[:1]]
        found.append(
            MethodTrials(
                method,
                list(runs),
                values=[{key: of.params[key] for key in tried} for of in manifests],
                losses=[of.about["trial_loss"] for of in manifests],
                rows=manifests[0].about["trial_rows"],
                used={key: own[0][key] for key in tried} if own else None,
            )
        )
    return found


def expected_best(losses: Sequence[float]) -> list[float]:
    """Returns the expected least loss of n trials for n = 1 to the number of losses.

    The n trials are drawn with replacement from those that were made: sum over v of v (P(V >= v)^n - P(V > v)^n).
    """
    ordered, count = sorted(losses), len(losses)
    at_least = [(count - at) / count for at in range(count + 1)]  # of the ordered losses from `at` on
    return [
        sum(loss * (at_least[at] ** n - at_least[at + 1] ** n) for at, loss in enumerate(ordered))
        for n in range(1, count + 1)
    ]


def describe(values: Mapping[str, Any]) -> str:
    """Returns values as text, as "learning_rate 0.002"."""
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "no difference"


def remarks(trials: Sequence[MethodTrials]) -> list[str]:
    """Returns a sentence for each method that runs with other values than the best, or whose best ends a range."""
    sentences = []
    for one in trials:
        best = one.values[one.best]
        if one.used not in (None, best):
            sentences.append(f"{one.method} runs with {describe(one.used or {})}, but {describe(best)} was best.")
        for key, value in best.items():
            others = [values[key] for values in one.values if values[key] != value]
            is_number = all(type(v) in (int, float) for v in (value, *others))
            if is_number and (value < min(others) or value > max(others)):
                sentences.append(
                    f"The best {key} of {one.method} is an end of what was tried: beyond it may be a better one."
                )
    return sentences

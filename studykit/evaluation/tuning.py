"""The trials of a study read from their runs: what was tried for each method, how good it was, and what the study took.

The expected best loss of n trials (Dodge et al. 2019, "Show Your Work", here for a minimum) tells how much
a method owes to its number of trials: of two methods with equal curves, neither was tuned more than the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from studykit.errors import UserError
from studykit.evaluation.statistics import Estimate
from studykit.evaluation.student import half_width, over_seeds
from studykit.runs.manifest import finished_run


@dataclass(frozen=True)
class MethodTrials:
    """The trials of one method, in the order of the study file."""

    method: str  # kind of adapter, or word of a composition
    runs: list[list[str]]  # directories, by trial and seed
    values: list[dict[str, Any]]  # by trial: the parameters in which the trials differ
    losses: list[list[float]]  # by trial and seed: nats per token of the completions that judge it
    rows: int  # validation rows that judge
    used: dict[str, Any] | None  # the values of the study's own run of this method; None if it has none

    @property
    def means(self) -> list[float]:
        """Returns the mean loss over seeds, by trial."""
        return [fmean(of_seeds) for of_seeds in self.losses]

    @property
    def best(self) -> int:
        """Returns the number of the trial with the least mean loss; the first of several."""
        return self.means.index(min(self.means))

    @property
    def lead(self) -> Estimate | None:
        """Returns by how much the loss of the closest other trial is larger, with an interval of 95 % over seeds.

        Trials are compared seed by seed; the closest is the one whose interval reaches lowest. The best one was chosen
        for its loss, so the interval is too sure of itself. One seed has no interval (NaN), a single trial no other.
        """
        best, leads = self.losses[self.best], []
        for of_seeds in self.losses[: self.best] + self.losses[self.best + 1 :]:
            differences = [y - x for x, y in zip(best, of_seeds, strict=True)]
            width = half_width([over_seeds(differences)], 0.05) if len(differences) > 1 else math.nan
            value, how = fmean(differences), "Student's t over seeds"
            leads.append(Estimate(value, value - width, value + width, 0.95, how, len(differences)))
        return min(leads, key=lambda lead: lead.low if lead.n > 1 else lead.value, default=None)


def read_trials(
    trials: Mapping[str, Sequence[Sequence[str]]], trained: Mapping[str, Sequence[str]]
) -> list[MethodTrials]:
    """Reads finished trials, by method.

    Args:
        trials: by method and trial, the runs of its seeds.
        trained: the study's own runs by method.
    Raises: UserError for a run that is not finished, or that is no trial.
    """
    found = []
    for method, of_method in trials.items():
        manifests = [[finished_run(run).manifest for run in of_seeds] for of_seeds in of_method]
        for run, of in zip(sum(map(list, of_method), []), sum(manifests, []), strict=True):
            if "trial_loss" not in of.about:
                raise UserError(f"{run} is no trial; a trial was trained with validation: half.")
        first, *others = [of_seeds[0].params for of_seeds in manifests]
        tried = [key for key, value in first.items() if key != "out" and any(of[key] != value for of in others)]
        own = [finished_run(run).params for run in trained.get(method, [])[:1]]
        found.append(
            MethodTrials(
                method,
                [list(of_seeds) for of_seeds in of_method],
                values=[{key: of_seeds[0].params[key] for key in tried} for of_seeds in manifests],
                losses=[[of.about["trial_loss"] for of in of_seeds] for of_seeds in manifests],
                rows=manifests[0][0].about["trial_rows"],
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


def describe_lead(one: MethodTrials) -> str:
    """Returns as text by how much the loss of the closest other trial is larger, with its interval if there is one."""
    lead = one.lead
    if lead is None:
        return "–"
    return f"{lead.value:.4f}" + (f" [{lead.low:.4f}, {lead.high:.4f}]" if lead.n > 1 else "")


def remarks(trials: Sequence[MethodTrials]) -> list[str]:
    """Returns a sentence for each doubt: best values not told from the next, not used, or the end of a range."""
    sentences = []
    leads = {one.method: lead for one in trials if (lead := one.lead)}
    unsure = [method for method, lead in leads.items() if lead.n > 1 and lead.low <= 0]
    if unsure:
        sentences.append(
            f"These seeds do not tell the best values from all others for {', '.join(unsure)}: other seeds may choose "
            "others."
        )
    if any(lead.n == 1 for lead in leads.values()):
        sentences.append("The trials have one seed, so nothing says whether other seeds would choose alike.")
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

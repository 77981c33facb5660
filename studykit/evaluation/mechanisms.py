"""What else changes with the covariate of a family: candidate reasons for a slope.

A difference between two methods that grows with the size of a base need not come from the size. With the base grow the
fusion's share of all parameters (its three matrices grow with the square of the width, a bottleneck with the width),
the rate that suits the width, the attention to the target's own adapter, and how much there is to gain. Each of these
is a number per unit of the family, ranked against the difference. With five units, no order but the perfect one and its
reverse has p < 0.05: the ranks say which reasons remain, and none of them is proven by these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

from studykit.evaluation.gathered import Gathered, GatheredResults
from studykit.evaluation.results import ComparisonResults, read_results
from studykit.evaluation.scores import Published
from studykit.evaluation.worth import rank_correlation
from studykit.runs import files
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import GatherParams

EXACT = 7  # units of which all orders are tried; of more, DRAWS
DRAWS = 5000


class Mechanism(Published):
    """One candidate reason for how a difference changes."""

    method: str
    against: str
    name: str
    by_unit: dict[str, float]  # mean of the unit's studies
    correlation: float | None  # Spearman's, with the difference; None where all units are equal
    p: float  # two-sided, of the permutation test; 1 without a correlation


class Mechanisms(Published):
    """The content of `mechanisms.json`."""

    found: list[Mechanism]


def mechanisms(p: GatherParams, results: GatheredResults) -> Mechanisms:
    """Returns the candidate reasons for each difference of the main score, of those that all studies know."""
    studies = {study: result for study, run in p.compares.items() if (result := read_results(run))}
    found = []
    for one in results.main.gathered:
        of_studies = {study: _numbers(p, study, result, one) for study, result in studies.items()}
        for name in next(iter(of_studies.values()), {}):
            if all(name in numbers for numbers in of_studies.values()):
                found.append(_mechanism(one, name, {study: of[name] for study, of in of_studies.items()}))
    return Mechanisms(found=found)


def _numbers(p: GatherParams, study: str, result: ComparisonResults, one: Gathered) -> dict[str, float]:
    """The candidate reasons in one study, by name."""
    base = finished_run(p.bases[study])
    about = base.read_json("base.json")
    found: dict[str, float] = {}
    for cost in result.cost:
        if cost.method == one.method and cost.parameters:
            found[f"trained parameters of {one.method}, share of the base's"] = cost.parameters / about["parameters"]
    compared = finished_run(p.compares[study]).params
    runs = [*compared["fusions"].get(one.method, []), *compared["adapters"].get(one.method, [])]
    if runs:
        rate = finished_run(runs[0]).params["learning_rate"]
        found[f"learning rate of {one.method}, times the width"] = rate * about["hidden_size"]
    for method in (one.method, one.against):
        if own := [state.own_weight for state in result.attention if state.method == method]:
            found[f"weight on the target's own adapter in {method}"] = own[-1]
    for metric in result.judged_by:
        found[f"{metric.label} of {one.against}"] = metric.summary(one.against).mean
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _mechanism(one: Gathered, name: str, by_study: Mapping[str, float]) -> Mechanism:
    """The numbers of the studies as means of the units, ranked against the units' differences."""
    units: dict[str, list[float]] = {}
    for study in one.studies:
        units.setdefault(study.unit, []).append(by_study[study.study])
    by_unit = {unit: float(np.mean(values)) for unit, values in units.items()}
    differences = [unit.value for unit in one.units]
    numbers = [by_unit[unit.name] for unit in one.units]
    correlation = rank_correlation(numbers, differences) if len(numbers) > 2 else math.nan
    return Mechanism(
        method=one.method,
        against=one.against,
        name=name,
        by_unit=by_unit,
        correlation=None if math.isnan(correlation) else correlation,
        p=1.0 if math.isnan(correlation) else permutation_p(numbers, differences),
    )


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the share of the orders of `a` whose rank correlation with `b` is at least as large in size.

    All orders are tried for up to 7 values; otherwise 5,000 random ones, and the observed one is counted among them.
    """
    observed = abs(rank_correlation(a, b)) - 1e-9
    if len(a) <= EXACT:
        tried = [abs(rank_correlation(order, b)) >= observed for order in permutations(a)]
        return sum(tried) / len(tried)
    rng = np.random.default_rng(0)
    drawn = sum(abs(rank_correlation(rng.permutation(a), b)) >= observed for _ in range(DRAWS))
    return (1 + drawn) / (1 + DRAWS)


def read_mechanisms(run: str | Path) -> Mechanisms | None:
    """Reads the `mechanisms.json` of a gather run; returns None for a run without one."""
    file = files.project_path(run) / "mechanisms.json"
    return Mechanisms.parse(file.read_bytes(), file, "07_gather") if file.is_file() else None

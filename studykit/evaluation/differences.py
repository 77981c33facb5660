"""One difference in every study of a family, pooled over all in which the studies differ.

A study's difference has an error over rows and one over seeds; of what all its trainings share, its base, its draw of
the data, its target, it knows a single example. Here these become samples too. Studies are averaged within each value
of the first key in `over` (a **unit**: a base, say), and the units are pooled by the random-effects model of `pooling`.
Two or three seeds hardly know how trainings vary, and a study whose seeds agree by chance would outweigh all others: so
the variance over seeds is estimated once, in all studies together, and the studies' errors over seeds follow from it.
Every further key in `over` (the draw of the data, say) is a second source of error, crossed with the first: the pooled
difference is computed again at each of its values, and the spread of these is its error. Studies that only
evaluate the same trainings otherwise (in 4 bits, say) have one draw of trainings: in a unit they count as one study,
with the mean of their differences. Where all units share their test rows, other rows would have changed them together,
so an error over rows is added, as if the rows erred alike in all units: never too small. The errors are combined as in
`student`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from studykit.evaluation import pooling, student
from studykit.evaluation.covariates import Covariate
from studykit.evaluation.gathered import Gathered, Slope, StudyDifference, Unit
from studykit.evaluation.results import Contrast, Interval
from studykit.evaluation.student import StandardError
from studykit.study.gather_parameters import Level


@dataclass(frozen=True)
class Cell:
    """One study's difference, with all that pooling needs."""

    study: str
    levels: dict[str, Level]
    value: float
    row_error: StandardError
    seeds: list[float]  # the difference seed by seed; its spread is unknown where there is one
    rows: str  # a digest of the test rows
    contrast: Contrast
    trainings: tuple[str, ...] = ()  # the runs that trained the study's methods; studies with the same ones count once


def pool(
    cells: Sequence[Cell], over: Sequence[str], confidence: float = 0.95, covariate: Covariate | None = None
) -> Gathered:
    """Pools the differences of studies over the keys of `over`; with a covariate, by study, also their slope on it.

    The first key makes the units; each further one is a crossed source of error (see the module's docstring).
    """
    by_unit: dict[Level, list[Cell]] = {}
    for cell in cells:
        by_unit.setdefault(cell.levels[over[0]], []).append(cell)
    studies = list(by_unit.values())
    groups = [by_trainings(group) for group in studies]
    values = [_mean([cell.value for cell in group]) for group in groups]
    of_one_seed = seed_error([cell for group in groups for cell in group])
    own = [_unit_errors(group, of_one_seed) for group in groups]
    variances = [sum(error.value**2 for error in errors) for errors in own]
    xs = [_mean([covariate[cell.study] for cell in group]) for group in studies] if covariate else None
    mean = pooling.fit(values, variances)
    weights = np.asarray(mean.weights)
    alpha = 1 - confidence
    others = _crossed(studies, over[1:])
    shared_rows = _share_rows(groups) and not others
    errors = [*mean.errors, *_level_errors(others, lambda means: float(np.dot(weights, means)))]
    if shared_rows:
        errors.append(_common_rows(groups, weights))
    if len(groups) == 1 and not errors:  # of a single study, as its own report has them
        errors = [student.over_seeds([cell.value for cell in groups[0]])] if len(groups[0]) > 1 else own[0]
    half = student.half_width(errors, alpha) if errors else None
    predicted = mean.prediction(confidence)
    slope = _slope(groups, values, variances, xs, others, alpha, shared_rows) if xs and len(groups) > 1 else None
    a_cell = cells[0].contrast
    halves = [student.half_width(errors, alpha) for errors in own]
    return Gathered(
        method=a_cell.method,
        against=a_cell.against,
        value=mean.coefficients[0],
        interval=_interval(mean.coefficients[0], half),
        prediction=Interval(low=predicted[0], high=predicted[1]) if predicted else None,
        tau=math.sqrt(mean.tau2),
        i2=mean.i2,
        p=student.p_value(mean.coefficients[0], errors) if errors else 1.0,
        rows_shared=shared_rows,
        units=[
            Unit(
                name=str(level),
                studies=len(group),
                value=value,
                interval=Interval(low=value - own_half, high=value + own_half),
                weight=weight,
                covariate=None if xs is None else xs[at],
            )
            for at, ((level, group), value, own_half, weight) in enumerate(
                zip(by_unit.items(), values, halves, mean.weights, strict=True)
            )
        ],
        studies=[
            StudyDifference(
                study=cell.study,
                unit=str(cell.levels[over[0]]),
                value=cell.value,
                error=math.hypot(*(error.value for error in _unit_errors([cell], of_one_seed))),
                interval=cell.contrast.overall_interval or cell.contrast.interval,
            )
            for cell in cells
        ],
        slope=slope,
    )


def by_trainings(cells: Sequence[Cell]) -> list[Cell]:
    """Returns one cell per set of trainings: the mean of those that evaluate the same ones.

    Its seeds are the means seed by seed, and its error over rows is the mean of theirs, as if their rows erred alike.
    What is known of other trainings does not grow with the number of evaluations:

        by_trainings([evaluated in full precision, the same in nf4])  # one cell, with the seeds of one
    """
    same: dict[object, list[Cell]] = {}
    for at, cell in enumerate(cells):
        same.setdefault(cell.trainings or at, []).append(cell)
    return [
        replace(
            of[0],
            value=_mean([cell.value for cell in of]),
            row_error=StandardError(
                _mean([cell.row_error.value for cell in of]), min(cell.row_error.df for cell in of)
            ),
            seeds=[_mean(of_seed) for of_seed in zip(*(cell.seeds for cell in of), strict=True)],
        )
        for of in same.values()
    ]


def seed_error(cells: Sequence[Cell]) -> StandardError | None:
    """Returns the error of a difference with one seed, as all studies together have it; None if none has two."""
    known = [cell.seeds for cell in cells if len(cell.seeds) > 1]
    if not known:
        return None
    df = sum(len(seeds) - 1 for seeds in known)
    squares = sum(float(np.var(seeds)) * len(seeds) for seeds in known)
    return StandardError(math.sqrt(squares / df), df)


def _unit_errors(cells: Sequence[Cell], of_one_seed: StandardError | None) -> list[StandardError]:
    """The errors of the mean of a unit's studies over rows and, where they are known, over seeds."""
    over_rows = math.hypot(*(cell.row_error.value for cell in cells)) / len(cells)
    errors = [StandardError(over_rows, min(cell.row_error.df for cell in cells))]
    if of_one_seed:
        share = math.sqrt(sum(1 / max(1, len(cell.seeds)) for cell in cells)) / len(cells)
        errors.append(StandardError(of_one_seed.value * share, of_one_seed.df))
    return errors


def _slope(
    groups: list[list[Cell]],
    values: list[float],
    variances: list[float],
    xs: list[float],
    others: list[list[list[float]]],
    alpha: float,
    shared_rows: bool,
) -> Slope | None:
    """The line of the units' differences on the covariate, with the same errors as the mean."""
    if len(set(xs)) == 1:
        return None
    line = pooling.fit(values, variances, xs)
    x = np.asarray(xs)

    def slope_of(means: Sequence[float]) -> float:
        return float(np.polyfit(x, means, 1)[0])

    errors = [*line.errors[1:], *_level_errors(others, slope_of)]
    if shared_rows:
        centred = x - x.mean()
        errors.append(_common_rows(groups, np.abs(centred) / float(centred @ centred)))
    known = bool(line.errors)
    return Slope(
        value=line.coefficients[1],
        constant=line.coefficients[0],
        interval=_interval(line.coefficients[1], student.half_width(errors, alpha) if known else None),
        p=student.p_value(line.coefficients[1], errors) if known else 1.0,
    )


def _crossed(groups: list[list[Cell]], factors: Sequence[str]) -> list[list[list[float]]]:
    """Per further factor and level of it: the mean difference of each unit among the studies of that level.

    A level that some unit lacks is left out, since its mean would differ by the units that it has; so is a factor with
    fewer than two levels.
    """
    found = []
    for factor in factors:
        levels = dict.fromkeys(cell.levels[factor] for group in groups for cell in group)
        of_factor = []
        for level in levels:
            of_units = [[cell.value for cell in group if cell.levels[factor] == level] for group in groups]
            if all(of_units):
                of_factor.append([_mean(of_unit) for of_unit in of_units])
        if len(of_factor) > 1:
            found.append(of_factor)
    return found


def _level_errors(others: list[list[list[float]]], estimate: Callable[[list[float]], float]) -> list[StandardError]:
    """The error of an estimate over the levels of each further factor."""
    return [student.over_seeds([estimate(means) for means in of_factor]) for of_factor in others]


def _share_rows(groups: list[list[Cell]]) -> bool:
    """Whether all units have the same draws of test rows."""
    draws = [{cell.rows for cell in group} for group in groups]
    return len(groups) > 1 and all(of_unit == draws[0] for of_unit in draws)


def _common_rows(groups: list[list[Cell]], weights: np.ndarray) -> StandardError:
    """The error over the rows that all units share, as if the rows of a draw erred alike everywhere."""
    of_units = []
    for group in groups:
        draws: dict[str, list[float]] = {}
        for cell in group:
            draws.setdefault(cell.rows, []).append(cell.row_error.value)
        of_units.append(math.hypot(*(sum(errors) for errors in draws.values())) / len(group))
    df = min(cell.row_error.df for group in groups for cell in group)
    return StandardError(float(np.dot(weights, of_units)), df)


def _interval(value: float, half: float | None) -> Interval | None:
    return None if half is None else Interval(low=value - half, high=value + half)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))

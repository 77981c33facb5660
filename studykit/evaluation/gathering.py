"""Many studies, one answer: the differences between two methods in every study of a family, pooled.

A study's difference has an error over rows and one over seeds; of what all its trainings share, its base, its draw of
the data, its target, it knows a single example. Here these become samples too. Studies are averaged within each value
of the first key in `over` (a **unit**: a base, say), and the units are pooled by the random-effects model of `pooling`.
Two or three seeds hardly know how trainings vary, and a study whose seeds agree by chance would outweigh all others: so
the variance over seeds is estimated once, in all studies together, and the studies' errors over seeds follow from it.
Every further key in `over` (the draw of the data, say) is a second source of error, crossed with the first: the pooled
difference is computed again at each of its values, and the spread of these is its error. Where all units share their
test rows, other rows would have changed them together, so an error over rows is added, as if the rows erred alike in
all units: never too small. The errors are combined as in `student`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from studykit.errors import UserError, show
from studykit.evaluation import pooling, statistics, student
from studykit.evaluation.comparison import read_comparable
from studykit.evaluation.contrasts import Resampling, measure_contrast
from studykit.evaluation.covariates import Covariate, covariates, is_logarithmic
from studykit.evaluation.gathered import Gathered, GatheredMetric, GatheredResults, Slope, StudyDifference, Unit
from studykit.evaluation.level_interactions import RESAMPLES, level_interactions
from studykit.evaluation.metrics.properties import less_is_better
from studykit.evaluation.results import ComparisonResults, Contrast, Direction, Interval, read_results
from studykit.evaluation.student import StandardError
from studykit.runs import files
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import GatherParams, Level

ONE_ROW = 100.0  # by which one row differs between two methods, in points


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


def gather(p: GatherParams) -> GatheredResults:
    """Gathers the comparisons that the parameters of notebook 07 name.

    Raises UserError if the studies share no metric or none of the pairs.
    """
    results = {study: _read(run) for study, run in p.compares.items()}
    first = next(iter(results.values()))
    judged = [first.main, *(["loss"] if "loss" in first.metrics and first.main != "loss" else [])]
    shared = [metric for metric in judged if all(metric in one.metrics for one in results.values())]
    if not shared:
        raise UserError(f"Not all studies have {' or '.join(judged)}; gather studies that are judged by one score.")
    rows = {study: test_rows(run, results[study].main_comparison.language) for study, run in p.data.items()}
    covariate = covariates(p, {study: one.main_comparison.language for study, one in results.items()})
    metrics = []
    for metric in shared:
        pairs = p.contrasts or shared_pairs(results, metric)
        found = [
            pool(study_cells(results, metric, a, b, p.levels, rows), p.over, p.confidence, covariate) for a, b in pairs
        ]
        exceed = [
            pool([_cell(study, one, metric, p.levels, rows) for study, one in of.items()], p.over, p.confidence)
            for of in shared_interactions(results, metric)
        ]
        of_metric = first.metrics[metric]
        metrics.append(
            GatheredMetric(
                metric=metric,
                label=of_metric.label,
                unit=of_metric.unit,
                gathered=_decided(found, metric, p.confidence),
                pooled_interactions=_decided(exceed, metric, p.confidence),
                interactions=level_interactions(p, metric, pairs),
            )
        )
    name = p.covariate and (f"log10 {p.covariate}" if is_logarithmic(p) else p.covariate)
    return GatheredResults(
        over=p.over, covariate=name, confidence=p.confidence, shared_methods=shared_methods(p), metrics=metrics
    )


def shared_methods(p: GatherParams) -> list[str]:
    """Returns the methods whose evaluations are the same runs in two or more of the studies."""
    pairs = [pair for run in p.compares.values() for pair in finished_run(run).params["evaluations"].items()]
    return list(dict.fromkeys(method for method, run in pairs if pairs.count((method, run)) > 1))


def shared_pairs(results: Mapping[str, ComparisonResults], metric: str) -> list[list[str]]:
    """Returns the pairs of finished methods that all studies compare, without those with the base alone.

    Raises UserError if there is none.
    """
    first, *others = results.values()
    pairs = [[c.method, c.against] for c in first.metrics[metric].contrasts]
    words = {summary.method for summary in first.metrics[metric].summaries if summary.final} - {"base"}
    pairs = [pair for pair in pairs if words.issuperset(pair)]
    pairs = [pair for pair in pairs if all(other.metrics[metric].contrast(*pair) for other in others)]
    if not pairs:
        raise UserError("The studies have no pair of methods in common; name some in gather.contrasts.")
    return pairs


def shared_interactions(results: Mapping[str, ComparisonResults], metric: str) -> list[dict[str, Contrast]]:
    """Returns the differences in differences that all studies test (`compare.interactions`), each by study."""
    by_study = {
        study: {(one.method, one.against): one for one in of_study.metrics[metric].interactions}
        for study, of_study in results.items()
    }
    first, *others = by_study.values()
    shared = [names for names in first if all(names in other for other in others)]
    return [{study: of_study[names] for study, of_study in by_study.items()} for names in shared]


def pool_pairs(p: GatherParams, metric: str, asked: Sequence[tuple[str, str, Sequence[str]]]) -> list[Gathered]:
    """Returns pooled differences that the studies need not have compared, decided together as one family of tests.

    Args:
        asked: a method, the one that it is set against, and the studies that have evaluated both.
    """
    found = []
    for method, against, studies in asked:
        cells = []
        for study in studies:
            evaluations = finished_run(p.compares[study]).params["evaluations"]
            scores = read_comparable({word: evaluations[word] for word in (method, against)})
            options = Resampling(p.confidence, RESAMPLES, scores[against].groups_of(metric))
            checkpoints = {word: of_word.final for word, of_word in scores.items()}
            contrast = measure_contrast(metric, method, against, checkpoints, options)
            rows = {study: test_rows(p.data[study], scores[against].language)}
            cells.append(_cell(study, contrast, metric, p.levels, rows))
        found.append(pool(cells, p.over, p.confidence))
    return _decided(found, metric, p.confidence)


def study_cells(
    results: Mapping[str, ComparisonResults],
    metric: str,
    method: str,
    against: str,
    levels: Mapping[str, Mapping[str, Level]],
    rows: Mapping[str, str],
) -> list[Cell]:
    """Returns the difference between two methods in every study.

    Raises UserError for a study that does not compare the two, or has a single row or cluster.
    """
    cells = []
    for study, of_study in results.items():
        contrast = of_study.metrics[metric].contrast(method, against)
        if contrast is None:
            raise UserError(
                f"The study {show(study)} does not compare {method} with {against}; name the pair in its "
                "compare.contrasts, or leave it out of gather.contrasts."
            )
        cells.append(_cell(study, contrast, metric, levels, rows))
    return cells


def _cell(
    study: str,
    contrast: Contrast,
    metric: str,
    levels: Mapping[str, Mapping[str, Level]],
    rows: Mapping[str, str],
) -> Cell:
    """A difference with its errors.

    Where no row differs between the two methods, nothing says how well the difference of 0 is known: it counts as if
    one row differed. Raises UserError for a single row or cluster.
    """
    clusters = contrast.clusters or contrast.n
    if contrast.error is None or clusters < 2:
        raise UserError(f"The study {show(study)} has a single test row or cluster, so its error is not known.")
    error = contrast.error
    if error < statistics.TIE and not less_is_better(metric):
        error = ONE_ROW / contrast.n
    return Cell(
        study=study,
        levels={factor: of_factor[study] for factor, of_factor in levels.items()},
        value=contrast.value,
        row_error=StandardError(error, clusters - 1),
        seeds=contrast.by_seed,
        rows=rows[study],
        contrast=contrast,
    )


def pool(
    cells: Sequence[Cell], over: Sequence[str], confidence: float = 0.95, covariate: Covariate | None = None
) -> Gathered:
    """Pools the differences of studies over the keys of `over`; with a covariate, by study, also their slope on it.

    The first key makes the units; each further one is a crossed source of error (see the module's docstring).
    """
    by_unit: dict[Level, list[Cell]] = {}
    for cell in cells:
        by_unit.setdefault(cell.levels[over[0]], []).append(cell)
    groups = list(by_unit.values())
    values = [_mean([cell.value for cell in group]) for group in groups]
    of_one_seed = seed_error(cells)
    own = [_unit_errors(group, of_one_seed) for group in groups]
    variances = [sum(error.value**2 for error in errors) for errors in own]
    xs = [_mean([covariate[cell.study] for cell in group]) for group in groups] if covariate else None
    mean = pooling.fit(values, variances)
    weights = np.asarray(mean.weights)
    alpha = 1 - confidence
    others = _crossed(groups, over[1:])
    shared_rows = _share_rows(groups) and not others
    errors = [*mean.errors, *_level_errors(others, lambda means: float(np.dot(weights, means)))]
    if shared_rows:
        errors.append(_common_rows(groups, weights))
    if len(groups) == 1 and not errors:
        errors = _own_errors(groups[0])
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


def _own_errors(cells: list[Cell]) -> list[StandardError]:
    """The errors of a single study, as its own report has them."""
    if len(cells) > 1:
        return [student.over_seeds([cell.value for cell in cells])]
    seeds = cells[0].contrast.by_seed
    return [cells[0].row_error, *([student.over_seeds(seeds)] if len(seeds) > 1 else [])]


def _decided(found: Sequence[Gathered], metric: str, confidence: float) -> list[Gathered]:
    """The differences with Holm's correction over all of them, and the directions that it leaves."""
    corrected = statistics.holm([one.p for one in found])
    of_slopes = iter(statistics.holm([one.slope.p for one in found if one.slope]))
    decided = []
    for one, p in zip(found, corrected, strict=True):
        direction: Direction = "undecided"
        if p < 1 - confidence:
            direction = "better" if (one.value > 0) != less_is_better(metric) else "worse"
        slope = one.slope and one.slope.model_copy(update={"p_holm": next(of_slopes)})
        decided.append(one.model_copy(update={"p_holm": p, "direction": direction, "slope": slope}))
    return decided


def test_rows(data_run: str, language: str) -> str:
    """Returns a digest of the test rows of a language in a data run, whatever base cut them into tokens."""
    return files.sha256(finished_run(data_run).path("rows", language, "test.jsonl")) or ""


def _read(run: str) -> ComparisonResults:
    finished_run(run)
    results = read_results(run)
    if results is None:
        raise UserError(f"{run} has no compare.json; a finished run of 06_compare is needed.")
    return results


def _interval(value: float, half: float | None) -> Interval | None:
    return None if half is None else Interval(low=value - half, high=value + half)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))

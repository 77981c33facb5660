"""Many studies, one answer: the differences between two methods in every study of a family, read and pooled.

`gather` reads the comparisons, takes of each the differences that all studies have, pools them (`differences`) and
corrects them for their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studykit.errors import UserError, show
from studykit.evaluation import statistics
from studykit.evaluation.comparison import read_comparable
from studykit.evaluation.contrasts import Resampling, measure_contrast
from studykit.evaluation.covariates import covariates, is_logarithmic
from studykit.evaluation.differences import Cell, pool
from studykit.evaluation.gathered import Gathered, GatheredMetric, GatheredResults
from studykit.evaluation.level_interactions import RESAMPLES, level_interactions
from studykit.evaluation.metrics.properties import less_is_better
from studykit.evaluation.results import ComparisonResults, Contrast, Direction, read_results
from studykit.evaluation.student import StandardError
from studykit.runs import files
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import GatherParams, Level

ONE_ROW = 100.0  # by which one row differs between two methods, in points


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
    trained = {study: trainings(run) for study, run in p.compares.items()}
    covariate = covariates(p, {study: one.main_comparison.language for study, one in results.items()})
    metrics = []
    for metric in shared:
        pairs = p.contrasts or shared_pairs(results, metric)
        found = [
            pool(study_cells(results, metric, a, b, p.levels, rows, trained), p.over, p.confidence, covariate)
            for a, b in pairs
        ]
        exceed = [
            pool(
                [_cell(study, one, metric, p.levels, rows, trained) for study, one in of.items()], p.over, p.confidence
            )
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
    """Returns the methods of which two or more of the studies evaluate the same trainings, or the base."""
    pairs = [pair for run in p.compares.values() for pair in _trained(run).items()]
    return list(dict.fromkeys(method for method, of in pairs if pairs.count((method, of)) > 1))


def trainings(compare_run: str) -> tuple[str, ...]:
    """Returns all runs that trained the methods of a comparison."""
    params = finished_run(compare_run).params
    return tuple(run for part in ("adapters", "fusions") for of in (params.get(part) or {}).values() for run in of)


def _trained(compare_run: str) -> dict[str, list[str]]:
    """The runs that trained what a comparison evaluates, by method; of what is not trained its evaluation."""
    params = finished_run(compare_run).params
    trained = (params.get("adapters") or {}) | (params.get("fusions") or {})
    return {method: trained.get(method) or [run] for method, run in params["evaluations"].items()}


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
            cells.append(_cell(study, contrast, metric, p.levels, rows, {study: trainings(p.compares[study])}))
        found.append(pool(cells, p.over, p.confidence))
    return _decided(found, metric, p.confidence)


def study_cells(
    results: Mapping[str, ComparisonResults],
    metric: str,
    method: str,
    against: str,
    levels: Mapping[str, Mapping[str, Level]],
    rows: Mapping[str, str],
    trained: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Cell]:
    """Returns the difference between two methods in every study.

    Args:
        trained: the runs that trained the methods, by study; None where no two studies share theirs.
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
        cells.append(_cell(study, contrast, metric, levels, rows, trained or {}))
    return cells


def _cell(
    study: str,
    contrast: Contrast,
    metric: str,
    levels: Mapping[str, Mapping[str, Level]],
    rows: Mapping[str, str],
    trained: Mapping[str, tuple[str, ...]],
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
        trainings=trained.get(study, ()),
    )


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

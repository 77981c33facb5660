"""Many studies in tables and sentences: what notebook 07 shows of `gather.json`."""

from __future__ import annotations

from typing import Any

from studykit.evaluation.gathered import Gathered, GatheredMetric, GatheredResults
from studykit.evaluation.mechanisms import Mechanisms
from studykit.evaluation.metrics.properties import decimals
from studykit.evaluation.results import Contrast
from studykit.report.verdicts import signed, signed_interval
from studykit.runs.manifest import finished_run
from studykit.runs.text import plural
from studykit.study.gather_parameters import GatherParams

MOST_FIGURES = 6  # of each kind


def pair(one: Gathered) -> str:
    """Returns a difference by its two methods, or by its two differences in brackets."""
    sides = (f"({side})" if " \u2212 " in side else side for side in (one.method, one.against))
    return " \u2212 ".join(sides)


def headline(results: GatheredResults) -> dict[str, float]:
    """Returns the pooled differences of the main score for the index of a family."""
    main = results.main
    return {f"{pair(one)}, {main.label}": one.value for one in main.gathered[:MOST_FIGURES]}


def study_table(p: GatherParams) -> list[dict[str, Any]]:
    """Returns a line per study: what it differs in, and the size of its base."""
    return [
        {
            **{factor: p.levels[factor][study] for factor in p.levels},
            "parameters of the base": finished_run(p.bases[study]).manifest.headline.get("parameters"),
            "comparison": p.compares[study].removeprefix("runs/compare/"),
        }
        for study in p.compares
    ]


def pooled_table(of_metric: GatheredMetric) -> list[dict[str, Any]]:
    """Returns a line per difference: its pooled mean, the intervals, and how much the units differ."""
    return [_line(one, of_metric.metric) | {"verdict": one.direction} for one in of_metric.gathered]


def pooled_interaction_table(of_metric: GatheredMetric) -> list[dict[str, Any]]:
    """Returns the same of the differences in differences, of which one is larger or smaller than another."""
    return [_line(one, of_metric.metric) | {"verdict": _exceeds(one)} for one in of_metric.pooled_interactions]


def _line(one: Gathered, metric: str) -> dict[str, str]:
    return {
        "difference": pair(one),
        "mean": signed(one.value, metric),
        "interval": signed_interval(one.interval, metric),
        "prediction interval": signed_interval(one.prediction, metric),
        "tau": f"{one.tau:.{decimals(metric)}f}",
        "I²": f"{one.i2:.0%}",
        "p (Holm)": _p(one.p_holm),
    }


def _exceeds(one: Gathered) -> str:
    return "undecided" if one.direction == "undecided" else "larger" if one.value > 0 else "smaller"


def pooled_caption(results: GatheredResults, of_metric: GatheredMetric) -> str:
    """Returns the caption of the pooled differences: what they are pooled over, and the unit."""
    one = of_metric.gathered[0]
    units, studies = plural(len(one.units), "unit"), len(one.studies)
    return (
        f"{of_metric.label}: means and {results.confidence:.0%} intervals over {' and '.join(results.over)} "
        f"({units}, {studies} {'study' if studies == 1 else 'studies'}), in {unit(of_metric)}."
    )


def sentences(results: GatheredResults, of_metric: GatheredMetric) -> list[str]:
    """Returns a sentence per difference, and what none of the intervals holds."""
    found = [_sentence(results, of_metric, one) for one in of_metric.gathered]
    return found + what_no_interval_holds(results, of_metric)


def what_no_interval_holds(results: GatheredResults, of_metric: GatheredMetric) -> list[str]:
    """Returns sentences on what the intervals of the pooled differences leave out."""
    found = []
    first = of_metric.gathered[0]
    methods = {method for one in of_metric.gathered for method in (one.method, one.against)}
    if shared := [method for method in results.shared_methods if method in methods]:
        found.append(
            f"Several studies have the same trainings of {', '.join(shared)}. Their differences are then not "
            "independent, and the intervals are too narrow: read the units one by one."
        )
    if first.rows_shared:
        found.append(
            "All units share their test rows and one draw of training rows. The intervals include the error of "
            "the test rows; no number here shows how the differences would vary with another draw."
        )
    if len(first.units) < 5:
        found.append(
            f"With only {plural(len(first.units), 'unit')}, tau and I² are rough estimates of how units differ."
        )
    return found


def interaction_table(of_metric: GatheredMetric) -> list[dict[str, Any]]:
    """Returns a line per difference in differences, with its interval over rows and seeds and its verdict."""
    return [
        {
            "difference": f"{one.method} \u2212 {one.against}",
            "key": one.factor,
            "levels": f"{one.level} \u2212 {one.reference}",
            "elsewhere": ", ".join(f"{key} {level}" for key, level in one.elsewhere.items()) or "\u2013",
            "difference in differences": signed(one.contrast.value, of_metric.metric),
            "interval over rows and seeds": signed_interval(one.contrast.overall_interval, of_metric.metric),
            "interval over rows": signed_interval(one.contrast.interval, of_metric.metric),
            "p (Holm)": _p(one.contrast.verdict.p_overall),
            "verdict": _larger(one.contrast),
        }
        for one in of_metric.interactions
    ]


def slope_table(results: GatheredResults, of_metric: GatheredMetric) -> list[dict[str, Any]]:
    """Returns a line per difference: its slope on the covariate with interval and p."""
    return [
        {
            "difference": pair(one),
            f"slope per unit of {results.covariate}": signed(one.slope.value, of_metric.metric),
            "interval": signed_interval(one.slope.interval, of_metric.metric),
            "p (Holm)": _p(one.slope.p_holm),
        }
        for one in of_metric.gathered
        if one.slope
    ]


def mechanism_table(found: Mechanisms) -> list[dict[str, Any]]:
    """Returns a line per difference and candidate reason: its values, and their ranks against the difference."""
    return [
        {
            "difference": f"{one.method} \u2212 {one.against}",
            "candidate reason": one.name,
            **{unit: f"{value:.3g}" for unit, value in one.by_unit.items()},
            "rank correlation": "" if one.correlation is None else f"{one.correlation:+.2f}".replace("-", "\u2212"),
            "p": _p(one.p) if one.correlation is not None else "",
        }
        for one in found.found
    ]


def in_brief(results: GatheredResults) -> list[str]:
    """Returns the sentences that close the notebook: the decided differences and slopes, and how many are not."""
    found: list[str] = []
    for of_metric in results.metrics:
        decided = [one for one in of_metric.gathered if one.direction != "undecided"]
        found += [_sentence(results, of_metric, one) for one in decided]
        if left := len(of_metric.gathered) - len(decided):
            count = plural(len(of_metric.gathered), "difference")
            found.append(f"{of_metric.label}: {left} of {count} {'is' if left == 1 else 'are'} undecided.")
        decided = [one for one in of_metric.pooled_interactions if one.direction != "undecided"]
        found += [
            f"{of_metric.label}: **{one.method}** is {_exceeds(one)} than **{one.against}** over "
            f"{' and '.join(results.over)} (by {signed(one.value, of_metric.metric)} {unit(of_metric)}, interval "
            f"{signed_interval(one.interval, of_metric.metric)}).{_rests_on(one)}"
            for one in decided
        ]
        if left := len(of_metric.pooled_interactions) - len(decided):
            count = plural(len(of_metric.pooled_interactions), "difference") + " in differences"
            found.append(f"{of_metric.label}: {left} of {count} {'is' if left == 1 else 'are'} undecided.")
        for one in of_metric.gathered:
            if one.slope and one.slope.p_holm < 1 - results.confidence:
                grows = "grows" if one.slope.value > 0 else "falls"
                interval = signed_interval(one.slope.interval, of_metric.metric)
                found.append(
                    f"{of_metric.label}: {pair(one)} {grows} with {results.covariate}, by "
                    f"{signed(one.slope.value, of_metric.metric)} ({interval}) per unit of it."
                )
    return found


def _sentence(results: GatheredResults, of_metric: GatheredMetric, one: Gathered) -> str:
    metric = of_metric.metric
    words = {"better": "is better than", "worse": "is worse than", "undecided": "cannot be told apart from"}
    same = sum((study.value > 0) == (one.value > 0) for study in one.studies)
    interval = f", interval {signed_interval(one.interval, metric)}" if one.interval else ", no interval"
    predicted = f"; in another unit {signed_interval(one.prediction, metric)}" if one.prediction else ""
    over = " and ".join(results.over)
    return (
        f"{of_metric.label}: **{one.method}** {words[one.direction]} **{one.against}** over {over} "
        f"({signed(one.value, metric)} {unit(of_metric)}{interval}{predicted}); {same} of {len(one.studies)} studies "
        f"differ in this direction.{_rests_on(one)}"
    )


def _rests_on(one: Gathered) -> str:
    """Returns a sentence on the unit that weighs more than all others together, or nothing."""
    heaviest = max(one.units, key=lambda unit: unit.weight)
    if len(one.units) < 3 or heaviest.weight <= 0.5:
        return ""
    return f" It rests on one unit: {heaviest.name} has {heaviest.weight:.0%} of the weight."


def _larger(contrast: Contrast) -> str:
    if not contrast.verdict.is_decided:
        return "undecided"
    return ("larger" if contrast.value > 0 else "smaller") + " on these seeds only" * (
        not contrast.verdict.seeds_confirm
    )


def unit(of_metric: GatheredMetric) -> str:
    """Returns the unit of a difference: that of two percentages is points."""
    return "points" if of_metric.unit == "%" else of_metric.unit


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"

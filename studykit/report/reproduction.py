"""Published statements beside ours: which method is better, and how much attention the target's own adapter gets.

Two files lie beside this module. claims.csv says of two methods which is better on a task, or at least as good (strict:
no), and own_attention.csv has the fusion weights of released figures. docs/reproduction.md says what they are worth.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studykit.attention.summary import AttentionSummary
from studykit.data.rows import DataRun
from studykit.evaluation.comparison import compare, read_comparable
from studykit.evaluation.gathered import GatheredMetric
from studykit.evaluation.gathering import pool_pairs
from studykit.evaluation.results import Direction, MetricComparison
from studykit.report.verdicts import difference_unit, signed, signed_interval
from studykit.runs import files
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import GatherParams

PUBLISHED = Path(__file__).parent / "published"
LAYERS = 12  # of the published figures, which are of CodeBERT
DOUBTFUL = "python"  # the target whose two published panels are one matrix with two columns exchanged
AGREEMENT: dict[Direction, str] = {"better": "agrees", "worse": "contradicts", "undecided": "undecided"}
AS_PUBLISHED, IN_ITS_PLACE = "advfusion_zero", "advfusion_exclude"  # masks of phase 1
Claim = Mapping[str, str]  # a line of claims.csv


def claims(task: str, target: str) -> Sequence[Claim]:
    """Returns the published statements on a task that hold for all languages or name the target."""
    named = [claim for claim in _published("claims.csv") if claim["task"] == task]
    return [claim for claim in named if claim["language"] == "all" or target in claim["language"].split()]


def pair_of(claim: Claim, methods: Collection[str]) -> tuple[str, str] | None:
    """Returns the methods of a study that a statement is about, the better one first; None where one is missing.

    AdvFusion is published with the target's adapter set to zero in phase 1. Where a study has no `advfusion_zero`, its
    `advfusion_exclude` stands in its place.
    """
    better, worse = claim["better"], claim["worse"]
    if {better, worse} <= set(methods):
        return better, worse
    replaced = better.replace(AS_PUBLISHED, IN_ITS_PLACE), worse.replace(AS_PUBLISHED, IN_ITS_PLACE)
    zero = {word for word in (better, worse) if word.startswith(AS_PUBLISHED)}
    return replaced if set(replaced) <= set(methods) and not zero & set(methods) else None


def claim_table(
    comparison: MetricComparison, evaluations: Mapping[str, str], resamples: int = 10_000
) -> list[dict[str, Any]]:
    """Returns a line per published statement on the study's task whose two methods the study has evaluated.

    The statements are a family of tests of their own, so that they take no power from the study's questions. A
    statement is contradicted where the better method is worse here; what the seeds do not confirm says so. "At least as
    good" agrees where the method is better: that two are equal is never shown.

    Args:
        evaluations: evaluate runs of the study by method; the first tells task and target.
        resamples: bootstrap draws per statement.
    """
    task, target = _task_and_target(finished_run(files.project_path(next(iter(evaluations.values())))).params["data"])
    stated = [(claim, pair) for claim in claims(task, target) if (pair := pair_of(claim, evaluations))]
    if not stated:
        return []
    words = dict.fromkeys(word for _, pair in stated for word in pair)
    tested = compare(
        read_comparable({word: evaluations[word] for word in words}),
        comparison.metric,
        stated[0][1][1],
        comparison.confidence,
        resamples * len(stated),
        pairs=[pair for _, pair in stated],
    )
    lines = []
    for (claim, _), one in zip(stated, tested.contrasts, strict=True):
        only = " on these seeds only" if one.verdict.is_decided and not one.verdict.seeds_confirm else ""
        here = f"{signed(one.value, tested.metric)} {difference_unit(tested)}"
        interval = signed_interval(one.overall_interval or one.interval, tested.metric)
        verdict = AGREEMENT[one.verdict.direction] + only
        lines.append(_line(claim, (one.method, one.against), {"here": here, "interval": interval}, verdict))
    return lines


def gathered_claims(of_metric: GatheredMetric, p: GatherParams) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the same of many studies, and a sentence for each statement that they cannot be pooled for.

    A statement is set beside the studies of its task and its targets alone, and pooled over these.
    """
    places = {study: _task_and_target(run) for study, run in p.data.items()}
    evaluated = {study: finished_run(run).params["evaluations"] for study, run in p.compares.items()}
    asked: list[tuple[Claim, tuple[str, str], list[str]]] = []
    alone = []
    for claim in _published("claims.csv"):
        fitting = [study for study, of in places.items() if claim in claims(*of)]
        pairs = {study: pair for study in fitting if (pair := pair_of(claim, evaluated[study]))}
        if not pairs:
            continue
        pair = next(iter(pairs.values()))
        studies = [study for study, of_study in pairs.items() if of_study == pair]
        if len(studies) > 1:
            asked.append((claim, pair, studies))
        else:
            alone.append(
                f'One study alone, {studies[0]}, has the task, the target and the methods of "{_statement(claim)}" '
                f"({claim['task']}); its own report sets them side by side."
            )
    found = pool_pairs(p, of_metric.metric, [(*pair, studies) for _, pair, studies in asked])
    lines = []
    for (claim, pair, studies), one in zip(asked, found, strict=True):
        numbers: dict[str, Any] = {
            "here": signed(one.value, of_metric.metric),
            "interval": signed_interval(one.interval, of_metric.metric),
            "studies": len(studies),
        }
        lines.append(_line(claim, pair, numbers, AGREEMENT[one.direction]))
    return lines, alone


def _line(claim: Claim, pair: Sequence[str], numbers: Mapping[str, Any], verdict: str) -> dict[str, Any]:
    return {
        "published": _statement(claim),
        "by": claim["difference"] or "–",
        "source": f"arXiv {claim['paper']}, {claim['source']}",
        "difference here": " \u2212 ".join(pair),
        **numbers,
        "verdict": verdict,
    }


def _statement(claim: Claim) -> str:
    relation = "better than" if claim["strict"] == "yes" else "at least as good as"
    return f"{claim['better']} is {relation} {claim['worse']}"


def _task_and_target(data_run: str) -> tuple[str, str]:
    data = DataRun(files.project_path(data_run))
    target = data.params["target"]
    return data.task_of(target), target


def own_attention_table(summaries: Mapping[str, AttentionSummary]) -> list[dict[str, Any]]:
    """Returns the weight on the target's own adapter by layer, in percent, ours and published.

    Ours is the mean over seeds at the end of training. A layer of ours stands beside the published one at the same
    relative depth, the mean over the published targets but the doubtful one. A fusion without the target's adapter is
    left out.
    """
    rows = [row for row in _published("own_attention.csv") if row["target"] != DOUBTFUL]
    table = []
    for method, summary in summaries.items():
        if not summary.own:
            continue
        weights = 100 * summary.last.weights.mean(0)[:, summary.own[0]]  # (L,)
        column = "advfusion" if method.startswith("advfusion") else "adapterfusion"
        of_layer = [
            np.mean([float(row[column]) for row in rows if int(row["layer"]) == n]) for n in range(1, LAYERS + 1)
        ]
        depth = np.linspace(0, LAYERS - 1, len(weights)).round().astype(int)  # of our layers among the published ones
        theirs = np.array(of_layer)[depth]
        table += [
            {"method": method, "layer": label, "here (%)": f"{own:.1f}", "published (%)": f"{other:.1f}"}
            for label, own, other in zip(summary.layers, weights, theirs, strict=True)
        ]
        means = {"here (%)": f"{weights.mean():.1f}", "published (%)": f"{np.mean(of_layer):.1f}"}
        table.append({"method": method, "layer": "mean"} | means)
    return table


def _published(name: str) -> Sequence[Mapping[str, str]]:
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

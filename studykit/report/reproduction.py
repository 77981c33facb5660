"""Published statements beside ours: which method is better, and how much attention the target's own adapter gets.

Two files lie beside this module. claims.csv says of two methods which is better on a task, and own_attention.csv has
the fusion weights of released figures. docs/reproduction.md says what they are worth.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from studykit.attention.summary import AttentionSummary
from studykit.data.rows import DataRun
from studykit.evaluation.gathered import GatheredMetric
from studykit.evaluation.results import Direction, MetricComparison
from studykit.report.verdicts import difference_unit, signed
from studykit.runs import files
from studykit.runs.manifest import finished_run

PUBLISHED = Path(__file__).parent / "published"
LAYERS = 12  # of the published figures, which are of CodeBERT
DOUBTFUL = "python"  # the target whose two published panels are one matrix with two columns exchanged
AGREEMENT: dict[Direction, str] = {"better": "agrees", "worse": "contradicts", "undecided": "undecided"}


def claims(task: str, target: str) -> list[dict[str, str]]:
    """Returns the published statements on a task that hold for all languages or name the target."""
    named = [claim for claim in _published("claims.csv") if claim["task"] == task]
    return [claim for claim in named if claim["language"] == "all" or target in claim["language"].split()]


def claim_table(comparison: MetricComparison, evaluations: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns a line per published statement on the study's task whose two methods the study compares.

    A statement is contradicted where the better method is worse here; what the seeds do not confirm says so.

    Args:
        evaluations: evaluate runs of the study by method; the first tells task and target.
    """

    def ours(better: str, worse: str) -> tuple[str, str] | None:
        contrast = comparison.contrast(better, worse)
        if contrast is None:
            return None
        found = contrast.verdict
        only = " on these seeds only" if found.is_decided and not found.seeds_confirm else ""
        difference = f"{signed(contrast.value, comparison.metric)} {difference_unit(comparison)}"
        return difference, AGREEMENT[found.direction] + only

    evaluation = files.project_path(next(iter(evaluations.values())))
    return list(_compared(finished_run(evaluation).params["data"], ours))


def gathered_claim_table(of_metric: GatheredMetric, data: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the same of many studies, by their pooled differences.

    Args:
        data: data runs by study; the first tells task and target.
    """
    opposite: dict[Direction, Direction] = {"better": "worse", "worse": "better", "undecided": "undecided"}

    def ours(better: str, worse: str) -> tuple[str, str] | None:
        for one in of_metric.gathered:
            if (one.method, one.against) == (better, worse):
                return signed(one.value, of_metric.metric), AGREEMENT[one.direction]
            if (one.method, one.against) == (worse, better):
                return signed(-one.value, of_metric.metric), AGREEMENT[opposite[one.direction]]
        return None

    return list(_compared(next(iter(data.values())), ours))


def _compared(data_run: str, ours: Callable[[str, str], tuple[str, str] | None]) -> Iterator[dict[str, Any]]:
    data = DataRun(files.project_path(data_run))
    target = data.params["target"]
    for claim in claims(data.task_of(target), target):
        if found := ours(claim["better"], claim["worse"]):
            yield {
                "published": f"{claim['better']} is better than {claim['worse']}",
                "by": claim["difference"] or "–",
                "source": f"arXiv {claim['paper']}, {claim['source']}",
                "here": found[0],
                "verdict": found[1],
            }


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


def _published(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

"""The scores of all methods in every study of a family, side by side: what a reader asks before anything is pooled.

All numbers are those that the studies' own comparisons published. A method that is trained in two phases has two
states: after phase 1, and finished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from studykit.evaluation.gathered import Gathered, GatheredMetric
from studykit.evaluation.metrics.properties import format_score, less_is_better
from studykit.evaluation.results import Contrast, Direction, MethodSummary, MetricComparison, read_results
from studykit.report.pooled import pair
from studykit.report.verdicts import metric_in_sentence, signed, signed_interval
from studykit.runs.text import plural
from studykit.study.gather_parameters import Level
from studykit.study.methods import PHASE_1


@dataclass(frozen=True)
class StudyScores:
    """The comparison of one study, and where the study stands in its family."""

    study: str
    levels: Mapping[str, Level]  # its value of each key that varies
    judged_by: Sequence[MetricComparison]  # the main comparison, and that by completion loss
    metrics: Mapping[str, MetricComparison]  # these and all others

    def contrast(self, metric: str, of: Gathered) -> Contrast | None:
        """Returns the difference between the methods of a gathered one; None if the study does not test it."""
        return self.metrics[metric].contrast(of.method, of.against) if metric in self.metrics else None

    def by(self, metric: str) -> MetricComparison | None:
        """Returns the comparison by a metric; None if the study is not judged by it."""
        return next((one for one in self.judged_by if one.metric == metric), None)


def read_studies(compares: Mapping[str, str], levels: Mapping[str, Mapping[str, Level]]) -> list[StudyScores]:
    """Reads the comparisons of the studies of a family; those that have published nothing are left out.

    Args:
        compares: the compare runs, by study.
        levels: the values of what the studies differ in, by key and study.
    """
    found = []
    for study, run in compares.items():
        if results := read_results(run):
            own = {key: of_studies[study] for key, of_studies in levels.items()}
            found.append(StudyScores(study, own, results.judged_by, results.metrics))
    return found


def metrics_of(studies: Sequence[StudyScores]) -> list[str]:
    """Returns the metrics that judge any of the studies, the completion loss last."""
    known = dict.fromkeys(one.metric for study in studies for one in study.judged_by)
    return sorted(known, key=lambda metric: metric == "loss")


def methods_of(studies: Sequence[StudyScores]) -> list[str]:
    """Returns the methods of all studies, in the order of the first study that has each."""
    return list(dict.fromkeys(row.method for study in studies for row in study.judged_by[0].summaries if row.final))


def states_of(compared: MetricComparison) -> list[MethodSummary]:
    """Returns the scores of the finished methods of a comparison, and those of their states after phase 1."""
    return [row for row in compared.summaries if row.final or row.method.endswith(f", {PHASE_1.title}")]


def score_table(studies: Sequence[StudyScores], metric: str) -> list[dict[str, str]]:
    """Returns the mean scores of all methods in all studies that are judged by a metric.

    A line is a study, or a method where there are more methods than studies.
    """
    judged = [(study, compared) for study in studies if (compared := study.by(metric))]
    cells = {
        (study.study, row.method): format_score(row.mean, metric)
        for study, compared in judged
        for row in states_of(compared)
    }
    columns = list(dict.fromkeys(method for _, method in cells))
    if len(columns) > len(judged):
        return [
            {"method": method} | {study.study: cells.get((study.study, method), "") for study, _ in judged}
            for method in columns
        ]
    return [
        {key: str(level) for key, level in study.levels.items()}
        | {method: cells.get((study.study, method), "") for method in columns}
        for study, _ in judged
    ]


def score_caption(studies: Sequence[StudyScores], metric: str) -> str:
    """Returns the caption of `score_table`."""
    first = next(compared for study in studies if (compared := study.by(metric)))
    return f"{first.label} ({first.unit}) of every method in every study: means over {plural(first.seeds, 'seed')}."


def leads(studies: Sequence[StudyScores]) -> list[str]:
    """Returns a sentence per metric: which finished method is ahead in how many studies, **bold** as in Markdown.

    It counts means and tests nothing. A study in which several share the first place counts for none of them.
    """
    found = []
    for metric in metrics_of(studies):
        judged = [compared for study in studies if (compared := study.by(metric))]
        firsts = [first for compared in judged if (first := _first(compared))]
        if not firsts:
            continue
        best = max(dict.fromkeys(firsts), key=firsts.count)
        extreme = "lowest" if less_is_better(metric) else "highest"
        name, of = metric_in_sentence(judged[0]), _studies(len(judged))
        found.append(f"By {name}, **{best}** has the {extreme} mean in {firsts.count(best)} of {of}.")
    return found


def difference_table(studies: Sequence[StudyScores], of_metric: GatheredMetric) -> list[dict[str, str]]:
    """Returns a line per study: every gathered difference with its interval and, where the study tests it, the verdict.

    The interval is over rows and seeds, or over rows alone where a study has one seed.
    """
    known, metric = {study.study: study for study in studies}, of_metric.metric
    lines: dict[str, dict[str, str]] = {}
    for one in of_metric.gathered:
        for own in one.studies:
            tested = own.study in known and known[own.study].contrast(metric, one)
            text = f"{signed(own.value, metric)} ({signed_interval(own.interval, metric)})"
            line = lines.setdefault(own.study, {"study": own.study})
            line[pair(one)] = f"{text}, {tested.verdict}" if tested else text
    return list(lines.values())


def verdict_counts(studies: Sequence[StudyScores], of_metric: GatheredMetric) -> list[str]:
    """Returns a sentence per gathered difference: how many studies have it better, worse or undecided.

    The verdicts are the studies' own, each corrected for what the study itself tests. **Bold** as in Markdown.
    """
    found = []
    for one in of_metric.gathered:
        tested = [contrast.verdict for study in studies if (contrast := study.contrast(of_metric.metric, one))]
        counts = Counter(verdict.direction for verdict in tested)
        parts = [f"{direction} in {counts[direction]}" for direction in get_args(Direction) if counts[direction]]
        sure = sum(verdict.is_decided and verdict.seeds_confirm for verdict in tested)
        covered = f"; {sure or 'none'} of these verdicts cover{'s' * (sure < 2)} other seeds"
        seeds = covered if counts["better"] + counts["worse"] else ""
        if tested:
            name = f"{of_metric.label}: **{one.method}** against **{one.against}**"
            found.append(f"{name} is {', '.join(parts)} of {_studies(len(tested))}{seeds}.")
    return found


def _studies(count: int) -> str:
    return "1 study" if count == 1 else f"{count} studies"


def _first(compared: MetricComparison) -> str | None:
    """Returns the finished method with the best mean; None if several share it, or there is only one."""
    sign = -1 if less_is_better(compared.metric) else 1
    rows = [row for row in compared.summaries if row.final]
    means = np.array([sign * row.mean for row in rows])
    tops = np.flatnonzero(np.isclose(means, means.max(), rtol=0, atol=1e-9))
    return rows[tops[0]].method if len(tops) == 1 < len(rows) else None

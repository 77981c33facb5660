"""Muted scores: the main score of a finished fusion's completions with all members, and with each one muted in turn.

A loss moves with every token, but a program passes or fails, so a member can be worth much of the one and nothing of
the other. The score is the one that methods are judged by: pass@1 where the rows can be executed, else BLEU (paper).
A muted member is excluded from the softmax, as in `attention.muting`. `without_members` measures them.

    scored = read_muted_scores("runs/fusion_attention/lua-adapterfusion-.../muted_scores.json")
    [(row.member, row.value) for row in scored.members]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from studykit.evaluation.contrasts import interval, rows_of_scores
from studykit.evaluation.metrics.properties import unit
from studykit.evaluation.results import Interval
from studykit.evaluation.scores import Published, Score
from studykit.evaluation.statistics import paired_bootstrap
from studykit.evaluation.student import half_width, over_seeds
from studykit.runs import files

ALL = ""  # nothing is muted


class MutedScore(Published):
    """What one member is worth to the main score of a fusion."""

    member: str
    value: float  # score with all members minus score without it, mean over the seeds: above 0 the member helps
    interval: Interval | None  # of it over the test rows, paired; None for a single row or group
    by_seed: list[float]
    seed_interval: Interval | None  # Student's t interval over the seeds; None below two seeds


class MutedScores(Published):
    """The content of `muted_scores.json`: one method's fusions, finished, scored without each of their members."""

    method: str
    metric: str  # key of the score
    label: str  # its name in tables
    unit: str
    samples: int  # test rows behind the score
    with_all: float  # score with all members, mean over the seeds
    not_executed: str | None  # why rows that have tests were not executed
    members: list[MutedScore]  # [] for a fusion of one


def compare_muted(
    method: str,
    by_seed: Sequence[Mapping[str, Mapping[str, Score]]],
    groups: Sequence[str | None],
    not_executed: str | None = None,
    confidence: float = 0.95,
) -> MutedScores:
    """Returns what each member is worth, from the scores by metric, by muted member (`ALL` for none), seed by seed.

    Args:
        groups: the group of each row; rows without one are independent.
    """
    first = by_seed[0][ALL]
    metric = next((name for name in ("pass_at_1", "bleu_paper") if name in first), next(iter(first)))
    covered = first[metric].rows
    clusters = list(groups) if covered is None else [groups[i] for i in covered]
    whole, aggregate = rows_of_scores(metric, [scores[ALL][metric] for scores in by_seed])
    values = [float(scores[ALL][metric].value or 0.0) for scores in by_seed]
    found = []
    for member in list(by_seed[0])[1:]:
        without, _ = rows_of_scores(metric, [scores[member][metric] for scores in by_seed])
        over_rows = paired_bootstrap(whole, without, aggregate, clusters=clusters, confidence=confidence)
        lost = [a - float(scores[member][metric].value or 0.0) for a, scores in zip(values, by_seed, strict=True)]
        mean = sum(lost) / len(lost)
        half = half_width([over_seeds(lost)], 1 - confidence) if len(lost) > 1 else float("nan")
        found.append(
            MutedScore(
                member=member,
                value=mean,
                interval=interval(over_rows.low, over_rows.high),
                by_seed=lost,
                seed_interval=interval(mean - half, mean + half),
            )
        )
    return MutedScores(
        method=method,
        metric=metric,
        label=first[metric].label,
        unit=unit(metric),
        samples=first[metric].n,
        with_all=sum(values) / len(values),
        not_executed=not_executed,
        members=found,
    )


def read_muted_scores(file: str | Path) -> MutedScores | None:
    """Reads a `muted_scores.json`; returns None where no completions were scored without members."""
    path = files.project_path(file)
    return MutedScores.parse(path.read_bytes(), path, "05_fusion_attention") if path.is_file() else None

"""Differences in differences between the studies of a family: does a change of the studies change what a method gains?

A family that crosses two changes asks for an interaction: is AdvFusion's gain over AdapterFusion another one on a base
in 4 bits? For studies that differ in one key alone, one with its first level and one with another,

    (a - b at the other level) - (a - b at the first level)

is measured as any interaction of four methods is (`contrasts.measure_interaction`): each bootstrap draw takes all four
scores of a row, and seeds are paired, so its interval holds for other rows and other seeds of the same base and data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studykit.errors import UserError, show
from studykit.evaluation.contrasts import Resampling, decide, measure_interaction
from studykit.evaluation.gathered import LevelInteraction
from studykit.evaluation.scores import EvaluationScores, read_scores
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import GatherParams, Level
from studykit.study.questions import too_few_resamples

RESAMPLES = 10_000  # bootstrap draws


def level_interactions(p: GatherParams, metric: str, pairs: Sequence[Sequence[str]]) -> list[LevelInteraction]:
    """Returns the differences in differences of pairs of methods for the keys in `p.interactions`, decided together.

    Raises UserError for studies whose scored rows differ, and for more comparisons than the resamples can decide.
    """
    changes = [change for factor in p.interactions for change in changes_of(factor, p.levels)]
    tests = len(changes) * len(pairs)
    if problem := too_few_resamples(RESAMPLES, tests, p.confidence):
        raise UserError(f"gather.interactions: {problem}.")
    found = []
    for factor, study, other in changes:
        for method, against in pairs:
            words, scores = (method, against), [_scores(p.compares[one], (method, against)) for one in (other, study)]
            _require_same_rows(study, other, metric, [of for of_study in scores for of in of_study])
            levels = [p.levels[factor][one] for one in (other, study)]
            names = [f"{word} ({level})" for level in levels for word in words]
            checkpoints = {
                name: of.final for name, of in zip(names, [of for of_study in scores for of in of_study], strict=True)
            }
            options = Resampling(p.confidence, RESAMPLES, scores[0][0].groups_of(metric))
            contrast = measure_interaction(metric, names, checkpoints, options, tests=tests)
            elsewhere = {key: str(of[study]) for key, of in p.levels.items() if key != factor}
            found.append((factor, str(levels[0]), str(levels[1]), elsewhere, method, against, contrast))
    decided = decide(metric, [contrast for *_, contrast in found], p.confidence, None)
    return [
        LevelInteraction(
            factor=factor,
            level=level,
            reference=reference,
            elsewhere=elsewhere,
            method=method,
            against=against,
            contrast=contrast,
        )
        for (factor, level, reference, elsewhere, method, against, _), contrast in zip(found, decided, strict=True)
    ]


def changes_of(factor: str, levels: Mapping[str, Mapping[str, Level]]) -> list[tuple[str, str, str]]:
    """Returns (factor, study, other) for studies that differ in a key alone: the first with its first level.

    Args:
        levels: the values of what the studies differ in, by key and study.
    """
    of_factor = levels[factor]
    first = next(iter(of_factor.values()))

    def rest(study: str) -> list[Level]:
        return [of[study] for key, of in levels.items() if key != factor]

    starts = [study for study, level in of_factor.items() if level == first]
    others = [study for study, level in of_factor.items() if level != first]
    return [(factor, start, other) for start in starts for other in others if rest(start) == rest(other)]


def _scores(compare_run: str, words: Sequence[str]) -> list[EvaluationScores]:
    evaluations = finished_run(compare_run).params["evaluations"]
    return [read_scores(evaluations[word]) for word in words]


def _require_same_rows(study: str, other: str, metric: str, scores: Sequence[EvaluationScores]) -> None:
    """Raises UserError unless all evaluations are of the same test rows and the metric covers the same ones of them."""
    if any((of.language, of.ids, of.groups) != (scores[0].language, scores[0].ids, scores[0].groups) for of in scores):
        raise UserError(
            f"gather.interactions compares the studies {show(study)} and {show(other)}, whose test rows differ; it may "
            "name keys that leave the data as they are."
        )
    covered = [checkpoint.scores[metric].rows for of in scores for checkpoint in of.final]
    if any(rows != covered[0] for rows in covered):
        raise UserError(
            f"gather.interactions compares the studies {show(study)} and {show(other)}, whose evaluations have the "
            f"score {scores[0].score(metric).label} on different rows; evaluate both with the same code and runtimes."
        )

"""Sentences and tables computed from the numbers of a comparison, whatever these turn out to be.

Every difference ends in a verdict (see `contrasts.decide`): better or worse, possibly on these seeds only, equivalent
within a margin, or undecided. `verdicts` puts one difference into words; here the study's questions are answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studykit.evaluation.metrics.properties import format_score, less_is_better
from studykit.evaluation.results import ComparisonResults, Contrast, MethodSummary, MetricComparison
from studykit.report.verdicts import (
    brief,
    in_words,
    interaction_sentence,
    metric_in_sentence,
    plain,
    score_interval,
    sentence,
    size,
    unbreakable,
)
from studykit.runs import files
from studykit.runs.manifest import read_manifest
from studykit.runs.text import plural
from studykit.study import questions
from studykit.study.languages import display_name

MANY_CUT = 0.05  # share of the test prompts that were cut, above which the report says so
REST = "How do the other methods compare?"
INTERACTIONS = "Is one difference larger than another?"


class Answer(NamedTuple):
    """The answer to one question of the study."""

    question: str
    sentences: list[str]


def answers(comparison: MetricComparison) -> list[Answer]:
    """Returns the answers to all questions that the study can answer, and last the differences that none asks for."""
    rest = {frozenset((c.method, c.against)): c for c in comparison.contrasts}
    answered = []
    for question, contrasts in by_question(comparison).items():
        for contrast in contrasts:
            rest.pop(frozenset((contrast.method, contrast.against)), None)
        answered.append(Answer(question, [sentence(comparison, contrast) for contrast in contrasts]))
    if rest:
        answered.append(Answer(REST, [sentence(comparison, contrast) for contrast in rest.values()]))
    if comparison.interactions:
        sentences = [interaction_sentence(comparison, contrast) for contrast in comparison.interactions]
        answered.append(Answer(INTERACTIONS, sentences))
    return answered


def by_question(comparison: MetricComparison) -> dict[str, list[Contrast]]:
    """Returns the differences that were made, by the questions that they answer."""
    words = [row.method for row in comparison.summaries if row.final]
    pairs = questions.questions(words, comparison.language)
    found = {question: [comparison.contrast(*pair) for pair in asked] for question, asked in pairs.items()}
    made = {question: [contrast for contrast in contrasts if contrast] for question, contrasts in found.items()}
    return {question: contrasts for question, contrasts in made.items() if contrasts}


def claim(comparison: MetricComparison, target: str) -> str:
    """Returns whether hiding the target's adapter first helps, by this metric; "" where the study ran no AdvFusion.

    It is judged against the same two phases without a mask and against masks of other members, wherever the study ran
    them: a mask helps if it is better than all of these. Without any, AdvFusion is judged against AdapterFusion. A
    difference that the seeds do not confirm is no claim.
    """
    contrasts, controlled = _of_hypothesis(comparison)
    if not contrasts:
        return ""
    name = display_name(target)
    yes, no, whether = (
        f"AdvFusion beats AdapterFusion on {name}",
        f"AdvFusion does not beat AdapterFusion on {name}",
        "",
    )
    if controlled:
        subject = f"iding the {name} adapter in phase 1"
        yes, no, whether = f"H{subject} helps", f"H{subject} does not help", f"h{subject} helps"
    verdicts: dict[str, set[str]] = {}  # by mask, against each of its controls
    for contrast in contrasts:
        direction = contrast.verdict.direction if contrast.verdict.seeds_confirm else "undecided"
        verdicts.setdefault(contrast.method, set()).add(direction)
    masks = {
        "worse" if "worse" in of_mask else "better" if of_mask == {"better"} else "undecided"
        for of_mask in verdicts.values()
    }
    if masks == {"better"}:
        return yes
    if masks >= {"better", "worse"}:
        return f"Whether {whether or yes} depends on the mask"
    if "better" in masks:
        return f"{yes} with one of the masks"
    if comparison.margin and all(contrast.verdict.equivalent_within for contrast in contrasts):
        return f"{no}: the difference is smaller than {size(comparison.margin, comparison)}"
    return no if "worse" in masks else f"We cannot tell whether {whether or yes}"


def _of_hypothesis(comparison: MetricComparison) -> tuple[list[Contrast], bool]:
    """The differences by which the hypothesis is judged, and whether they tell the mask from the schedule."""
    asked = by_question(comparison)
    controls = [
        contrast for question in (questions.MASK, questions.PLACEBO_MASK) for contrast in asked.get(question, [])
    ]
    return controls or asked.get(questions.ADVFUSION, []), bool(controls)


def hypothesis(comparison: MetricComparison, target: str) -> str:
    """Returns the claim with the differences behind it and what it leaves open; "" where there is none."""
    contrasts, controlled = _of_hypothesis(comparison)
    if not contrasts:
        return ""
    limit = (
        " The study did not run advfusion_none, so it cannot separate the effect of the mask from that of two phases."
    )
    if controlled:
        limit = " It was not tested whether hiding another member does the same." * (
            questions.PLACEBO_MASK not in by_question(comparison)
        )
    details = "; ".join(f"{c.method} against {c.against} is {brief(comparison, c)}" for c in contrasts)
    return f"**{claim(comparison, target)}**, judged by {metric_in_sentence(comparison)}: {details}.{limit}"


def hypotheses(results: ComparisonResults, target: str) -> list[str]:
    """Returns the hypothesis by each metric that judges, with all numbers; [] where the study ran no AdvFusion."""
    return [text for comparison in results.judged_by if (text := hypothesis(comparison, target))]


def answer(results: ComparisonResults, target: str) -> list[str]:
    """Returns the answer to the study's question in three plain sentences at most.

    The first says what became of the hypothesis, and what these seeds show if that is unknown; if the metrics that
    judge disagree, each has a sentence. The next is the difference between fusing and one adapter. The last is what the
    target's own adapter or phase 2 changed, if other seeds would confirm it, or else the two best scores.
    """
    judged: dict[str, list[str]] = {}  # the metrics by what they say of the hypothesis
    for comparison in results.judged_by:
        if text := claim(comparison, target):
            judged.setdefault(text, []).append(metric_in_sentence(comparison))
    main = results.main_comparison
    lines = [f"**{text}**, judged by {' and by '.join(metrics)}{_seen_here(main, metrics, text)}."
             for text, metrics in judged.items()]  # fmt: skip
    asked = by_question(main)
    for contrast in asked.get(questions.FUSING, [] if lines else [c for some in asked.values() for c in some])[:1]:
        lines.append(plain(main, contrast))
    for comparison in results.judged_by:
        later = [
            c for question in (questions.OWN, questions.PHASE_2) for c in by_question(comparison).get(question, [])
        ]
        lines += [plain(comparison, one) for one in later if one.verdict.is_decided and one.verdict.seeds_confirm]
    return [line for line in [*lines, best(main)] if line][:3]


def best(comparison: MetricComparison) -> str:
    """Returns a sentence with the two best scores; "" where fewer methods were compared."""
    rows = _by_score(comparison)[:2]
    if len(rows) < 2:
        return ""
    first, second = (row.method for row in rows)
    between = comparison.contrast(first, second) or comparison.contrast(second, first)
    sure = between is not None and between.verdict.is_decided and between.verdict.seeds_confirm
    unit = " %" if comparison.unit == "%" else ""
    named = ", then ".join(f"{in_words(row.method)} {format_score(row.mean, comparison.metric)}{unit}" for row in rows)
    extreme = "Lowest" if less_is_better(comparison.metric) else "Highest"
    metric = metric_in_sentence(comparison).removeprefix("the ")
    return f"{extreme} {metric}: {named}{'' if sure else '; other seeds could change this order'}."


def tally(judged_by: Sequence[MetricComparison], asked: Sequence[str] | None = None) -> str:
    """Returns a sentence that counts the verdicts on the differences that answer questions, by metric; "" for none.

    asked: the questions; None: all.
    """
    parts = []
    for comparison in judged_by:
        answers = {one: found for one, found in by_question(comparison).items() if asked is None or one in asked}
        verdicts = [contrast.verdict for contrasts in answers.values() for contrast in contrasts]
        if not verdicts:
            continue
        sure = sum(one.is_decided and one.seeds_confirm for one in verdicts)
        here = sum(one.is_decided and not one.seeds_confirm for one in verdicts)
        which = f"{plural(len(verdicts), 'difference')} in {metric_in_sentence(comparison)}"
        decided = f"{sure or 'none'} {'are' if sure > 1 else 'is'} decided"
        seeds = f" for other seeds, and {here or 'none'} on these seeds only" if sure or here else ""
        parts.append(f"of {which} {decided}{seeds}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _by_score(comparison: MetricComparison) -> list[MethodSummary]:
    """The finished methods, the best first."""
    rows = [row for row in comparison.summaries if row.final]
    return sorted(rows, key=lambda row: row.mean, reverse=not less_is_better(comparison.metric))


def _seen_here(comparison: MetricComparison, metrics: Sequence[str], claimed: str) -> str:
    """The differences behind an unknown hypothesis that hold on these seeds; "" where none is decided.

    They are those of the main score: nothing is added to the claim of another metric.
    """
    if not claimed.startswith("We cannot tell") or metric_in_sentence(comparison) not in metrics:
        return ""
    seen = [
        f"{in_words(c.method)} is {c.verdict.direction} than {in_words(c.against)} by {size(abs(c.value), comparison)}"
        for c in _of_hypothesis(comparison)[0]
        if c.verdict.is_decided
    ]
    return f": on these seeds {' and '.join(seen)}, but others could reverse this" if seen else ""


def ranking(comparison: MetricComparison) -> str:
    """Returns the means of all methods, the best first; the sentence says nothing about certainty."""
    metric = comparison.metric
    means = ", ".join(f"{row.method} {format_score(row.mean, metric)}" for row in _by_score(comparison))
    return f"{comparison.label} ({comparison.unit}), the best first: {means}."


def left_out(results: ComparisonResults, target: str) -> list[str]:
    """Returns a sentence per language and package for which rows are left out of pass@k."""
    by_language = {target: results.left_out} | {row.language: row.left_out for row in results.sources}
    return [
        f"**pass@k leaves out {plural(n, 'test row')} of {display_name(language)}**, because the tests need {package}, "
        "a package that does not belong to the language: no completion could pass them."
        for language, packages in by_language.items()
        for package, n in packages.items()
    ]


def cut_prompts(evaluation: str, target: str) -> list[str]:
    """Returns a sentence if many prompts of the target's test rows were cut, so that models saw a part of these tasks.

    Args:
        evaluation: an evaluate run, which names the data run; without either, nothing is said.
    """
    evaluated = read_manifest(files.project_path(evaluation))
    data = files.project_path(evaluated.params["data"]) if evaluated else None
    prepared = data and read_manifest(data)
    if not data or not prepared or not (data / "overview.json").is_file():
        return []
    counted = files.read_json(data / "overview.json")["cut"]
    (test,) = [of for of in counted if (of["language"], of["split"]) == (target, "test")]
    if test["prompts cut"] <= MANY_CUT * test["rows"]:
        return []
    return [
        f"**{test['prompts cut'] / test['rows']:.0%} of the {display_name(target)} test prompts were cut** to "
        f"{prepared.params['max_prompt_tokens']} tokens: of these tasks the models saw a part. Raise "
        "data.max_prompt_tokens, or shorten data.template."
    ]


def mean_and_sd(summary: MethodSummary | None, metric: str) -> str:
    """Returns the mean ± sd over seeds, the mean alone for one seed, a dash for None."""
    if summary is None:
        return "–"
    mean = format_score(summary.mean, metric)
    return mean if summary.sd is None else f"{mean}\u00a0±\u00a0{format_score(summary.sd, metric)}"


def score_table(comparison: MetricComparison) -> list[dict]:
    """Returns the scores by a metric for `tables.table`: one line per method and phase."""
    metric, clustered = comparison.metric, any(row.clusters for row in comparison.summaries)
    lines = []
    for row in comparison.summaries:
        line = {
            "method": row.method,
            f"mean ({comparison.unit})": format_score(row.mean, metric),
            "sd over seeds": format_score(row.sd, metric),
            "seeds": len(row.points),
            f"{comparison.confidence:.0%} interval over rows": unbreakable(score_interval(row.interval, metric)),
            "rows": row.n,
        }
        lines.append(line | ({"clusters": row.clusters} if clustered else {}))
    return lines


def component_table(comparison: MetricComparison) -> list[dict]:
    """Returns the parts of CodeBLEU for `tables.table`, means over the seeds; [] for a score without parts."""
    metric = comparison.metric
    return [
        {
            "method": row.method,
            comparison.label: format_score(row.mean, metric),
            **{name.replace("_", " "): format_score(value, metric) for name, value in row.components.items()},
        }
        for row in comparison.summaries
        if row.components
    ]

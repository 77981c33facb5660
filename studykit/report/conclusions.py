"""Sentences and tables computed from the numbers of a comparison, whatever these turn out to be.

Every difference ends in a verdict (see `comparison.verdict`): better or worse, possibly on these seeds only, or
undecided. An undecided difference is no proof that two methods are equal, so its sentence names the size of a
difference that the study could have detected.
"""

from __future__ import annotations

from typing import NamedTuple

from studykit.evaluation.metrics.properties import decimals, format_score, is_rate, less_is_better
from studykit.evaluation.results import Contrast, Interval, MethodSummary, MetricComparison
from studykit.runs.text import plural
from studykit.study import questions
from studykit.study.languages import display_name

# Points of a text score. A smaller lead did not show which of two models people prefer, at 95 % confidence, on CoNaLa;
# on HearthStone 2 points were enough (Evtikhiev et al. 2023, "Out of the BLEU").
PREFERENCE_THRESHOLD = 5
REST = "How do the other methods compare?"
TEST_NAMES = {"paired bootstrap": "the paired bootstrap", "McNemar, exact": "McNemar's exact test"}


class Answer(NamedTuple):
    """The answer to one question of the study."""

    question: str
    sentences: list[str]


def metric_in_sentence(comparison: MetricComparison) -> str:
    """Returns the metric's name as it stands inside a sentence."""
    return "the completion loss" if comparison.metric == "loss" else comparison.label


def signed(value: float, metric: str) -> str:
    """Returns a difference as +1.7, or +0.032 for a loss, with a true minus sign, and no sign before a rounded 0."""
    text = f"{value:+.{decimals(metric)}f}"
    return text.replace("-", "\u2212") if float(text) else text[1:]


def signed_interval(interval: Interval | None, metric: str) -> str:
    """Returns the bounds of an interval of a difference; a dash for None."""
    return "–" if interval is None else f"{signed(interval.low, metric)} to {signed(interval.high, metric)}"


def score_interval(interval: Interval | None, metric: str) -> str:
    """Returns the bounds of an interval of a score; a dash for None."""
    if interval is None:
        return "–"
    return f"{format_score(interval.low, metric)} to {format_score(interval.high, metric)}"


def unbreakable(text: str) -> str:
    """Returns a text that no table breaks into two lines."""
    return text.replace(" ", "\u00a0")


def difference_unit(comparison: MetricComparison) -> str:
    """Returns the unit of a difference: that of two percentages is points."""
    return "points" if comparison.unit == "%" else comparison.unit


def effect(contrast: Contrast) -> str:
    """Returns the size of a difference: an odds ratio as 1.53, a delta as +0.12."""
    if contrast.effect_name == "odds ratio":
        return f"{contrast.effect:.2f}"
    return f"{contrast.effect:+.2f}".replace("-", "\u2212")


def sample_size(rows: MethodSummary | Contrast, noun: str = "row") -> str:
    """Returns the number of rows behind a number, and of their clusters where several rows share one."""
    clusters = f" in {plural(rows.clusters, 'cluster')}" if rows.clusters else ""
    return f"{plural(rows.n, noun)}{clusters}"


def sentence(comparison: MetricComparison, contrast: Contrast) -> str:
    """Returns the verdict of one difference with its numbers, and the outlook for other seeds or for more rows."""
    metric, a, b = comparison.metric, contrast.method, contrast.against
    if contrast.verdict.is_decided:
        direction, *restriction = str(contrast.verdict).split(" ", 1)
        claim = " ".join([f"{a} is {direction} than {b}", *restriction])
    else:
        claim = f"we cannot tell whether {a} or {b} is better"
    mean_a, mean_b = (format_score(comparison.summary(method).mean, metric) for method in (a, b))
    p = contrast.verdict.p_holm
    evidence = [
        f"{comparison.confidence:.0%} interval over rows {signed_interval(contrast.interval, metric)}",
        f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} after Holm's correction",
        f"{contrast.effect_name} {effect(contrast)}",
        f"n = {sample_size(contrast)}",
    ]
    numbers = (
        f"{mean_a} against {mean_b} {comparison.unit}, a difference of {signed(contrast.value, metric)} "
        f"{difference_unit(comparison)} ({'; '.join(evidence)})"
    )
    sentences = [f"On {metric_in_sentence(comparison)}, **{claim}**: {numbers}."]
    if not contrast.verdict.is_decided:
        return f"{sentences[0]} {_why_undecided(comparison, contrast)}"
    sentences.append(_outlook_for_seeds(metric, contrast))
    is_text_score = not is_rate(metric) and metric != "loss"
    if is_text_score and abs(contrast.value) < PREFERENCE_THRESHOLD:
        sentences.append(
            f"In such a score, a lead of less than {PREFERENCE_THRESHOLD} points does not show which method people "
            "would prefer."
        )
    return " ".join(sentences)


def _why_undecided(comparison: MetricComparison, contrast: Contrast) -> str:
    if contrast.interval is None:
        one = "cluster of rows" if contrast.clusters else "row"
        return f"A single {one} does not show what other rows would give."
    if contrast.detectable is None:
        return "No test row distinguishes the two."
    reason = "The interval includes 0." if contrast.interval.includes(0) else "The corrected p value is too large."
    size = f"{contrast.detectable:.{decimals(comparison.metric)}f} {difference_unit(comparison)}"
    return f"{reason} With these rows, a true difference of about {size} would be detected with a probability of 80 %."


def _outlook_for_seeds(metric: str, contrast: Contrast) -> str:
    n = len(contrast.by_seed)
    if n < 2:
        if not contrast.by_seed:
            return "The two methods have no seeds in common, so nothing is known about other trainings."
        return "A single seed says nothing about other trainings."
    alike = sum((difference > 0) == (contrast.value > 0) for difference in contrast.by_seed)
    outlook = "excludes 0" if contrast.verdict.seeds_confirm else "includes 0, so other seeds could show the opposite"
    interval = signed_interval(contrast.seed_interval, metric)
    return f"{alike} of {n} seeds differ in this direction; the interval over seeds, {interval}, {outlook}."


def brief(comparison: MetricComparison, contrast: Contrast) -> str:
    """Returns the verdict of one difference with its two intervals, and no more."""
    metric = comparison.metric
    intervals = {"rows": contrast.interval, "seeds": contrast.seed_interval}
    known = ", ".join(f"over {of} {signed_interval(one, metric)}" for of, one in intervals.items() if one)
    value = f"{contrast.verdict}, {signed(contrast.value, metric)} {difference_unit(comparison)}"
    return f"{value} ({comparison.confidence:.0%} interval {known})" if known else value


def answers(comparison: MetricComparison) -> list[Answer]:
    """Returns the answers to all questions that the study can answer, and last the differences that none asks for."""
    rest = {frozenset((c.method, c.against)): c for c in comparison.contrasts}
    answered = []
    for question, contrasts in _by_question(comparison).items():
        for contrast in contrasts:
            rest.pop(frozenset((contrast.method, contrast.against)), None)
        answered.append(Answer(question, [sentence(comparison, contrast) for contrast in contrasts]))
    if rest:
        answered.append(Answer(REST, [sentence(comparison, contrast) for contrast in rest.values()]))
    return answered


def _by_question(comparison: MetricComparison) -> dict[str, list[Contrast]]:
    """The differences that were made, by the questions that they answer."""
    words = [row.method for row in comparison.summaries if row.final]
    pairs = questions.questions(words, comparison.language)
    found = {question: [comparison.contrast(*pair) for pair in asked] for question, asked in pairs.items()}
    made = {question: [contrast for contrast in contrasts if contrast] for question, contrasts in found.items()}
    return {question: contrasts for question, contrasts in made.items() if contrasts}


def hypothesis(comparison: MetricComparison, target: str) -> str:
    """Returns whether hiding the target's adapter first helps, by this metric; "" where the study ran no AdvFusion.

    It is judged against the same two phases without a mask and against masks of other members, wherever the study ran
    them: a mask helps if it is better than all of these. Without any, AdvFusion is judged against AdapterFusion, and
    the text says that the mask cannot be told from the schedule. A difference that the seeds do not confirm is no
    claim: only its details name it.
    """
    asked, name = _by_question(comparison), display_name(target)
    controls = [
        contrast for question in (questions.MASK, questions.PLACEBO_MASK) for contrast in asked.get(question, [])
    ]
    contrasts = controls or asked.get(questions.ADVFUSION, [])
    if not contrasts:
        return ""
    yes, no, whether = (
        f"AdvFusion beats AdapterFusion on {name}",
        f"AdvFusion does not beat AdapterFusion on {name}",
        "",
    )
    limit = " The study did not run advfusion_none, so it cannot tell the mask from the schedule of two phases."
    if controls:
        subject = f"iding the {name} adapter in phase 1"
        yes, no, whether = f"H{subject} helps", f"H{subject} does not help", f"h{subject} helps"
        limit = " It was not tested whether hiding another member does the same." * (
            questions.PLACEBO_MASK not in asked
        )
    verdicts: dict[str, set[str]] = {}  # by mask, against each of its controls
    for contrast in contrasts:
        direction = contrast.verdict.direction if contrast.verdict.seeds_confirm else "undecided"
        verdicts.setdefault(contrast.method, set()).add(direction)
    masks = {
        "worse" if "worse" in of_mask else "better" if of_mask == {"better"} else "undecided"
        for of_mask in verdicts.values()
    }
    if masks == {"better"}:
        claim = yes
    elif masks >= {"better", "worse"}:
        claim = f"Whether {whether or yes} depends on the mask"
    elif "better" in masks:
        claim = f"{yes} with one of the masks"
    else:
        claim = no if "worse" in masks else f"We cannot tell whether {whether or yes}"
    details = "; ".join(f"{c.method} against {c.against} is {brief(comparison, c)}" for c in contrasts)
    return f"**{claim}**, judged by {metric_in_sentence(comparison)}: {details}.{limit}"


def in_brief(comparison: MetricComparison, target: str) -> list[str]:
    """Returns the sentences that a reader sees first: the hypothesis, and what explains it."""
    sentences, asked = [text] if (text := hypothesis(comparison, target)) else [], _by_question(comparison)
    for question in (questions.FUSING, questions.OWN, questions.RESTORING, questions.PHASE_2):
        if contrasts := asked.get(question):
            details = "; ".join(f"{c.method} against {c.against} is {brief(comparison, c)}" for c in contrasts)
            sentences.append(f"{question} Judged by {metric_in_sentence(comparison)}, {details}.")
    return sentences


def ranking(comparison: MetricComparison) -> str:
    """Returns the means of all methods, the best first; the sentence says nothing about certainty."""
    metric = comparison.metric
    rows = [row for row in comparison.summaries if row.final]
    rows.sort(key=lambda row: row.mean, reverse=not less_is_better(metric))
    means = ", ".join(f"{row.method} {format_score(row.mean, metric)}" for row in rows)
    return f"{comparison.label} ({comparison.unit}), the best first: {means}."


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


def difference_table(comparison: MetricComparison) -> list[dict]:
    """Returns the differences by a metric for `tables.table`: one line per pair."""
    metric, percent = comparison.metric, f"{comparison.confidence:.0%}"
    several_seeds = any(contrast.seed_interval for contrast in comparison.contrasts)
    lines = []
    for contrast in comparison.contrasts:
        seeds = {f"{percent} interval over seeds": unbreakable(signed_interval(contrast.seed_interval, metric))}
        line = {
            "method": contrast.method,
            "against": contrast.against,
            "difference": signed(contrast.value, metric),
            "verdict": str(contrast.verdict),
            f"{percent} interval over rows": unbreakable(signed_interval(contrast.interval, metric)),
            **(seeds if several_seeds else {}),
            "p (Holm)": f"{contrast.verdict.p_holm:.3f}",
            contrast.effect_name: effect(contrast),
        }
        lines.append(line)
    return lines


def difference_caption(comparison: MetricComparison) -> str:
    """Returns the caption of a table of differences: the rows, the tests, and the family that p is corrected over."""
    if not comparison.contrasts:
        return ""
    tests = " and ".join(dict.fromkeys(TEST_NAMES[contrast.test] for contrast in comparison.contrasts))
    family = f"{plural(comparison.family.tests, 'test')}: {comparison.family.description}"
    return (
        f"Differences in {comparison.label}, paired over {sample_size(comparison.contrasts[0])}. The p values "
        "are those "
        f"of {tests} after Holm's correction over {family}."
    )


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

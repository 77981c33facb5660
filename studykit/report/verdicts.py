"""A difference in words: its numbers, its verdict, and what the study could have found.

An undecided difference is no proof that two methods are equal, so its sentence names the sizes of differences that the
study would have detected: between these trainings, and between trainings with other seeds.
"""

from __future__ import annotations

import math

from studykit.evaluation.metrics.properties import decimals, format_score, is_rate
from studykit.evaluation.results import Contrast, Interval, MethodSummary, MetricComparison, Verdict
from studykit.evaluation.student import StandardError, detectable
from studykit.runs.text import plural
from studykit.study.methods import title

# Points of a text score. A smaller lead did not show which of two models people prefer, at 95 % confidence, on CoNaLa;
# on HearthStone 2 points were enough (Evtikhiev et al. 2023, "Out of the BLEU").
PREFERENCE_THRESHOLD = 5
TEST_NAMES = {
    "paired bootstrap": "the paired bootstrap",
    "sign flips, exact": "the exact sign-flip test",
    "McNemar, exact": "McNemar's exact test",
}


def metric_in_sentence(comparison: MetricComparison) -> str:
    """Returns the metric's name as it stands inside a sentence."""
    return "the completion loss" if comparison.metric == "loss" else comparison.label


def signed(value: float, metric: str) -> str:
    """Returns a difference as +1.7, or +0.032 for a loss, with a true minus sign.

    A difference that would be rounded to 0 gets as many decimals as its first digit needs: an interval that excludes 0
    never seems to begin there. Less than 1e-9 is 0.
    """
    if abs(value) < 1e-9:
        return f"{0:.{decimals(metric)}f}"
    digits = max(decimals(metric), math.ceil(-math.log10(abs(value)) - 0.3))
    return f"{value:+.{digits}f}".replace("-", "\u2212")


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
    if contrast.effect_name == "Cliff's delta":
        return f"{contrast.effect:+.2f}".replace("-", "\u2212")
    return f"{contrast.effect:.2f}"


def p_text(p: float) -> str:
    """Returns a p value as "= 0.012" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def size(value: float, comparison: MetricComparison) -> str:
    """Returns the size of a difference with its unit."""
    return f"{format_score(value, comparison.metric)} {difference_unit(comparison)}"


def sample_size(rows: MethodSummary | Contrast, noun: str = "row") -> str:
    """Returns the number of rows behind a number, and of their clusters where several rows share one."""
    clusters = f" in {plural(rows.clusters, 'cluster')}" if rows.clusters else ""
    return f"{plural(rows.n, noun)}{clusters}"


def sentence(comparison: MetricComparison, contrast: Contrast) -> str:
    """Returns the verdict of one difference with its numbers, and what is known of other seeds or of more rows."""
    metric, a, b, found = comparison.metric, contrast.method, contrast.against, contrast.verdict
    within = found.equivalent_within and size(found.equivalent_within, comparison)
    if found.is_decided:
        claim = f"{a} is {found.direction} than {b}{'' if found.seeds_confirm else ' on these seeds only'}"
        claim += f", and equivalent to it within {within}" if within else ""
    elif within:
        claim = f"{a} and {b} are equivalent within {within}"
    else:
        claim = f"we cannot tell whether {a} or {b} is better"
    mean_a, mean_b = (format_score(comparison.summary(method).mean, metric) for method in (a, b))
    overall = contrast.overall_interval
    evidence = [
        f"{comparison.confidence:.0%} interval over rows {signed_interval(contrast.interval, metric)}",
        f"p {p_text(found.p_holm)} after Holm's correction",
        *([f"over rows and seeds {signed_interval(overall, metric)}, p {p_text(found.p_overall)}"] if overall else []),
        f"{contrast.effect_name} {effect(contrast)}",
        f"n = {sample_size(contrast)}",
    ]
    numbers = (
        f"{mean_a} against {mean_b} {comparison.unit}, a difference of {signed(contrast.value, metric)} "
        f"{difference_unit(comparison)} ({'; '.join(evidence)})"
    )
    sentences = [f"On {metric_in_sentence(comparison)}, **{claim}**: {numbers}."]
    if found.is_decided:
        sentences.append(_outlook_for_seeds(contrast))
    elif not within:
        sentences.append(_why_undecided(contrast))
    if not found.seeds_confirm and not within:
        sentences.append(_detectable(comparison, contrast))
    is_text_score = not is_rate(metric) and metric != "loss"
    if found.is_decided and is_text_score and abs(contrast.value) < PREFERENCE_THRESHOLD:
        sentences.append(
            f"In such a score, a lead of less than {PREFERENCE_THRESHOLD} points does not show which method people "
            "would prefer."
        )
    return " ".join(filter(None, sentences))


def interaction_sentence(comparison: MetricComparison, contrast: Contrast) -> str:
    """Returns the verdict of a difference of differences, with its numbers."""
    metric, a, b, found = comparison.metric, contrast.method, contrast.against, contrast.verdict
    claim = f"we cannot tell whether {a} or {b} is larger"
    if found.is_decided:
        claim = f"{a} is {'larger' if contrast.value > 0 else 'smaller'} than {b}"
        claim += "" if found.seeds_confirm else " on these seeds only"
    overall = contrast.overall_interval
    evidence = [
        f"{comparison.confidence:.0%} interval over rows {signed_interval(contrast.interval, metric)}",
        f"p {p_text(found.p_holm)} after Holm's correction",
        *([f"over rows and seeds {signed_interval(overall, metric)}, p {p_text(found.p_overall)}"] if overall else []),
        f"n = {sample_size(contrast)}",
    ]
    value = f"{signed(contrast.value, metric)} {difference_unit(comparison)} ({'; '.join(evidence)})"
    return f"On {metric_in_sentence(comparison)}, **{claim}**: they differ by {value}."


def _why_undecided(contrast: Contrast) -> str:
    if contrast.interval is None:
        one = "cluster of rows" if contrast.clusters else "row"
        return f"A single {one} does not show what other rows would give."
    if contrast.detectable is None:
        return "No test row distinguishes the two."
    return "The interval includes 0." if contrast.interval.includes(0) else "The corrected p value is too large."


def _outlook_for_seeds(contrast: Contrast) -> str:
    n = len(contrast.by_seed)
    if not n:
        return "The two methods have no seeds in common, so nothing is known about other trainings."
    if n == 1:
        return "A single seed says nothing about other trainings."
    alike = sum((difference > 0) == (contrast.value > 0) for difference in contrast.by_seed)
    outlook = "rows and seeds together confirm it" if contrast.verdict.seeds_confirm else "other seeds could reverse it"
    return f"{alike} of {n} seeds differ in this direction; {outlook}."


def _detectable(comparison: MetricComparison, contrast: Contrast) -> str:
    if contrast.detectable is None:
        return ""
    here = f"about {size(contrast.detectable, comparison)} between these trainings"
    if contrast.detectable_overall is not None:
        here += f", or about {size(contrast.detectable_overall, comparison)} between trainings with other seeds,"
    return f"A true difference of {here} would be detected with a probability of 80 %."


def brief(comparison: MetricComparison, contrast: Contrast) -> str:
    """Returns the verdict of one difference with its two intervals, and no more."""
    metric = comparison.metric
    intervals = {"rows": contrast.interval, "rows and seeds": contrast.overall_interval}
    known = ", ".join(f"over {of} {signed_interval(one, metric)}" for of, one in intervals.items() if one)
    value = f"{contrast.verdict}, {signed(contrast.value, metric)} {difference_unit(comparison)}"
    return f"{value} ({comparison.confidence:.0%} interval {known})" if known else value


def plain(comparison: MetricComparison, contrast: Contrast) -> str:
    """Returns the verdict of one difference as a sentence with one number."""
    found, difference = contrast.verdict, contrast.value
    a, b = in_words(contrast.method), in_words(contrast.against)
    if found.is_decided and found.direction == "worse":  # the better one is named first
        a, b, difference = b, a, -difference
    value = f"{signed(difference, comparison.metric)} {difference_unit(comparison)}"
    first = f"{a[0].upper()}{a[1:]}"  # it begins the sentence
    judged = f"judged by {metric_in_sentence(comparison)} ({value})"
    if found.is_decided:
        limit = "" if found.seeds_confirm else ", but other seeds could reverse this"
        return f"{first} is better than {b}, {judged}{limit}."
    if found.equivalent_within:
        return f"{first} and {b} are equivalent within {size(found.equivalent_within, comparison)}, {judged}."
    return f"We cannot tell whether {a} or {b} is better, {judged}."


def in_words(label: str) -> str:
    """Returns a method, or one of its phases, as it stands in a sentence for readers who do not know the method words.

    "advfusion_exclude, phase 1" is "AdvFusion (mask exclude, phase 1)", and "lora" is "the LoRA adapter alone".
    """
    word, comma, phase = label.partition(", ")
    try:
        named = title(word)
    except ValueError:  # a label of something else
        return label
    if named.endswith(" adapter"):
        named = f"the {named} alone"
    name, _, details = f"{named}{comma}{phase}".partition(", ")
    return f"{name} ({details})" if details else name


def verdict_sign(verdict: Verdict) -> str:
    """Returns a verdict in words with a sign, which is hollow for one on these seeds only."""
    if not verdict.is_decided:
        return "\u2261 equivalent" if verdict.equivalent_within else "\u25cb undecided"
    signs = {"better": "\u25b2\u25b3", "worse": "\u25bc\u25bd"}[verdict.direction]
    return f"{signs[not verdict.seeds_confirm]} {verdict.direction}{'' if verdict.seeds_confirm else ', these seeds'}"


def verdict_meanings(comparison: MetricComparison) -> str:
    """Returns a sentence for each verdict that a reader may meet."""
    error = f"{1 - comparison.confidence:.2g}"
    margin = "" if comparison.margin is None else (
        f"“Equivalent within {comparison.margin:g}” means that the true difference is smaller than that. "
    )  # fmt: skip
    return (
        "“Better” and “worse” hold for other test rows and other seeds: in a table without true differences, the "
        f"probability of even one such verdict is at most {error}. “On these seeds only” is a statement about these "
        f"trainings: other seeds could reverse it. {margin}“Undecided” means none of these; it does not mean that the "
        "two are equal."
    )


def limits(comparison: MetricComparison) -> list[str]:
    """Returns what a comparison of this size can and cannot decide, whatever the scores are."""
    if not comparison.contrasts:
        return []
    tests, alpha = comparison.tests, 1 - comparison.confidence
    first, seeds = comparison.contrasts[0], min(len(contrast.by_seed) for contrast in comparison.contrasts)
    clusters = first.clusters or first.n
    least = 2 / 2**clusters  # of exact tests: a fair coin falls alike for all clusters
    sentences = []
    if least * tests >= alpha:
        noun = "cluster" if first.clusters else "row"
        sentences.append(
            f"**This comparison cannot decide anything.** With {plural(clusters, noun)} no p is below {least:.2g}; "
            f"with Holm's correction over {plural(tests, 'difference')}, one must be below {alpha / tests:.2g}."
        )
    elif seeds < 2:
        sentences.append(
            "**This comparison cannot decide anything about other seeds.** That needs at least two seeds that both "
            "methods have."
        )
    else:
        needed = detectable([StandardError(1 / math.sqrt(seeds), seeds - 1)], alpha / tests)
        sentences.append(
            f"With {seeds} seeds and Holm's correction over {plural(tests, 'difference')}, a true difference is found "
            f"for other seeds with a probability of 80 % only if it is at least {needed:.1f} times as large as the sd "
            "of the differences over seeds, however many rows there are. The command studykit power says what more "
            "seeds or rows would change."
        )
    return sentences


def difference_table(comparison: MetricComparison) -> list[dict]:
    """Returns the differences by a metric for `tables.table`: one line per pair."""
    metric, percent = comparison.metric, f"{comparison.confidence:.0%}"
    several_seeds = any(contrast.overall_interval for contrast in comparison.contrasts)
    lines = []
    for contrast in comparison.contrasts:
        overall = {
            f"{percent} interval over rows and seeds": unbreakable(signed_interval(contrast.overall_interval, metric)),
            "p over rows and seeds (Holm)": f"{contrast.verdict.p_overall:.3f}",
        }
        line = {
            "method − against": f"{contrast.method} − {contrast.against}",
            "verdict": unbreakable(verdict_sign(contrast.verdict)),
            "difference": signed(contrast.value, metric),
            **(overall if several_seeds else {}),
            f"{percent} interval over rows": unbreakable(signed_interval(contrast.interval, metric)),
            "p over rows (Holm)": f"{contrast.verdict.p_holm:.3f}",
            contrast.effect_name: effect(contrast),
        }
        lines.append(line)
    return lines


def difference_caption(comparison: MetricComparison) -> str:
    """Returns the caption of a table of differences: the rows, the tests, and the family that p is corrected over."""
    if not comparison.contrasts:
        return ""
    tests = " and ".join(dict.fromkeys(TEST_NAMES[contrast.test] for contrast in comparison.contrasts))
    return (
        f"Differences in {comparison.label}, paired over {sample_size(comparison.contrasts[0])}. p over rows is that "
        f"of {tests}. Holm's correction is over {plural(comparison.tests, 'difference')}."
    )

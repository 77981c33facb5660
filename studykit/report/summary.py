"""The findings at the head of a report: the answer, figures, one line per question, and the scores in a table.

All numbers are those that notebook 06 published in `compare.json`, and those of the fusion weights of its attention
runs. The head of the report is made from them by `templates/findings.html.j2`, which escapes every text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from studykit.attention.summary import AttentionSummary
from studykit.evaluation.gathered import read_gathered
from studykit.evaluation.metrics.properties import format_score
from studykit.evaluation.results import ComparisonResults, MethodSummary, MetricComparison, read_results
from studykit.evaluation.worth import Worth, read_worth
from studykit.report import conclusions, figures, fusion_weights, pooled, side_by_side, verdicts
from studykit.runs import files
from studykit.runs.text import plural
from studykit.study.plan import Run


@dataclass(frozen=True)
class ScoreLine:
    """One method of the table, as text; what does not apply is ""."""

    method: str
    score: str  # mean over the seeds, in the unit of the table
    interval: str  # of the score, over the test rows
    difference: str  # from the baseline, with its sign
    difference_interval: str
    verdict: str


@dataclass(frozen=True)
class ScoreTable:
    """The scores of every method by one metric."""

    label: str  # of the score
    unit: str
    baseline: str  # the method from which the others differ
    lines: list[ScoreLine]
    caption: str


@dataclass(frozen=True)
class Chip:
    """The verdict of one difference in a few words."""

    metric: str
    method: str  # where a question has several differences, else ""
    pair: str  # "advfusion_zero − adapterfusion", "advfusion_zero: finished − phase 1"
    difference: str  # with its sign
    unit: str  # of the difference
    verdict: str  # with its sign, see `forest.verdict_sign`
    kind: str  # "better" or "worse" if other seeds are covered, else "undecided": the class in the style sheet


@dataclass(frozen=True)
class QuestionLine:
    """One question of the study: its verdicts, and the sentences that hold all numbers."""

    question: str
    chips: list[Chip]
    sentences: list[str]  # **bold** as in Markdown


@dataclass(frozen=True)
class Findings:
    """What a reader sees first."""

    answer: list[str]  # sentences; **bold** as in Markdown
    counts: str  # methods, seeds and test rows behind all numbers
    left_out: list[str]  # sentences on prompts that were cut, and on rows without pass@k
    forest: Markup
    further: list[Markup]  # figures of the weights
    by_loss: Markup | None  # the forest by completion loss
    questions: list[QuestionLine]
    tables: list[ScoreTable]
    meanings: str
    limits: list[str]


@dataclass(frozen=True)
class FamilyFindings:
    """What a reader of a family sees first."""

    answer: list[str]  # sentences; **bold** as in Markdown
    figures: list[Markup]  # all scores in all studies, and the pooled differences
    notes: list[str]  # what the intervals do not hold
    counts: list[str]  # the studies' own verdicts on each difference, **bold** as in Markdown
    tables: dict[str, list[dict[str, str]]]  # of scores and of differences, a line per study, by caption


def read_findings(run: Run, target: str) -> Findings | None:
    """Returns what a comparison published; None if it published nothing.

    Args:
        target: the target language, which the sentences name.
    """
    results = read_results(run.dir)
    if results is None:
        return None
    main, loss = results.main_comparison, results.loss_comparison
    answer = conclusions.answer(results, target)
    rows = verdicts.sample_size(main.summaries[0], "test row")
    looks = figures.method_looks(row.method for row in main.summaries if row.final)
    further = [figures.own_weight_slopes(results.attention, target, looks=looks)] if results.attention else []
    if summaries := attention_summaries(run.params.get("attention")):
        further.append(figures.change_panels(fusion_weights.changes(summaries), **fusion_weights.about(summaries)))
    if worths := member_worths(run.params.get("attention")):
        further.append(figures.member_worth(worths, looks=looks))
    return Findings(
        answer=answer,
        counts=f"{plural(len(looks), 'method')} over {plural(main.seeds, 'seed')} and {rows}",
        left_out=[
            *conclusions.cut_prompts(next(iter(run.params["evaluations"].values())), target),
            *conclusions.left_out(results, target),
        ],
        forest=Markup(figures.figure_html(figures.forest(main, looks=looks, message=conclusions.best(main)))),
        further=[Markup(figures.figure_html(figure)) for figure in further],
        by_loss=Markup(figures.figure_html(figures.forest(loss, looks=looks, message=conclusions.best(loss))))
        if loss
        else None,
        questions=question_lines(results),
        tables=[score_table(comparison) for comparison in results.judged_by],
        meanings=verdicts.verdict_meanings(main),
        limits=[*conclusions.hypotheses(results, target), *verdicts.limits(main)],
    )


def attention_summaries(places: Mapping[str, str] | None) -> dict[str, AttentionSummary]:
    """Returns the fusion weights of attention runs, by method; without those that are not there."""
    written = {method: files.project_path(place) / "summary.json" for method, place in (places or {}).items()}
    return {method: AttentionSummary.read(file) for method, file in written.items() if Path(file).is_file()}


def member_worths(places: Mapping[str, str] | None) -> dict[str, Worth]:
    """Returns what members are worth to the finished fusions of attention runs, by method; without what is missing."""
    found = {method: read_worth(f"{place}/worth.json") for method, place in (places or {}).items()}
    return {method: worth for method, worth in found.items() if worth and worth.finished}


def question_lines(results: ComparisonResults) -> list[QuestionLine]:
    """Returns the questions of a study with the verdicts of their differences, by all metrics that judge."""
    lines: dict[str, QuestionLine] = {}
    for comparison in results.judged_by:
        for question, contrasts in conclusions.by_question(comparison).items():
            line = lines.setdefault(question, QuestionLine(question, [], []))
            for contrast in contrasts:
                line.chips.append(
                    Chip(
                        metric=verdicts.metric_in_sentence(comparison).removeprefix("the completion "),
                        method=contrast.method if len(contrasts) > 1 else "",
                        pair=_pair(contrast.method, contrast.against),
                        difference=verdicts.signed(contrast.value, comparison.metric),
                        unit=verdicts.difference_unit(comparison),
                        verdict=verdicts.verdict_sign(contrast.verdict),
                        kind=contrast.verdict.direction if contrast.verdict.seeds_confirm else "undecided",
                    )
                )
                line.sentences.append(verdicts.sentence(comparison, contrast))
    return list(lines.values())


def _pair(method: str, against: str) -> str:
    """Returns a difference in short; two states of one method have its name once."""
    (name, *state), (other, *before) = method.split(", ", 1), against.split(", ", 1)
    if name != other:
        return f"{method} \u2212 {against}"
    return f"{name}: {''.join(state) or 'finished'} \u2212 {''.join(before) or 'finished'}"


def in_one_line(line: QuestionLine) -> str:
    """Returns a question with the verdicts of its differences, **bold** as in Markdown, for the title of a fold."""
    pairs: dict[str, list[str]] = {}
    for chip in line.chips:
        words = verdicts.unbreakable(f"{chip.metric} {chip.verdict} {chip.difference}")
        pairs.setdefault(chip.method, []).append(words)
    parts = [f"{method}: {', '.join(words)}" if method else ", ".join(words) for method, words in pairs.items()]
    return f"**{line.question}** {' · '.join(parts)}"


def score_table(comparison: MetricComparison) -> ScoreTable:
    """Returns the final scores of all methods by one metric, with their differences from the baseline."""
    seeds, rows = plural(comparison.seeds, "seed"), verdicts.sample_size(comparison.summaries[0], "test row")
    return ScoreTable(
        label=comparison.label,
        unit=comparison.unit,
        baseline=comparison.baseline,
        lines=[_score_line(row, comparison) for row in comparison.summaries if row.final],
        caption=f"Scores are means over {seeds}, n = {rows}, each with its {comparison.confidence:.0%} interval over "
        "rows.",
    )


def read_family(run: Run) -> FamilyFindings | None:
    """Returns what a family found; None for a run that gathers no studies, or has published nothing."""
    results = read_gathered(run.dir) if run.stage == "gather" else None
    if results is None:
        return None
    studies = side_by_side.read_studies(run.params["compares"], run.params["levels"])
    looks = figures.method_looks(side_by_side.methods_of(studies))
    drawn = [figures.scores_by_study(studies, results.over[0], looks=looks)] if studies else []
    drawn.append(figures.pooled_differences(results, looks=looks))
    scores = {
        side_by_side.score_caption(studies, metric): side_by_side.score_table(studies, metric)
        for metric in side_by_side.metrics_of(studies)
    }
    differences = {
        f"{of_metric.label}: differences in {pooled.unit(of_metric)}.": side_by_side.difference_table(
            studies, of_metric
        )
        for of_metric in results.metrics
    }
    return FamilyFindings(
        answer=pooled.in_brief(results),
        figures=[Markup(figures.figure_html(figure)) for figure in drawn],
        notes=pooled.what_no_interval_holds(results, results.main),
        counts=[line for of_metric in results.metrics for line in side_by_side.verdict_counts(studies, of_metric)],
        tables=scores | differences,
    )


def _score_line(row: MethodSummary, main: MetricComparison) -> ScoreLine:
    metric = main.metric
    interval = verdicts.score_interval(row.interval, metric) if row.interval else ""
    score = {"method": row.method, "score": format_score(row.mean, metric), "interval": interval}
    if row.method == main.baseline:
        return ScoreLine(**score, difference="", difference_interval="", verdict="the baseline")
    contrast = main.contrast(row.method, main.baseline)
    if contrast is None:
        return ScoreLine(**score, difference="–", difference_interval="", verdict="")
    return ScoreLine(
        **score,
        difference=verdicts.signed(contrast.value, metric),
        difference_interval=verdicts.signed_interval(contrast.interval, metric),
        verdict=str(contrast.verdict),
    )

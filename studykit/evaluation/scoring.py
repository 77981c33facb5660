"""All scores of one file of predictions: text metrics, and pass@k where rows have tests.

The module needs no torch, so predictions can be scored again at any time and on any machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.evaluation.execution import execute
from studykit.evaluation.execution.executable import ProgramResult
from studykit.evaluation.execution.programs import executable, missing_package, runs_in
from studykit.evaluation.metrics.messages import score_messages
from studykit.evaluation.metrics.score import score_texts
from studykit.evaluation.scores import ExecutionSummary, PredictionCounts, Score
from studykit.evaluation.statistics import pass_at_k

# The messages of failed tests: of the polyglot's own harness, of the languages' assertions, and of the test libraries
# of Ruby and Julia.
FAILED_TEST = re.compile(
    r": expected .*, got |\bAssertionError\b|\b[Aa]ssertion .*failed|^Failure: |\bTest Failed\b", re.DOTALL | re.M
)


@dataclass(frozen=True)
class ProgramEnd:
    """The end of one program that was run."""

    id: str  # of its row
    status: str  # passed, failed, error, timeout, memory or output, see `executable.ProgramResult`
    seconds: float
    stderr: str  # the last part of what it wrote there
    tests: tuple[int, int] | None = None  # single tests passed, and all; None where they cannot be counted


@dataclass(frozen=True)
class PredictionScores:
    """The scores of a file of predictions."""

    scores: dict[str, Score]  # by metric
    counts: PredictionCounts
    execution: ExecutionSummary | None  # None: nothing was run
    programs: list[ProgramEnd]  # of the rows that have tests, in the order of the predictions


def score_predictions(
    rows: Sequence[Row],
    predictions: Sequence[Mapping[str, Any]],
    *,
    language: str | None = None,
    first_line: bool = False,
    diffs: bool = False,
    run: bool = True,
    samples: int = 1,
    pass_k: Sequence[int] = (1,),
    timeout: float = 4.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    workers: int | None = None,
) -> PredictionScores:
    """Scores predictions against the targets and the tests of their rows.

    A row's text score is that of its samples: their mean, or their summed counts. Rows that are judged by their tests
    alone (`no_reference`) get no text scores. pass@k covers the rows whose tests can be run and names them by
    index where there are others.

    rows, predictions: `samples` predictions (records of `generate.predict`: id, text, finished) per row, in one order.
    language: of the targets, if they are programs; None for natural language.
    first_line: whether text scores read the first line that is not empty of a prediction and of its target (a commit
        message is one line); their signatures then have `text:first_line`. Programs are run whole.
    diffs: whether the bodies of the prompts are unified diffs, so that messages are compared with them too.
    run: whether programs are run where rows have tests.

    Raises UserError when the ids differ, a reference is empty, or programs cannot be run on this machine.
    """
    row_of_prediction = [row for row in rows for _ in range(samples)]
    if [row.id for row in row_of_prediction] != [prediction["id"] for prediction in predictions]:
        raise UserError(
            f"The ids of {len(predictions)} predictions are not those of {len(rows)} rows in the same order, "
            f"{samples} each."
        )
    texts = [prediction["text"] for prediction in predictions]
    scores = {}
    if not all(row.no_reference for row in rows):
        before: list[Any] = [getattr(row.check, "before", None) for row in row_of_prediction]
        contexts = None if None in before else before
        targets = [row.target for row in row_of_prediction]
        if first_line:
            lines = [first_line_of(text) for text in texts]
            entries = score_texts(lines, [first_line_of(text) for text in targets], language, contexts)
            entries = {name: _renamed(score, "|text:first_line") for name, score in entries.items()}
        else:
            entries = score_texts(texts, targets, language, contexts)
        if diffs:
            ours, theirs = ([first_line_of(text) for text in of_all] for of_all in (texts, targets))
            entries |= score_messages(ours, theirs, [row.body_text for row in row_of_prediction], samples)
        scores = {name: average_samples(score, samples) for name, score in entries.items()}
    packages = [missing_package(row.language, row.check) for row in row_of_prediction]
    counts = PredictionCounts(
        n=len(texts),
        empty=sum(not text.strip() for text in texts),
        truncated=sum(not prediction["finished"] for prediction in predictions),
        checked=sum(can_run(row) for row in row_of_prediction),
        left_out=dict(Counter(filter(None, packages))),
    )
    execution: ExecutionSummary | None = None
    programs: list[ProgramEnd] = []
    if run and counts.checked:
        limits = {"timeout": timeout, "memory_mb": memory_mb}
        execution, programs = _run_programs(row_of_prediction, texts, limits, allow_unsandboxed, workers)
        tested = [index for index, row in enumerate(rows) if can_run(row)]
        covered = tested if len(tested) < len(rows) else None
        scores |= {f"pass_at_{k}": pass_at(k, execution, programs, samples, covered) for k in pass_k}
        scores |= tests_passed(execution, programs, samples, tested, len(rows))
    return PredictionScores(scores, counts, execution, programs)


def first_line_of(text: str) -> str:
    """Returns the first line of a text that is not empty.

    >>> first_line_of("\\nFix a typo\\n\\nSigned-off-by: x")
    'Fix a typo'
    """
    return text.strip().partition("\n")[0].rstrip()


def average_samples(score: Score, samples: int) -> Score:
    """Turns a score of n * samples predictions into one of n rows."""
    if samples == 1:
        return score
    rows = score.n // samples
    score = _renamed(score, f"|samples:{samples}")
    signature = re.sub(r"\d+$", str(rows), score.signature)
    if score.per_example is not None:
        per_row = {"per_example": np.reshape(score.per_example, (rows, samples)).mean(1).tolist()}
    else:
        per_row = {"statistics": np.reshape(np.asarray(score.statistics), (rows, samples, -1)).sum(1).tolist()}
    return score.model_copy(update={"n": rows, "signature": signature, **per_row})


def _renamed(score: Score, setting: str) -> Score:
    """Returns the score with one more setting in its signature, before the number of examples."""
    return score.model_copy(update={"signature": re.sub(r"(?=\|n:\d+$)", setting, score.signature)})


def _run_programs(
    rows: Sequence[Row], texts: Sequence[str], limits: dict, allow_unsandboxed: bool, workers: int | None
) -> tuple[ExecutionSummary, list[ProgramEnd]]:
    checked = [(row, text) for row, text in zip(rows, texts, strict=True) if can_run(row)]
    programs = [executable(row.language, text, row.check) for row, text in checked if row.check]
    results = execute.execute(programs, allow_unsandboxed=allow_unsandboxed, workers=workers, **limits)
    ends = [
        ProgramEnd(row.id, program_status(result), result.seconds, result.stderr_tail, result.tests)
        for (row, _), result in zip(checked, results, strict=True)
    ]
    languages = sorted({runs_in(row.language, row.check) for row, _ in checked})
    summary = ExecutionSummary(
        isolation=execute.isolation(allow_unsandboxed),
        runtimes={language: execute.runtime_version(language) for language in languages},
        empty=sum(not text.strip() for _, text in checked),
        statuses=dict(Counter(end.status for end in ends).most_common()),
        **limits,
    )
    return summary, ends


def can_run(row: Row) -> bool:
    """Returns whether a row has tests and every package that they need is installed."""
    return row.check is not None and not missing_package(row.language, row.check)


def program_status(result: ProgramResult) -> str:
    """Returns the status of a program; one that a failed test ended with a message has the status "failed"."""
    failed_test = result.status == "error" and FAILED_TEST.search(result.stderr_tail)
    return "failed" if failed_test else result.status


def pass_at(
    k: int, execution: ExecutionSummary, programs: Sequence[ProgramEnd], samples: int, rows: list[int] | None = None
) -> Score:
    """Returns pass@k: per problem the probability that one of k samples passes, in percent, and the mean of these.

    rows: the indices of the problems' rows, where not all rows have tests.
    """
    passed = np.reshape([program.status == "passed" for program in programs], (-1, samples)).sum(1)
    values = 100 * pass_at_k(samples, passed, k)
    return Score(
        label=f"pass@{k}",
        value=float(values.mean()),
        signature=f"pass@{k}|samples:{samples}|unbiased|{conditions_of(execution)}|n:{len(values)}",
        per_example=values.tolist(),
        n=len(values),
        empty=execution.empty,
        rows=rows,
    )


def conditions_of(execution: ExecutionSummary) -> str:
    """Returns the part of a signature that says under which conditions programs were run."""
    return conditions(execution.timeout, execution.memory_mb, execution.isolation, execution.runtimes.values())


def conditions(timeout: float, memory_mb: int, isolation: str, versions: Iterable[str]) -> str:
    """Returns the same of seconds and MB that a program may use, the kind of isolation, and versions of runtimes."""
    return f"timeout:{timeout:g}s|memory:{memory_mb}MB|isolation:{isolation}|version:{','.join(versions)}"


def tests_passed(
    execution: ExecutionSummary, programs: Sequence[ProgramEnd], samples: int, tested: Sequence[int], n: int
) -> dict[str, Score]:
    """Returns the mean share of single tests that a program passes, in percent, as the score `tests_passed`.

    A program that crashes or runs out of time fails the calls after that one too. Rows whose tests are code of the
    completion's language are left out, because only the end of all their tests is known; there is no score where no
    other rows are.

    programs: `samples` per tested row. tested: the indices of these among n rows.
    """
    per_row = [programs[start : start + samples] for start in range(0, len(programs), samples)]
    shares, rows = [], []
    for index, ends in zip(tested, per_row, strict=True):
        counts = [end.tests for end in ends if end.tests]
        if counts:
            rows.append(index)
            shares.append(100 * sum(right / of for right, of in counts) / len(counts))
    if not rows:
        return {}
    score = Score(
        label="Single tests passed",
        value=float(np.mean(shares)),
        signature=f"tests_passed|samples:{samples}|level:row|{conditions_of(execution)}|n:{len(rows)}",
        per_example=shares,
        n=len(rows),
        empty=execution.empty,
        rows=rows if len(rows) < n else None,
    )
    return {"tests_passed": score}

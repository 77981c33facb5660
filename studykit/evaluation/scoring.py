"""All scores of one file of predictions:

text metrics, and pass@k where rows bring tests. Needs no torch, so it can be redone any time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.evaluation.execution import execute
from studykit.evaluation.execution.executable import Verdict
from studykit.evaluation.execution.programs import executable, missing_package
from studykit.evaluation.metrics import score
from studykit.evaluation.statistics import pass_at_k

# What tests say in the polyglot's own and in the languages' assertions, and in Ruby's and Julia's test libraries.
WRONG = re.compile(
    r": expected .*, got |\bAssertionError\b|\b[Aa]ssertion .*failed|^Failure: |\bTest Failed\b", re.DOTALL | re.M
)


def evaluate_predictions(
    rows: Sequence[Row],
    predictions: Sequence[dict],
    *,
    language: str | None = None,
    run: bool = True,
    samples: int = 1,
    pass_k: Sequence[int] = (1,),
    timeout: float = 4.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    workers: int | None = None,
) -> dict:
    """Score `predictions` (records of `generate.predict`: id, text, finished; `samples` per row) against the targets
    and checks of `rows`, in one order.

    language: that of the targets, if they are programs; None for natural language. run: whether programs are run where
    rows have checks. A row's text score is over its samples: their mean, or their summed counts. Rows that have tests
    alone (`no_reference`) get no text scores.

    Returns, all JSON: "scores" (`metrics.score`, and "pass_at_<k>" over the rows that have a check, which its "rows"
    names by index where not all have one), "counts" of predictions {n, empty, truncated, checked, and left_out
    {package: count} of those whose tests need a package that is not here}, and "execution" (None without checks):
    {isolation, runtimes {language: version}, timeout, memory_mb, empty, ids, verdicts [{status,
    seconds, stderr}], statuses {status: count}}. UserError when the ids differ, a reference is empty, or programs
    cannot be run here.
    """
    asked = [row for row in rows for _ in range(samples)]
    if [row.id for row in asked] != [prediction["id"] for prediction in predictions]:
        raise UserError(f"{len(predictions)} predictions do not have the ids of the {len(rows)} rows in the same "
                        f"order, {samples} each")  # fmt: skip
    texts = [prediction["text"] for prediction in predictions]
    scores = {}
    if not all(row.no_reference for row in rows):
        before = [getattr(row.check, "before", None) for row in asked]
        contexts = None if None in before else before
        found = score.score(texts, [row.target for row in asked], language, contexts)
        scores = {name: of_rows(entry, samples) for name, entry in found.items()}
    counts = {
        "n": len(texts),
        "empty": sum(not text.strip() for text in texts),
        "truncated": sum(not prediction["finished"] for prediction in predictions),
        "checked": sum(can_run(row) for row in asked),
    }
    if left_out := Counter(filter(None, (missing_package(row.language, row.check) for row in asked))):
        counts["left_out"] = dict(left_out)
    execution = None
    if run and counts["checked"]:
        limits = {"timeout": timeout, "memory_mb": memory_mb}
        execution = _run(asked, texts, limits, allow_unsandboxed, workers)
        tested = [at for at, row in enumerate(rows) if can_run(row)]
        part = {"rows": tested} if len(tested) < len(rows) else {}
        scores |= {f"pass_at_{k}": pass_at(k, execution, samples) | part for k in pass_k}
    return {"scores": scores, "counts": counts, "execution": execution}


def of_rows(entry: dict, samples: int) -> dict:
    """A metric's entry over n * samples predictions as one over n rows."""
    if samples == 1:
        return entry
    rows = entry["n"] // samples
    about = {"n": rows, "signature": re.sub(r"\|n:\d+$", f"|samples:{samples}|n:{rows}", entry["signature"])}
    if "per_example" in entry:
        return entry | about | {"per_example": np.reshape(entry["per_example"], (rows, samples)).mean(1).tolist()}
    return entry | about | {"statistics": np.reshape(entry["statistics"], (rows, samples, -1)).sum(1).tolist()}


def _run(
    rows: Sequence[Row], texts: Sequence[str], limits: dict, allow_unsandboxed: bool, workers: int | None
) -> dict:
    checked = [(row, text) for row, text in zip(rows, texts, strict=True) if can_run(row)]
    programs = [executable(row.language, text, row.check) for row, text in checked]
    verdicts = execute.execute(programs, allow_unsandboxed=allow_unsandboxed, workers=workers, **limits)
    return {
        "isolation": execute.isolation(allow_unsandboxed),
        "runtimes": {
            language: execute.runtime_version(language) for language in sorted({row.language for row, _ in checked})
        },
        **limits,
        "empty": sum(not text.strip() for _, text in checked),
        "ids": [row.id for row, _ in checked],
        "verdicts": [{"status": status(v), "seconds": v.seconds, "stderr": v.stderr_tail} for v in verdicts],
        "statuses": dict(Counter(map(status, verdicts)).most_common()),
    }


def can_run(row: Row) -> bool:
    """Says whether a row has tests, and no package is missing that they need."""
    return row.check is not None and not missing_package(row.language, row.check)


def status(verdict: Verdict) -> str:
    """The verdict's status; a wrong answer, for which a test ends the program with a message, is "failed"."""
    wrong = verdict.status == "error" and WRONG.search(verdict.stderr_tail)
    return "failed" if wrong else verdict.status


def pass_at(k: int, execution: dict, samples: int) -> dict:
    """pass@k as an entry among the scores: per problem the chance that one of k samples passes, in percent."""
    passed = np.reshape([verdict["status"] == "passed" for verdict in execution["verdicts"]], (-1, samples)).sum(1)
    values = 100 * pass_at_k(samples, passed, k)
    runtimes = ",".join(execution["runtimes"].values())
    limits = f"timeout:{execution['timeout']:g}s|memory:{execution['memory_mb']}MB|isolation:{execution['isolation']}"
    return {
        "label": f"pass@{k}",
        "value": float(values.mean()),
        "signature": f"pass@{k}|samples:{samples}|unbiased|{limits}|version:{runtimes}|n:{len(values)}",
        "per_example": values.tolist(),
        "n": len(values),
        "empty": execution["empty"],
    }

"""All scores of one file of predictions:

text metrics, and pass@1 where rows bring tests. Needs no torch, so it can be redone any time.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Sequence

import numpy as np

from studykit.evaluation import assemble, execute, metrics
from studykit.params import UserError

# What tests say in the polyglot's own and in the languages' assertions, and in Ruby's and Julia's test libraries.
WRONG = re.compile(
    r": expected .*, got |\bAssertionError\b|\b[Aa]ssertion .*failed|^Failure: |\bTest Failed\b", re.DOTALL | re.M
)


def evaluate_predictions(
    rows: Sequence[dict],
    predictions: Sequence[dict],
    *,
    timeout: float = 4.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    workers: int | None = None,
) -> dict:
    """Score `predictions` (records of `generate.predict`: id, text, finished) against the targets and checks of
    `rows`, in one order.

    Returns, all JSON: "scores" (`metrics.score`, and "pass_at_1" over the rows that have a check), "counts" {n, empty,
    truncated, checked}, and "execution" (None without checks): {isolation, runtimes {language: version}, timeout,
    memory_mb, empty, ids, verdicts [{status, seconds, stderr}], statuses {status: count}}. UserError when the ids
    differ, a reference is empty, or programs cannot be run here.
    """
    if [row["id"] for row in rows] != [prediction["id"] for prediction in predictions]:
        raise UserError(f"{len(predictions)} predictions do not have the ids of the {len(rows)} rows in the same order")
    texts = [prediction["text"] for prediction in predictions]
    scores = metrics.score(texts, [row["target"] for row in rows])
    counts = {
        "n": len(rows),
        "empty": sum(not text.strip() for text in texts),
        "truncated": sum(not prediction["finished"] for prediction in predictions),
        "checked": sum(row.get("check") is not None for row in rows),
    }
    execution = None
    if counts["checked"]:
        limits = {"timeout": timeout, "memory_mb": memory_mb}
        execution = _run(rows, texts, limits, allow_unsandboxed, workers)
        scores["pass_at_1"] = _pass_at_1(execution)
    return {"scores": scores, "counts": counts, "execution": execution}


def _run(
    rows: Sequence[dict], texts: Sequence[str], limits: dict, allow_unsandboxed: bool, workers: int | None
) -> dict:
    checked = [(row, text) for row, text in zip(rows, texts, strict=True) if row.get("check") is not None]
    programs = []
    for row, text in checked:
        nonce = secrets.token_hex(16)  # a program that guesses it cannot exist
        programs.append(assemble.program(row["language"], text, row["check"], nonce))
    verdicts = execute.execute(programs, allow_unsandboxed=allow_unsandboxed, workers=workers, **limits)
    return {
        "isolation": execute.isolation(allow_unsandboxed),
        "runtimes": {
            language: execute.runtime_version(language) for language in sorted({row["language"] for row, _ in checked})
        },
        **limits,
        "empty": sum(not text.strip() for _, text in checked),
        "ids": [row["id"] for row, _ in checked],
        "verdicts": [{"status": status(v), "seconds": v.seconds, "stderr": v.stderr_tail} for v in verdicts],
        "statuses": dict(Counter(map(status, verdicts)).most_common()),
    }


def status(verdict: execute.Verdict) -> str:
    """The verdict's status; a wrong answer, for which a test ends the program with a message, is "failed"."""
    wrong = verdict.status == "error" and WRONG.search(verdict.stderr_tail)
    return "failed" if wrong else verdict.status


def _pass_at_1(execution: dict) -> dict:
    """pass@1 of greedy decoding, one sample per problem:

    the share of programs that passed, and 0 or 100 per program.
    """
    values = [100.0 * (verdict["status"] == "passed") for verdict in execution["verdicts"]]
    runtimes = ",".join(execution["runtimes"].values())
    limits = f"timeout:{execution['timeout']:g}s|memory:{execution['memory_mb']}MB|isolation:{execution['isolation']}"
    return {
        "label": "pass@1",
        "value": float(np.mean(values)),
        "signature": f"pass@1|samples:1|decoding:greedy|{limits}|version:{runtimes}|n:{len(values)}",
        "per_example": values,
        "n": len(values),
        "empty": execution["empty"],
    }

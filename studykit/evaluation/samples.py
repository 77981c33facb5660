"""Row by row: what was asked, expected and written, and how it ended. JSON lines, one file per state.

A line has id, prompt, reference, sample, prediction, finished, prompt_cut, nats and tokens (the loss of the reference,
None without one), and status and stderr of its execution, None where nothing ran. All text in it is untrusted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studykit.data.rows import Row

STATUSES = ("passed", "failed", "error", "timeout", "memory", "output")


def write(path: Path, rows: Sequence[Row], predictions: Sequence[dict], losses, execution: dict | None) -> None:
    """One line per prediction, of which there are as many per row as samples; `losses` per row, or none at all."""
    verdicts, samples, lines = iter(execution["verdicts"] if execution else ()), len(predictions) // len(rows), []
    for at, prediction in enumerate(predictions):
        row, (nats, tokens) = rows[at // samples], losses[at // samples] if losses else (None, None)
        verdict = next(verdicts) if execution and row.check else {}
        lines.append(json.dumps({
            "id": row.id, "prompt": row.prompt, "reference": row.target, "prediction": prediction["text"],
            "sample": prediction["sample"], "finished": prediction["finished"], "prompt_cut": prediction["prompt_cut"],
            "nats": nats, "tokens": tokens, "status": verdict.get("status"), "stderr": verdict.get("stderr"),
        }, ensure_ascii=False) + "\n")  # fmt: skip
    path.write_text("".join(lines), encoding="utf-8")


def read(run_dir: str | Path, state: dict) -> list[dict]:
    """The rows of one of the states in a run's `scores.json`."""
    text = Path(run_dir, "outcomes", f"{state['file']}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def is_right(row: dict) -> bool:
    """Passed its tests; without a test, equals its reference."""
    return row["status"] == "passed" if row["status"] else _same(row)


def _same(row: dict) -> bool:
    """Whether a reference exists and was written."""
    return row["prediction"].strip() == row["reference"].strip() != ""


def endings(rows: Sequence[dict]) -> dict[str, int]:
    """How completions ended: statuses of their execution, if they were run, then empty, cut off, and cut prompts."""
    found = Counter(row["status"] for row in rows if row["status"])
    return {status: found[status] for status in STATUSES if found} | {
        "empty": sum(not row["prediction"].strip() for row in rows),
        "cut off": sum(not row["finished"] for row in rows),
        "prompt cut": sum(row["prompt_cut"] for row in rows),
    }


def message(stderr: str) -> str:
    """What an error says, without the names, places and values that differ from program to program."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = (line for line in lines if re.search(r"error|expected|attempt|undefined", line, re.IGNORECASE))
    said = re.sub(r"^.*:\d+: ", "", next(telling, lines[-1] if lines else "(no message)"))
    return re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", re.sub(r"\d+", "N", said))[:120]


def messages(rows: Sequence[dict], most: int = 5) -> list[dict]:
    """The most frequent errors: {"error", "rows", "for example"}."""
    counts, example = Counter(), {}
    for row in rows:
        if row["status"] == "error":
            said = message(row["stderr"] or "")
            counts[said] += 1
            example.setdefault(said, row["id"])
    return [{"error": said, "rows": n, "for example": example[said]} for said, n in counts.most_common(most)]


def by_length(of_seeds: Sequence[Sequence[dict]], parts: int = 3) -> list[dict]:
    """Rows in equal parts by the length of their reference in tokens: rows, share that is right (%), and loss.

    of_seeds: the same rows, as each seed answered them. Nothing without references.
    """
    if of_seeds[0][0]["tokens"] is None:
        return []
    order = np.argsort([row["tokens"] for row in of_seeds[0]], kind="stable")
    found = []
    for part in np.array_split(order, min(parts, len(order))):
        rows = [rows[i] for rows in of_seeds for i in part]
        lengths = [of_seeds[0][i]["tokens"] for i in part]
        ids = {of_seeds[0][i]["id"] for i in part}
        found.append({
            "tokens of the reference": f"{min(lengths)} to {max(lengths)}", "rows": len(ids),
            "right (%)": round(100 * float(np.mean([is_right(row) for row in rows])), 1),
            "loss": round(sum(row["nats"] for row in rows) / sum(row["tokens"] for row in rows), 3),
        })  # fmt: skip
    return found


def examples(rows: Sequence[dict], right: bool, most: int = 3) -> list[dict]:
    """The first rows that are right, or those that are wrong, in as many ways as there are, as blocks of text."""
    seen: Counter = Counter()
    turns = []  # how often the way of a row was seen before it
    chosen = [row for row in rows if is_right(row) == right]
    for row in chosen:
        turns.append(seen[way(row)])
        seen[way(row)] += 1
    return [{"prompt": row["prompt"], "reference": row["reference"], f"prediction: {way(row)}": row["prediction"]}
            for row in (chosen[i] for i in np.argsort(turns, kind="stable")[:most])]  # fmt: skip


def way(row: dict) -> str:
    """How a row ended, in words."""
    if not row["prediction"].strip():
        return "empty"
    if is_right(row):
        return "same" if _same(row) else "passed, written otherwise"
    return (row["status"] or "another text") + ("" if row["finished"] else ", cut off")

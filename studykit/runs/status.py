"""How the runs of a study stand: done, outdated, running, failed, stopped or missing, and why, in a sentence.

A finished run is outdated when it does not stand on what is there now: an input was made again since, is gone or is
itself outdated, or the code of its notebook has changed. Its numbers are true of the past, and a report must say so.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studykit.runs import files, locks, store
from studykit.study.plan import Run

WORDS = {"missing": "not run", "outdated": "out of date"}  # states in a reader's words
VERBS = {"missing": "has not run", "failed": "failed", "stopped": "was stopped", "running": "is running",
         "outdated": "is out of date"}  # fmt: skip
INTERRUPTED = ("Aborted!", "KeyboardInterrupt")  # papermill's last words; it then calls all cells completed
STARTS = 10.0  # seconds at most from a log's first byte of nothing to papermill's lock


@dataclass(frozen=True)
class Status:
    """How a run stands: done, outdated (by its inputs or its code), running, failed, stopped (half-way) or missing."""

    state: str
    error: str = ""
    manifest: dict[str, Any] | None = None
    log: Path | None = None  # the executed notebook: whole when done, else as far as it came


def of(directory: str | Path) -> Status:
    """The state of `runs/<stage>/<run>`, from its manifest, its lock and the notebook that the engine logs."""
    final = files.home() / directory
    log = files.home() / "logs" / final.parent.name / f"{final.name}.ipynb"
    if (final / "manifest.json").is_file():
        notebook = final / "notebook.ipynb"
        return Status("done", manifest=store.manifest(final), log=notebook if notebook.is_file() else None)
    if who := locks.holder(files.home() / "runs" / ".staging" / final.parent.name / final.name / "lock"):
        return Status("running", f"being written by {who}")
    text = log.with_suffix(".txt")
    if executing(text):  # and its notebook may be half written
        return Status("running", "its notebook is being executed")
    cells = _cells(log)
    raised = [o for cell in cells or () for o in cell.get("outputs", ()) if o.get("output_type") == "error"]
    for output in raised:
        if output.get("ename") != "KeyboardInterrupt":
            return Status("failed", _error(output.get("ename", ""), output.get("evalue", "")), log=log)
    said = _last_words(text)
    if said and said not in INTERRUPTED and not raised:
        return Status("failed", said, log=None if cells is None else log)
    if cells is None:
        begun = log.is_file() or text.is_file()
        return Status("stopped", "stopped before its first cell had ended") if begun else Status("missing")
    ran = [i for i, c in enumerate(cells) if c.get("metadata", {}).get("papermill", {}).get("status") == "completed"]
    if len(ran) == len(cells) and not raised and not said:  # it came to its end, and what it made is gone
        return Status("missing")
    return Status("stopped", f"stopped after cell {max(ran, default=-1) + 1} of {len(cells)} without an error "
                  "(interrupted, killed, or out of memory)", log=log)  # fmt: skip


def executing(text: Path) -> bool:
    """Whether papermill or its kernel still runs, by papermill's text: they hold it locked, and before that it is empty
    for the moment in which Python starts."""
    try:
        about = text.stat()
    except FileNotFoundError:
        return False
    return about.st_size == 0 and time.time() - about.st_mtime < STARTS or locks.holder(text) is not None


def _cells(log: Path) -> list[dict[str, Any]] | None:
    """The cells of an executed notebook; None if there is none, or if its writer was killed half-way."""
    try:
        return json.loads(log.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None


def _last_words(text: Path) -> str:
    """The error by which papermill itself ended, beside any of a cell; "" if it was killed, or came to the end."""
    lines = text.read_text(encoding="utf-8", errors="replace").split("\n") if text.is_file() else []
    lines = [line.strip() for line in lines if line.strip()]
    if not lines or lines[-1] in INTERRUPTED:
        return "".join(lines[-1:])
    if lines[-1].startswith("nbclient.exceptions.DeadKernelError"):
        return "its kernel died: it was killed, most often because memory ran out"
    told = any(line.startswith("Traceback") for line in lines)
    return lines[-1][:300] if told or not any(line.startswith("Input Notebook") for line in lines) else ""


def _error(ename: str, evalue: str) -> str:
    first = re.sub(r"\x1b\[[0-9;]*m", "", evalue).strip().split("\n")[0]
    text = first if ename == "UserError" else f"{ename}: {first}" if first else ename
    return text if len(text) <= 400 else text[:397] + "..."


def of_study(planned: list[Run]) -> dict[Run, Status]:
    """How every run of a plan stands, in the plan's order."""
    found: dict[Run, Status] = {}
    for run in planned:
        status = of(run.dir)
        if status.state == "done" and (why := _outdated(run, status.manifest, found)):
            status = replace(status, state="outdated", error=why)
        found[run] = status
    return found


def _outdated(run: Run, made: dict[str, Any], found: dict[Run, Status]) -> str:
    """Why a finished run does not stand on what is there now, or ""."""
    for need in run.needs:
        if found[need].state != "done":
            return f"{need.stage} {need.label} {VERBS[found[need].state]}"
        recorded = made["inputs"].get(need.dir)
        if recorded and recorded["sha256"] != files.sha256(files.home() / need.dir / "manifest.json"):
            return f"{need.stage} {need.label} was made again since"
    now = store.basis(run.stage, run.params)
    return next((f"its {what} changed since" for what in now if made.get(what) != now[what]), "")

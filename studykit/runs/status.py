"""The status of runs: done, outdated, damaged, running, failed, stopped or missing, and why, in a sentence.

A finished run is outdated when what it depends on is no longer as it was: an input has been run again since, is gone or
is itself outdated, or the code of its notebook has changed. Its numbers are true of the past, and a report must say so.
A finished run is damaged when its files are not those that it published: it counts as not done.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from studykit.errors import printable
from studykit.runs import files, locks, store
from studykit.runs.manifest import MANIFEST, Manifest, damage, read_manifest
from studykit.study.plan import Run

WORDS = {"missing": "not run", "outdated": "out of date"}  # states in a reader's words
VERBS = {
    "missing": "has not run",
    "failed": "failed",
    "stopped": "was stopped",
    "running": "is running",
    "outdated": "is out of date",
    "damaged": "is damaged",
}
WORK = {  # what the cell that publishes does, in a sentence about a run that was stopped in it
    "base_model": "training",
    "data": "preparing rows",
    "adapter": "training",
    "fusion": "training",
    "evaluate": "evaluation",
    "fusion_attention": "recording fusion weights",
    "compare": "comparison",
    "gather": "gathering",
}
INTERRUPTIONS = ("KeyboardInterrupt", "Interrupted")  # exceptions of a notebook that was stopped
INTERRUPTED = ("Aborted!", "KeyboardInterrupt")  # papermill's last words; it then calls all cells completed
LONGEST_START = 10.0  # seconds between a log's creation and papermill's lock, at most


@dataclass(frozen=True)
class Status:
    """The status of one run."""

    state: str  # done, outdated, damaged, running, failed, stopped or missing
    error: str = ""  # why it is not done, in a sentence
    manifest: Manifest | None = None  # of a run that is done or outdated
    log: Path | None = None  # the executed notebook: whole when done, else as far as it came

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", printable(self.error))  # it may hold names and messages of others


def run_status(directory: str | Path) -> Status:
    """Returns the status of `runs/<stage>/<run>`, from its manifest, its lock and the notebook that papermill logs."""
    final = files.home() / directory
    stage = final.parent.name
    log = files.home() / "logs" / stage / f"{final.name}.ipynb"
    manifest, problem = read_manifest(final), damage(final)
    if manifest and not problem:
        notebook = final / "notebook.ipynb"
        return Status("done", manifest=manifest, log=notebook if notebook.is_file() else None)
    if writer := locks.holder(files.staging_dir(f"{stage}/{final.name}") / "lock"):
        return Status("running", f"being written by {writer}")
    text = log.with_suffix(".txt")
    if is_executing(text):  # and its notebook may be half written
        return Status("running", "its notebook is being executed")
    if problem:
        return Status("damaged", problem)
    return _unfinished(stage, log, text)


def _unfinished(stage: str, log: Path, text: Path) -> Status:
    """The status of a run that is not finished and not running: failed, stopped or missing."""
    cells = _read_cells(log)
    errors = [
        output for cell in cells or () for output in cell.get("outputs", ()) if output.get("output_type") == "error"
    ]
    for error in errors:
        if error.get("ename") not in INTERRUPTIONS:
            return Status("failed", _sentence(error.get("ename", ""), error.get("evalue", "")), log=log)
    last_words = _last_words(text)
    if last_words and last_words not in INTERRUPTED and not errors:
        return Status("failed", last_words, log=None if cells is None else log)
    if cells is None:
        begun = log.is_file() or text.is_file()
        return Status("stopped", "stopped before its first cell had ended") if begun else Status("missing")
    started = [i for i, cell in enumerate(cells) if _papermill(cell).get("start_time")]
    ended = [i for i in started if _papermill(cells[i]).get("status") == "completed"]
    if cells and ended[-1:] == [len(cells) - 1] and not errors and not last_words:
        return Status("missing")  # it ended, and its output is gone
    return Status("stopped", _stopped(stage, cells, started), log=log)


def _stopped(stage: str, cells: list[dict[str, Any]], started: list[int]) -> str:
    if not started:
        return "stopped before its first cell had ended"
    if ".publish(" in "".join(cells[started[-1]].get("source", "")):
        return f"stopped during {WORK.get(stage, 'its work')}"
    return f"stopped in cell {started[-1] + 1} of {len(cells)} (interrupted, killed, or out of memory)"


def _papermill(cell: dict[str, Any]) -> dict[str, Any]:
    found = cell.get("metadata", {}).get("papermill", {})
    return found if isinstance(found, dict) else {}


def is_executing(text: Path) -> bool:
    """Returns whether papermill or its kernel still runs, by papermill's text.

    Both hold it locked; before that it is empty, for the moment in which Python starts.
    """
    try:
        about = text.stat()
    except FileNotFoundError:
        return False
    starting = about.st_size == 0 and time.time() - about.st_mtime < LONGEST_START
    return starting or locks.file_holder(text) is not None


def _read_cells(log: Path) -> list[dict[str, Any]] | None:
    """The cells of an executed notebook; None if there is none, or if its writer was killed half-way."""
    try:
        cells = json.loads(log.read_text(encoding="utf-8"))["cells"]
        return [
            dict(cell, metadata=dict(cell["metadata"]), outputs=list(map(dict, cell.get("outputs", ()))))
            for cell in cells
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _last_words(text: Path) -> str:
    """The error with which papermill itself ended, besides any of a cell; "" if it was killed, or came to the end."""
    try:
        lines = text.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    if not lines or lines[-1] in INTERRUPTED:
        return "".join(lines[-1:])
    if lines[-1].startswith("nbclient.exceptions.DeadKernelError"):
        return "its kernel died: it was killed, most often because memory ran out"
    raised = any(line.startswith("Traceback") for line in lines)
    return lines[-1][:300] if raised or not any(line.startswith("Input Notebook") for line in lines) else ""


def _sentence(name: str, message: str) -> str:
    """An exception in one line without colours, at most 400 characters."""
    first = re.sub(r"\x1b\[[0-9;]*m", "", str(message)).strip().split("\n")[0]
    text = first if name == "UserError" else f"{name}: {first}" if first else str(name)
    return text if len(text) <= 400 else text[:397] + "..."


def study_status(planned: Iterable[Run]) -> dict[Run, Status]:
    """Returns the status of every run of a plan, in the plan's order."""
    statuses: dict[Run, Status] = {}
    code_of = cache(store.code_of)  # of a stage, not of each of its runs
    for run in planned:
        status = run_status(run.dir)
        if status.manifest and (why := _outdated(run, status.manifest, statuses, code_of)):
            status = replace(status, state="outdated", error=why)
        statuses[run] = status
    return statuses


def _outdated(run: Run, manifest: Manifest, statuses: dict[Run, Status], code_of: Callable[[str], str]) -> str:
    """Why a finished run does not agree with what is there now; "" if it does."""
    for need in run.needs:
        if statuses[need].state != "done":
            return f"{need.stage} {need.label} {VERBS[statuses[need].state]}"
        recorded = manifest.inputs.get(need.dir)
        if recorded and recorded.sha256 != files.sha256(files.home() / need.dir / MANIFEST):
            return f"{need.stage} {need.label} has been run again since"
    now = store.digests(run.stage, run.params, code_of)
    return next((f"its {name} changed since" for name in now if getattr(manifest, name) != now[name]), "")

"""How the runs of a study stand: done, outdated, running, failed, stopped or missing, and why, in a sentence.

A finished run is outdated when it does not stand on what is there now: an input was made again since, is gone or is
itself outdated, or the code of its notebook has changed. Its numbers are true of the past, and a report must say so.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studykit import runs
from studykit.plan import Run

WORDS = {"missing": "not run", "outdated": "out of date"}  # states in a reader's words
VERBS = {"missing": "has not run", "failed": "failed", "stopped": "was stopped", "running": "is running",
         "outdated": "is out of date"}  # fmt: skip


@dataclass(frozen=True)
class Status:
    """How a run stands: done, outdated (by its inputs or its code), running, failed, stopped (half-way) or missing."""

    state: str
    error: str = ""
    manifest: dict[str, Any] | None = None
    log: Path | None = None  # the executed notebook: whole when done, else as far as it came


def of(directory: str | Path) -> Status:
    """The state of `runs/<stage>/<run>`, from its manifest, its lock and the notebook that the engine logs."""
    final = runs.home() / directory
    log = runs.home() / "logs" / final.parent.name / f"{final.name}.ipynb"
    if (final / "manifest.json").is_file():
        notebook = final / "notebook.ipynb"
        return Status("done", manifest=runs.manifest(final), log=notebook if notebook.is_file() else None)
    if who := runs.holder(runs.home() / "runs" / ".staging" / final.parent.name / final.name / "lock"):
        return Status("running", f"being written by {who}")
    try:
        cells = json.loads(log.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return _without_notebook(log.with_suffix(".txt"))
    for cell in cells:
        for output in cell.get("outputs", ()):
            if output.get("output_type") == "error" and output.get("ename") != "KeyboardInterrupt":
                return Status("failed", _error(output.get("ename", ""), output.get("evalue", "")), log=log)
    ran = [i for i, c in enumerate(cells) if c.get("metadata", {}).get("papermill", {}).get("status") == "completed"]
    return Status("stopped", f"stopped after cell {max(ran, default=-1) + 1} of {len(cells)} without an error "
                  "(interrupted, killed, or out of memory)", log=log)  # fmt: skip


def _without_notebook(text: Path) -> Status:
    """A run that papermill could not even begin: the last line that it wrote says why."""
    lines = text.read_text(encoding="utf-8", errors="replace").split("\n") if text.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Status("failed", last[:300]) if last else Status("missing")


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
        if recorded and recorded["sha256"] != runs.sha256(runs.home() / need.dir / "manifest.json"):
            return f"{need.stage} {need.label} was made again since"
    now = runs.basis(run.stage, run.params)
    return next((f"its {what} changed since" for what in now if made.get(what) != now[what]), "")

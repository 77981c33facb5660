"""The display of a running study: in a terminal a few lines that are rewritten, in a pipe one plain line per event."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

from studykit.runs import files, locks
from studykit.runs import status as runs_status
from studykit.runs.manifest import MANIFEST, read_manifest
from studykit.runs.text import format_duration, format_value
from studykit.study.plan import Run
from studykit.workflow.progress import (
    Step,
    blocked,
    describe_time_left,
    modified,
    time_left,
    training_step,
)

REFRESH = 0.5  # seconds between two looks at the files
MAX_LINES = 12  # running runs that the rewritten lines list, at most
AT_WORK = ("starting", "running")


class _View:
    """What has been seen of the runs of a plan, and the lines that tell what is new."""

    def __init__(self, planned: list[Run], is_live: bool):
        self.planned, self.is_live = planned, is_live
        self.since = time.time() - 0.5
        self.states: dict[Run, str] = {}
        self.started: dict[Run, float] = {}
        self.steps: dict[Run, Step] = {}
        self.ended: dict[Run, tuple[float, str]] = {}

    def events(self) -> list[str]:
        """Looks at every run and returns a line for each event since the last look; the first look returns none."""
        lines = []
        is_first = not self.states
        for run in self.planned:
            before, now = self.states.get(run), _state(run, self.since, self.ended)
            self.states[run] = now
            if is_first or now == before and now != "running":
                continue
            if now in AT_WORK and before not in AT_WORK:
                self.started[run] = time.monotonic()
                lines += [] if self.is_live else [f"{run.stage} {run.label} starts"]
            elif now == "running" and not self.is_live:
                step = training_step(run)
                if step and self.steps.get(run) != step:
                    self.steps[run] = step
                    lines.append(f"{run.stage} {run.label} {step}")
            elif now == "done":
                lines.append(_describe_done(run))
            elif now == "failed":
                lines.append(f"{run.stage} {run.label} failed: {self.ended[run][1]}")
        if is_first:
            count = len(self.remaining()[0])
            lines.append(
                f"{count} of {len(self.planned)} runs to do"
                if count
                else f"all {len(self.planned)} runs exist; those that are out of date are run again"
            )
        return lines

    def remaining(self) -> tuple[dict[Run, str], int]:
        """Returns the runs that can still be made, by state, and the number of those that cannot."""
        cannot = blocked(self.planned, {run for run, state in self.states.items() if state == "failed"})
        todo = {
            run: "running" if state in AT_WORK else state
            for run, state in self.states.items()
            if state not in ("done", "failed") and run not in cannot
        }
        return todo, len(cannot)

    def spent(self) -> dict[Run, float]:
        return {run: time.monotonic() - at for run, at in self.started.items()}

    def totals(self, at_a_time: int, gpus: int) -> str:
        """Returns how many runs are done, failed or cannot run, and the time left."""
        todo, cannot = self.remaining()
        counts = Counter(self.states.values())
        left = (
            describe_time_left(*time_left(self.planned, todo, self.spent(), at_a_time, gpus))
            if todo
            else "now the report"
        )
        parts = (
            f"{counts['done']} of {len(self.planned)} done",
            f"{counts['failed']} failed" if counts["failed"] else "",
            f"{cannot} cannot run" if cannot else "",
            left,
        )
        return ", ".join(filter(None, parts))


def follow(command: subprocess.Popen, planned: list[Run], at_a_time: int, out: TextIO, gpus: int = 0) -> int:
    """Shows on `out` how the runs go until Snakemake ends; returns its exit code."""
    is_live = out.isatty()
    seen, began, height = _View(planned, is_live), time.monotonic(), 0
    while True:
        code = command.poll()
        lines = seen.events()
        if is_live:
            block = [] if code is not None else _block(seen, at_a_time, gpus, time.monotonic() - began)
            out.write(f"\x1b[{height}F\x1b[J" if height else "")
            out.write("".join(f"{line}\n" for line in [*lines, *block]))
            height = len(block)
        else:
            clock = time.strftime("%H:%M:%S")
            for line in lines:
                totals = f" ({seen.totals(at_a_time, gpus)})" if " done in " in line else ""
                out.write(f"{clock} {line}{totals}\n")
        out.flush()
        if code is not None:
            return code
        time.sleep(REFRESH)


def _state(run: Run, since: float, ended: dict[Run, tuple[float, str]]) -> str:
    """The state of a run under a Snakemake that began at `since`: done, running, starting (or ending), failed, waiting.

    The error of a failed run is kept in `ended`, with its time: a notebook may be large, and is read once.
    """
    is_published = (files.home() / run.dir / MANIFEST).is_file()
    if is_published and (files.home() / run.dir / "notebook.ipynb").is_file():
        return "done"
    if locks.holder(files.staging_dir(run.name) / "lock"):
        return "running"
    text = files.home() / "logs" / f"{run.name}.txt"
    written = modified(text)
    if written < since:
        return "waiting"
    if is_published or runs_status.is_executing(text) or _is_empty(text):
        return "starting"
    if ended.get(run, (0.0, ""))[0] != written:
        status = runs_status.run_status(run.dir)  # missing until its manifest is seen, on a shared file system late
        ended[run] = written, status.error if status.state in ("failed", "stopped") else ""
    return "failed" if ended[run][1] else "starting"


def _is_empty(file: Path) -> bool:
    try:
        return file.stat().st_size == 0
    except OSError:
        return True


def _describe_done(run: Run) -> str:
    manifest = read_manifest(files.home() / run.dir)
    if manifest is None:  # removed at this moment
        return f"{run.stage} {run.label} done"
    numbers = ", ".join(f"{name} {format_value(value, 3)}" for name, value in list(manifest.headline.items())[:2])
    return f"{run.stage} {run.label} done in {format_duration(manifest.seconds)}{': ' + numbers if numbers else ''}"


def _block(seen: _View, at_a_time: int, gpus: int, elapsed: float) -> list[str]:
    """The lines that are rewritten: the totals in one, then the runs at work."""
    width = max(20, shutil.get_terminal_size().columns - 1)
    at_work = [run for run, state in seen.states.items() if state in AT_WORK]
    spent = seen.spent()
    lines = [f"[{int(elapsed) // 60}:{int(elapsed) % 60:02}] {seen.totals(at_a_time, gpus)}"]
    for run in at_work[:MAX_LINES]:
        if seen.states[run] == "running":
            activity = str(training_step(run) or "running")
        else:
            activity = "ends" if (files.home() / run.dir / MANIFEST).is_file() else "starts"
        lines.append(f"  {run.stage} {run.label}  {activity}  {spent.get(run, 0.0):.0f} s")
    if len(at_work) > MAX_LINES:
        lines.append(f"  and {len(at_work) - MAX_LINES} more")
    return [line[:width] for line in lines]

"""The display of a running study: in a terminal a few lines that are rewritten, in a pipe one plain line per event."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TextIO

from studykit.runs import files, locks
from studykit.runs import status as runs_status
from studykit.runs.manifest import MANIFEST, read_manifest
from studykit.runs.text import format_duration, format_value
from studykit.study.parameters import STAGES
from studykit.study.plan import Run
from studykit.workflow.progress import blocked
from studykit.workflow.steps import modified, training_step
from studykit.workflow.time_left import STARTUP, describe_time_left, drawing_seconds, time_left

REFRESH = 0.5  # seconds between two looks at the files
CALM = 5.0  # seconds for which the time left stays as it was told
MAX_LINES = 12  # running runs that the rewritten lines list, at most
QUIET = 60.0  # seconds without a line in a pipe after which a training has one for another quarter of its steps
AT_WORK = ("starting", "running")


class _View:
    """What has been seen of the runs of a plan, and the lines that tell what is new."""

    def __init__(self, planned: list[Run], is_live: bool):
        self.planned, self.is_live = planned, is_live
        self.since = time.time() - 0.5
        self.states: dict[Run, str] = {}
        self.started: dict[Run, float] = {}
        self.quarters: dict[Run, int] = {}
        self.told = time.monotonic()  # when there was something new
        self.startups: list[float] = []  # seconds that notebooks took to start
        self.ended: dict[Run, tuple[float, str]] = {}
        self._left: tuple[float, str] = -math.inf, ""  # the time left as it was told, and when

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
            elif now == "running" and not self.is_live:
                lines += self._quarter(run)
            elif now == "done":
                lines.append(self._describe_done(run))
            elif now == "failed":
                lines.append(f"{run.stage} {run.label} failed: {self.ended[run][1]}")
        if is_first:
            count = len(self.remaining()[0])
            lines.append(
                f"{count} of {len(self.planned)} runs to do"
                if count
                else f"all {len(self.planned)} runs exist; those that are out of date are run again"
            )
        self.told = time.monotonic() if lines else self.told
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
        parts = (
            f"{counts['done']} of {len(self.planned)} done",
            f"{counts['failed']} failed" if counts["failed"] else "",
            f"{cannot} cannot run" if cannot else "",
            self._time_left(todo, at_a_time, gpus) if todo else "now the report",
        )
        return ", ".join(filter(None, parts))

    def _time_left(self, todo: dict[Run, str], at_a_time: int, gpus: int) -> str:
        if time.monotonic() - self._left[0] > CALM:
            startup = median(self.startups) if self.startups else STARTUP
            left = time_left(self.planned, todo, self.spent(), at_a_time, gpus, startup)
            self._left = time.monotonic(), describe_time_left(*left)
        return self._left[1]

    def _quarter(self, run: Run) -> list[str]:
        """A line once a training has passed another quarter of its steps, where nothing was told for a minute."""
        if time.monotonic() - self.told < QUIET or not (step := training_step(run)):
            return []
        quarter, before = int(4 * step.share), self.quarters.get(run, 0)
        self.quarters[run] = quarter
        return [f"{run.stage} {run.label} {step}"] if quarter > before else []

    def _describe_done(self, run: Run) -> str:
        manifest = read_manifest(files.home() / run.dir)
        if manifest is None:  # removed at this moment
            return f"{run.stage} {run.label} done"
        if (began := self.started.pop(run, None)) is not None:
            took = manifest.seconds + drawing_seconds(files.home() / run.dir)
            self.startups.append(max(0.0, time.monotonic() - began - took))
        numbers = ", ".join(f"{name} {format_value(value, 3)}" for name, value in list(manifest.headline.items())[:2])
        return f"{run.stage} {run.label} done in {format_duration(manifest.seconds)}{': ' + numbers if numbers else ''}"


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
                has_totals = " done in " in line or " step " in line
                totals = f" ({seen.totals(at_a_time, gpus)})" if has_totals else ""
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


def _block(seen: _View, at_a_time: int, gpus: int, elapsed: float) -> list[str]:
    """The lines that are rewritten: the totals, then a line per stage with its runs at work below it."""
    size = shutil.get_terminal_size()
    spent, listed = seen.spent(), 0
    lines = [f"[{int(elapsed) // 60}:{int(elapsed) % 60:02}] {seen.totals(at_a_time, gpus)}"]
    for stage in STAGES:
        states = {run: state for run, state in seen.states.items() if run.stage == stage}
        if not states:
            continue
        lines.append(f"  {stage:16}  {sum(state == 'done' for state in states.values()):>3} of {len(states)}")
        at_work = [run for run, state in states.items() if state in AT_WORK]
        shown = at_work[: MAX_LINES - listed]
        listed += len(shown)
        lines += [f"    {run.label}  {_activity(run, states[run])}  {spent.get(run, 0.0):.0f} s" for run in shown]
        if more := len(at_work) - len(shown):
            lines.append(f"    and {more} more")
    return [line[: max(20, size.columns - 1)] for line in lines[: max(1, size.lines - 1)]]


def _activity(run: Run, state: str) -> str:
    if state == "running":
        return str(training_step(run) or "running")
    return "ends" if (files.home() / run.dir / MANIFEST).is_file() else "starts"

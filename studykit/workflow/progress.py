"""How far a study is while it runs: what has ended, what is running at which step and loss, how long it will take.

`follow` shows that beside a running Snakemake: in a terminal a few lines that are rewritten, in a pipe or a file one
plain line per event. `table` says it once, from any process (`studykit status`). Steps and losses are those of the
newest checkpoint; the time left is planned out from the speed of what is training and from what finished runs of the
same stage took.
"""

from __future__ import annotations

import heapq
import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import mean
from typing import TextIO

from studykit.runs import files as run_files
from studykit.runs import locks as runs_locks
from studykit.runs import process as runs_process
from studykit.runs import status as runs_status
from studykit.runs import store
from studykit.runs.status import Status
from studykit.runs.text import format_duration, format_value
from studykit.study.methods import PHASES
from studykit.study.parameters import STAGES
from studykit.study.plan import Run
from studykit.workflow import snakemake

AROUND = 6.0  # seconds that a notebook takes beside its run: a kernel and libraries start; benchmarks/overhead.py
ADVFUSION = PHASES["advfusion"]  # the only method whose progress is counted over several phases
EVERY = 0.5  # seconds between two looks
TOLD = 0.05  # share of a training from which its own speed says when it ends
SHOWN = 12  # runs at most in the lines that are rewritten


@dataclass(frozen=True)
class Step:
    """Where a training is, by its newest checkpoint."""

    step: int
    steps: int
    loss: float | None  # of training
    phase: str = ""  # of a fusion in two phases
    share: float = 0.0  # of all the steps of the run
    written: float = field(default=0.0, compare=False)  # when, in seconds of the clock

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.3f}"
        return f"{self.phase + ', ' if self.phase else ''}step {self.step} of {self.steps}{loss}"


def step_of(run: Run) -> Step | None:
    """Where the training of an unfinished run is; None for one that has no checkpoint."""
    folder = run_files.home() / "runs" / ".staging" / run.name / "checkpoints"
    states = sorted(folder.glob("**/checkpoint-*/trainer_state.json"), key=_age, reverse=True)
    for file in states[:2]:  # the newest may be half written, or gone when it is read
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        phase = next((phase for phase in ADVFUSION if phase.key == file.relative_to(folder).parts[0]), None)
        step, steps = state["global_step"], state["max_steps"]
        loss = next((row["loss"] for row in reversed(state["log_history"]) if "loss" in row), None)
        share = step / steps if phase is None else (step / steps + ADVFUSION.index(phase)) / len(ADVFUSION)
        return Step(step, steps, loss, phase.title if phase else "", share, _age(file))
    return None


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def cores() -> int:
    """Notebooks at a time that the default profile allows."""
    return snakemake.asked([]).places


# How long it will take


def expected(planned: Iterable[Run]) -> dict[str, tuple[float, bool]]:
    """Seconds that a run of each stage takes, by the finished ones, and whether those are of this very study: runs of
    others tell of their own settings, and at best how long one takes at least."""
    found: dict[str, tuple[float, bool]] = {}
    planned = list(planned)
    for stage in dict.fromkeys(run.stage for run in planned):
        own = [run_files.home() / run.dir / "manifest.json" for run in planned if run.stage == stage]
        others = (run_files.home() / "runs" / stage).glob("*/manifest.json")
        for files, of_this in ((own, True), (others, False)):
            if took := [seconds for file in files if (seconds := _read_seconds(file, _age(file))) is not None]:
                found[stage] = mean(took), of_this
                break
    return found


@cache
def _read_seconds(manifest: Path, written: float) -> float | None:
    """None where there is no manifest, or one that is damaged: `written` is asked twice a second in a live view, and
    the file is read when it has changed."""
    try:
        return float(json.loads(manifest.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def time_left(planned: list[Run], state: dict[Run, str], spent: dict[Run, float], at_a_time: int,
              gpus: int = 0) -> tuple[float, bool]:  # fmt: skip
    """Seconds until everything is done, if each run starts as soon as its needs and a place are there; and whether
    that is all: False where of some stage nothing is known, which then counts as nothing, or only by other studies.

    Args:
        state: running, or anything else; runs that are done, or cannot be, are not in it.
        spent: seconds that running ones have run since they were started, or started again.
        at_a_time: runs at a time; of those that use a GPU as many as there are `gpus`, if there are any.
    """
    known, complete = expected(planned), True
    free, ends = [0.0] * max(1, min(at_a_time, len(state))), {}
    free_gpus = [0.0] * min(gpus, len(state))
    for run in sorted(state, key=lambda r: state[r] != "running"):  # stable: else in the plan's order
        before = _before(run) if state[run] == "running" else 0.0
        seconds = _own_speed(run, before, spent.get(run, 0.0)) if state[run] == "running" else None
        if seconds is None:
            took, of_this = known.get(run.stage, (0.0, False))
            seconds = max(1.0, took + AROUND - before - spent.get(run, 0.0)) if took else 0.0
            complete = complete and of_this
        places = [free, free_gpus] if free_gpus and run.stage in runs_process.GPU_STAGES else [free]
        ends[run] = max(*map(heapq.heappop, places), *(ends.get(need, 0.0) for need in run.needs), 0.0) + seconds
        for place in places:
            heapq.heappush(place, ends[run])
    return max(ends.values(), default=0.0), complete


def _before(run: Run) -> float:
    """Seconds of the attempts that a running one goes on from."""
    try:
        return json.loads((run_files.home() / "runs" / ".staging" / run.name / "attempt.json").read_text())["seconds"]
    except (OSError, ValueError, KeyError):  # it is not written yet, or removed when the run ends
        return 0.0


def _own_speed(run: Run, before: float, spent: float) -> float | None:
    """Seconds that a training needs by what it has done so far; None where that is too little to tell."""
    step = step_of(run)
    if step is None or step.share < TOLD:
        return None
    since = min(spent, time.time() - step.written)  # what has been done since the checkpoint is not known
    return max(1.0, (before + spent - since) * (1 - step.share) / step.share - since)


def blocked(planned: list[Run], failed: set[Run]) -> set[Run]:
    """The runs that stand on a failed one, and so cannot be made. `planned` is in an order in which runs are made."""
    found: set[Run] = set()
    for run in planned:
        if run not in failed and any(need in failed or need in found for need in run.needs):
            found.add(run)
    return found


def about(seconds: float, complete: bool) -> str:
    """"about 3 min left", in words that promise no more than is known."""
    if seconds < 1:
        return ""
    return f"{'about' if complete else 'at least'} {format_duration(seconds, rounded=True)} left"


# While Snakemake runs


def follow(process: subprocess.Popen, planned: list[Run], at_a_time: int, out: TextIO, gpus: int = 0) -> int:
    """Show on `out` how the runs go until Snakemake ends; its exit code."""
    live = out.isatty()
    began, since, lines = time.monotonic(), time.time() - 0.5, 0
    state, started, steps, ended = {}, {}, {}, {}
    first = True
    while True:
        code = process.poll()
        said: list[str] = []
        for run in planned:
            before, now = state.get(run), _state(run, since, ended)
            state[run] = now
            if first or now == before and now != "running":
                continue
            if now in AT_WORK and before not in AT_WORK:
                started[run] = time.monotonic()
                said += [] if live else [f"{run.stage} {run.label} starts"]
            elif now == "running" and not live and (step := step_of(run)) and steps.get(run) != step:
                steps[run] = step
                said.append(f"{run.stage} {run.label} {step}")
            elif now == "done":
                said.append(_done(run))
            elif now == "failed":
                said.append(f"{run.stage} {run.label} failed: {ended[run][1]}")
        counts = Counter(state.values())
        cannot = blocked(planned, {run for run, now in state.items() if now == "failed"})
        todo = {run: "running" if now in AT_WORK else now for run, now in state.items()
                if now not in ("done", "failed") and run not in cannot}  # fmt: skip
        if first:
            said.append(f"{len(todo)} of {len(planned)} runs to do" if todo else
                        f"all {len(planned)} runs are there; those that are out of date are made again")  # fmt: skip
        spent = {run: time.monotonic() - at for run, at in started.items()}
        tail = ""
        if live or any(" done in " in line for line in said):
            left = about(*time_left(planned, todo, spent, at_a_time, gpus)) if todo else "now the report"
            failed = f"{counts['failed']} failed" if counts["failed"] else ""
            waits = f"{len(cannot)} cannot run" if cannot else ""
            tail = ", ".join(filter(None, (f"{counts['done']} of {len(planned)} done", failed, waits, left)))
        if live:
            block = [] if code is not None else _block(state, spent, tail, time.monotonic() - began)
            out.write(f"\x1b[{lines}F\x1b[J" if lines else "")
            out.write("".join(f"{line}\n" for line in [*said, *block]))
            lines = len(block)
        else:
            clock = time.strftime("%H:%M:%S")
            out.write("".join(f"{clock} {line}{f' ({tail})' if ' done in ' in line else ''}\n" for line in said))
        out.flush()
        if code is not None:
            return code
        first = False
        time.sleep(EVERY)


AT_WORK = ("starting", "running")


def _state(run: Run, since: float, ended: dict[Run, tuple[float, str]]) -> str:
    """done, running, starting (or ending), failed or waiting, of a run under an engine that began at `since`. What it
    failed of is kept in `ended`, with the time: a notebook may be large, and is read once."""
    made = (run_files.home() / run.dir / "manifest.json").is_file()
    if made and (run_files.home() / run.dir / "notebook.ipynb").is_file():
        return "done"
    if runs_locks.holder(run_files.home() / "runs" / ".staging" / run.name / "lock"):
        return "running"
    text = run_files.home() / "logs" / f"{run.name}.txt"
    if (written := _age(text)) < since:
        return "waiting"
    if made or not text.stat().st_size or runs_status.executing(text):
        return "starting"
    if ended.get(run, (0.0, ""))[0] != written:
        status = runs_status.of(run.dir)  # whole, it is missing until its manifest is seen, on a shared file system late
        ended[run] = written, status.error if status.state in ("failed", "stopped") else ""
    return "failed" if ended[run][1] else "starting"


def _done(run: Run) -> str:
    made = store.manifest(run.dir)
    numbers = ", ".join(f"{name} {format_value(value, 3)}" for name, value in list(made["headline"].items())[:2])
    return f"{run.stage} {run.label} done in {format_duration(made['seconds'])}{': ' + numbers if numbers else ''}"


def _block(state: dict[Run, str], spent: dict[Run, float], tail: str, elapsed: float) -> list[str]:
    """The lines that are rewritten: all in one, then what is running."""
    width = max(20, shutil.get_terminal_size().columns - 1)
    at_work = [run for run, now in state.items() if now in AT_WORK]
    lines = [f"[{int(elapsed) // 60}:{int(elapsed) % 60:02}] {tail}"]
    for run in at_work[:SHOWN]:
        step = step_of(run) if state[run] == "running" else None
        ends = (run_files.home() / run.dir / "manifest.json").is_file()
        what = step or ("running" if state[run] == "running" else "ends" if ends else "starts")
        lines.append(f"  {run.stage} {run.label}  {what}  {spent.get(run, 0.0):.0f} s")
    if len(at_work) > SHOWN:
        lines.append(f"  and {len(at_work) - SHOWN} more")
    return [line[:width] for line in lines]


# From another process


def table(planned: list[Run]) -> str:
    """The stages of a study with their runs by state, what is running, and the time left."""
    found = runs_status.of_study(planned)
    present = {status.state for status in found.values()} | {"done", "running", "failed", "missing"}
    shown = [s for s in ("done", "outdated", "running", "failed", "stopped", "missing") if s in present]
    rows = [["stage", *(runs_status.WORDS.get(s, s) for s in shown)]]
    for stage in STAGES:
        counts = Counter(status.state for run, status in found.items() if run.stage == stage)
        if counts:
            rows.append([stage, *(str(counts[s] or "-") for s in shown)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    for run, status in found.items():
        if status.state in ("running", "stopped", "failed"):
            step = step_of(run)
            at = f"{step}; " if step and status.state != "failed" else ""
            lines.append(f"{status.state}: {run.stage} {run.label}: {at}{status.error}")
    lock = run_files.home() / "runs" / ".engine.lock"
    who = runs_locks.holder(lock)
    todo = [run for run, status in found.items() if status.state != "done"]
    if todo:
        left = about(*_time_left(planned, found, _age(lock) if who else time.time()))
        at_work = f"{who} is running a study in this project" if who else "no engine is running"
        lines.append(f"{len(todo)} of {len(planned)} runs are to do{', ' + left if left else ''}; {at_work}.")
    else:
        lines.append(f"All {len(planned)} runs are done.")
    return "\n".join(lines)


def _time_left(planned: list[Run], found: dict[Run, Status], since: float) -> tuple[float, bool]:
    """The time left as another process sees it, for an engine that began at `since`: what failed before is tried
    again."""
    failed = {run for run, status in found.items() if status.state in ("failed", "stopped")
              and _age(run_files.home() / "logs" / f"{run.name}.txt") > since}  # fmt: skip
    out = failed | blocked(planned, failed)
    todo = {run: status.state for run, status in found.items() if status.state != "done" and run not in out}
    locks = {run: run_files.home() / "runs" / ".staging" / run.name / "lock" for run, s in todo.items() if s == "running"}
    spent = {run: time.time() - _age(lock) for run, lock in locks.items() if runs_locks.holder(lock)}  # written when opened
    return time_left(planned, todo, spent, cores(), len(runs_process.gpus()))

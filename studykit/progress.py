"""How far a study is while it runs: what has ended, what is running at which step and loss, how long it will take.

`follow` shows that beside a running Snakemake: in a terminal a few lines that are rewritten, in a pipe or a file one
plain line per event. `table` says it once, from any process (`studykit status`). Steps and losses are those of the
newest checkpoint; the time left is planned out from what finished runs of the same stage took.
"""

from __future__ import annotations

import heapq
import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, TextIO

import yaml

from studykit import runs, standing
from studykit.params import STAGES
from studykit.plan import Run

AROUND = 6.0  # seconds that a notebook takes beside its run: a kernel and libraries start; benchmarks/overhead.py
EVERY = 0.5  # seconds between two looks
SHOWN = 12  # runs at most in the lines that are rewritten


@dataclass(frozen=True)
class Step:
    """Where a training is, by its newest checkpoint."""

    step: int
    steps: int
    loss: float | None  # of training
    phase: str = ""  # of a fusion in two phases
    share: float = 0.0  # of all the steps of the run

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.3f}"
        return f"{self.phase + ', ' if self.phase else ''}step {self.step} of {self.steps}{loss}"


def step_of(run: Run) -> Step | None:
    """Where the training of an unfinished run is; None for one that has no checkpoint."""
    folder = runs.home() / "runs" / ".staging" / run.name / "checkpoints"
    states = sorted(folder.glob("**/checkpoint-*/trainer_state.json"), key=_age, reverse=True)
    for file in states[:2]:  # the newest may be half written, or gone when it is read
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        phase = file.relative_to(folder).parts[0].replace("phase", "phase ")
        phase = "" if phase.startswith("checkpoint-") or phase == "fusion" else phase
        step, steps = state["global_step"], state["max_steps"]
        loss = next((row["loss"] for row in reversed(state["log_history"]) if "loss" in row), None)
        share = step / steps if not phase else (step / steps + (phase == "phase 2")) / 2
        return Step(step, steps, loss, phase, share)
    return None


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def cores() -> int:
    """Notebooks at a time that the default profile allows."""
    profile = runs.home() / "profiles" / "default" / "config.yaml"
    return int(yaml.safe_load(profile.read_text(encoding="utf-8")).get("cores", 1)) if profile.is_file() else 1


# How long it will take


def expected(planned: Iterable[Run]) -> dict[str, float]:
    """Seconds that a run of each stage takes: by the finished ones of the study, else by any of the project."""
    own: dict[str, list[float]] = {}
    for run in planned:
        if (runs.home() / run.dir / "manifest.json").is_file():
            own.setdefault(run.stage, []).append(_seconds(runs.home() / run.dir / "manifest.json"))
    for stage in {run.stage for run in planned} - own.keys():
        if files := list((runs.home() / "runs" / stage).glob("*/manifest.json")):
            own[stage] = [_seconds(file) for file in files]
    return {stage: mean(seconds) for stage, seconds in own.items()}


def _seconds(manifest: Path) -> float:
    return _read_seconds(manifest, _age(manifest))


@cache
def _read_seconds(manifest: Path, written: float) -> float:
    """A live view asks twice a second; a manifest changes only when its run is made again."""
    return json.loads(manifest.read_text(encoding="utf-8"))["seconds"]


def time_left(planned: list[Run], state: dict[Run, str], spent: dict[Run, float], at_a_time: int) -> tuple[float, bool]:
    """Seconds until everything is done, if each run starts as soon as its needs and a core are there; and whether
    that is all: False where nothing is known of some stage, which then counts as nothing.

    Args:
        state: running, or anything else; runs that are done are not in it.
        spent: seconds that running ones have run.
    """
    known, complete = expected(planned), True
    free, ends = [0.0] * max(1, at_a_time), {}
    for run in sorted(state, key=lambda r: state[r] != "running"):  # stable: else in the plan's order
        step = step_of(run) if state[run] == "running" else None
        if run.stage in known:
            seconds = max(1.0, known[run.stage] + AROUND - spent.get(run, 0.0))
        elif step and spent.get(run) and step.share:
            seconds = spent[run] * (1 / step.share - 1)
        else:
            seconds, complete = 0.0, False
        start = max([heapq.heappop(free), *(ends.get(need, 0.0) for need in run.needs)])
        ends[run] = start + seconds
        heapq.heappush(free, ends[run])
    return max(ends.values(), default=0.0), complete


def about(seconds: float, complete: bool) -> str:
    """"about 3 min left", in words that promise no more than is known."""
    if seconds < 1:
        return ""
    size = f"{seconds / 60:.0f} min" if 90 <= seconds < 5400 else f"{seconds / 3600:.1f} h"
    size = f"{seconds:.0f} s" if seconds < 90 else size
    return f"{'about' if complete else 'at least'} {size} left"


# While Snakemake runs


def follow(process: subprocess.Popen, planned: list[Run], at_a_time: int, out: TextIO) -> int:
    """Show on `out` how the runs go until Snakemake ends; its exit code."""
    live = out.isatty()
    began, since, lines = time.monotonic(), time.time() - 0.5, 0
    state, started, steps, failed_at = {}, {}, {}, {}
    first = True
    while True:
        code = process.poll()
        said: list[str] = []
        for run in planned:
            before, now = state.get(run), _state(run, since, failed_at)
            state[run] = now
            if first or now == before and now != "running":
                continue
            if now in ("starting", "running") and before not in ("starting", "running"):
                started[run] = time.monotonic()
                said += [] if live else [f"{run.stage} {run.label} starts"]
            elif now == "running" and not live and (step := step_of(run)) and steps.get(run) != step:
                steps[run] = step
                said.append(f"{run.stage} {run.label} {step}")
            elif now == "done":
                said.append(_done(run))
            elif now == "failed":
                said.append(f"{run.stage} {run.label} failed: {standing.of(run.dir).error}")
        todo = {run: "running" if s in ("starting", "running") else s for run, s in state.items()
                if s not in ("done", "failed")}  # fmt: skip
        if first:
            said.append(f"{len(todo)} of {len(planned)} runs to do" if todo else
                        f"all {len(planned)} runs are there; those that are out of date are made again")  # fmt: skip
        counts = Counter(state.values())
        spent = {run: time.monotonic() - at for run, at in started.items()}
        tail = ""
        if live or any(" done in " in line for line in said):
            left = about(*time_left(planned, todo, spent, at_a_time)) if todo else "now the report"
            failed = f"{counts['failed']} failed" if counts["failed"] else ""
            tail = ", ".join(filter(None, (f"{counts['done']} of {len(planned)} done", failed, left)))
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


def _state(run: Run, since: float, failed_at: dict[Run, tuple[float, bool]]) -> str:
    """done, running, starting (or ending), failed or waiting, of a run under an engine that began at `since`."""
    if (runs.home() / run.dir / "manifest.json").is_file() and (runs.home() / run.dir / "notebook.ipynb").is_file():
        return "done"
    if runs.holder(runs.home() / "runs" / ".staging" / run.name / "lock"):
        return "running"
    log = runs.home() / "logs" / f"{run.name}.ipynb"
    if _age(log.with_suffix(".txt")) < since:
        return "waiting"
    if (written := _age(log)) < since:
        return "starting"
    if failed_at.get(run, (0.0, False))[0] != written:  # a notebook may be large: it is read once it has changed
        failed_at[run] = written, standing.of(run.dir).state == "failed"
    return "failed" if failed_at[run][1] else "starting"


def _done(run: Run) -> str:
    made = runs.manifest(run.dir)
    numbers = ", ".join(f"{name} {_number(value)}" for name, value in list(made["headline"].items())[:2])
    return f"{run.stage} {run.label} done in {made['seconds']:.1f} s{': ' + numbers if numbers else ''}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _block(state: dict[Run, str], spent: dict[Run, float], tail: str, elapsed: float) -> list[str]:
    """The lines that are rewritten: all in one, then what is running."""
    width = max(20, shutil.get_terminal_size().columns - 1)
    at_work = [run for run, now in state.items() if now in ("starting", "running")]
    lines = [f"[{int(elapsed) // 60}:{int(elapsed) % 60:02}] {tail}"]
    for run in at_work[:SHOWN]:
        step = step_of(run) if state[run] == "running" else None
        ends = (runs.home() / run.dir / "manifest.json").is_file()
        what = step or ("running" if state[run] == "running" else "ends" if ends else "starts")
        lines.append(f"  {run.stage} {run.label}  {what}  {spent.get(run, 0.0):.0f} s")
    if len(at_work) > SHOWN:
        lines.append(f"  and {len(at_work) - SHOWN} more")
    return [line[:width] for line in lines]


# From another process


def table(planned: list[Run]) -> str:
    """The stages of a study with their runs by state, what is running, and the time left."""
    found = standing.of_study(planned)
    present = {status.state for status in found.values()} | {"done", "running", "failed", "missing"}
    shown = [s for s in ("done", "outdated", "running", "failed", "stopped", "missing") if s in present]
    rows = [["stage", *(standing.WORDS.get(s, s) for s in shown)]]
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
    engine = runs.holder(runs.home() / "runs" / ".engine.lock")
    todo = {run: status.state for run, status in found.items() if status.state != "done"}
    locks = {run: runs.home() / "runs" / ".staging" / run.name / "lock" for run, s in todo.items() if s == "running"}
    spent = {run: time.time() - _age(lock) for run, lock in locks.items()}  # it is written when the run is opened
    if todo:
        left = about(*time_left(planned, todo, spent, cores()))
        at_work = f"{engine} is running a study in this project" if engine else "no engine is running"
        lines.append(f"{len(todo)} of {len(planned)} runs are to do{', ' + left if left else ''}; {at_work}.")
    else:
        lines.append(f"All {len(planned)} runs are done.")
    return "\n".join(lines)

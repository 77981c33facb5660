"""The progress of a study: what has ended, what is running at which step and loss, how much time is left.

`status_table` describes it from any process (`studykit status`); `display` shows it while Snakemake runs. Steps and
losses are those of the newest checkpoint. The time left is a sum: what finished runs of a stage took on average, for
each run that remains, divided by the number of runs at a time.

Runs, checkpoints and logs may vanish while they are read: a training prunes its checkpoints. That is not an error here.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from studykit.runs import files, locks, process
from studykit.runs import status as runs_status
from studykit.runs.manifest import MANIFEST, Manifest, read_attempt, read_manifest
from studykit.runs.text import format_duration
from studykit.study.methods import PHASES
from studykit.study.parameters import STAGES
from studykit.study.plan import Run
from studykit.workflow import snakemake

STARTUP = 6.0  # seconds that a notebook takes besides its run: a kernel and libraries start; benchmarks/overhead.py
ADVFUSION = PHASES["advfusion"]  # the only method whose progress is counted over several phases
MIN_SHARE = 0.05  # share of a training from which its own speed tells when it ends


@dataclass(frozen=True)
class Step:
    """How far a training is, by its newest checkpoint."""

    step: int
    steps: int
    loss: float | None  # of training
    phase: str = ""  # of a fusion in two phases
    share: float = 0.0  # of all the steps of the run
    written: float = field(default=0.0, compare=False)  # time of the checkpoint, in seconds of the clock

    def __str__(self) -> str:
        phase = f"{self.phase}, " if self.phase else ""
        loss = "" if self.loss is None else f", loss {self.loss:.3f}"
        return f"{phase}step {self.step} of {self.steps}{loss}"


def training_step(run: Run) -> Step | None:
    """Returns the step of an unfinished training; None for a run without a checkpoint."""
    folder = files.staging_dir(run.name) / "checkpoints"
    states = [
        Path(directory, "trainer_state.json")
        for directory, _, names in os.walk(folder)  # passes over what vanishes meanwhile
        if "trainer_state.json" in names
    ]
    for file in sorted(states, key=modified, reverse=True)[:2]:  # the newest may be half written
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            step, steps, log = state["global_step"], state["max_steps"], state["log_history"]
            loss = next((row["loss"] for row in reversed(log) if "loss" in row), None)
            share = step / steps
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue
        phase = next((phase for phase in ADVFUSION if phase.key == file.relative_to(folder).parts[0]), None)
        if phase is not None:
            share = (share + ADVFUSION.index(phase)) / len(ADVFUSION)
        return Step(step, steps, loss, phase.title if phase else "", share, modified(file))
    return None


def modified(file: Path) -> float:
    """Returns when a file was last written, in seconds of the clock; 0 for none."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def stage_means(planned: Iterable[Run]) -> dict[str, tuple[float, bool]]:
    """Returns the mean seconds of finished runs by stage, and whether they are runs of this plan.

    Runs of other studies, with other settings, count only where the plan has none of the stage.
    """
    means: dict[str, tuple[float, bool]] = {}
    by_stage: dict[str, list[Path]] = {}
    for run in planned:
        by_stage.setdefault(run.stage, []).append(files.home() / run.dir)
    for stage, own in by_stage.items():
        others = (file.parent for file in (files.home() / "runs" / stage).glob(f"*/{MANIFEST}"))
        for directories, is_own in ((own, True), (others, False)):
            manifests = [read_manifest(directory) for directory in directories]
            if seconds := [manifest.seconds for manifest in manifests if manifest]:
                means[stage] = mean(seconds), is_own
                break
    return means


def describe_shares(planned: Iterable[Run], since: float) -> str:
    """Returns the work of the runs finished after `since` (a time of day) by stage, the longest first; "" without any.

    It is the time inside the runs: the starts of notebooks, and their figures, are not in it.
    """
    spent: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for run in planned:
        manifest = read_manifest(files.home() / run.dir)
        if isinstance(manifest, Manifest) and modified(files.home() / run.dir / MANIFEST) >= since:
            spent[run.stage] = spent.get(run.stage, 0.0) + manifest.seconds
            counts[run.stage] += 1
    total = sum(spent.values())
    if not total:
        return ""
    shares = [
        f"{stage} {seconds / total:.0%} ({format_duration(seconds, rounded=True)}, {counts[stage]} run"
        f"{'s' if counts[stage] > 1 else ''})"
        for stage, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]
    return f"{format_duration(total, rounded=True)} of work: {', '.join(shares)}"


def time_left(
    planned: list[Run], states: Mapping[Run, str], spent: Mapping[Run, float], at_a_time: int, gpus: int = 0
) -> tuple[float, bool]:
    """Returns the seconds until everything is done, and whether they cover every run.

    They do not where nothing is known of a stage, or only what runs of other studies took.

    Args:
        states: the runs that remain, by state; "running" is one of them.
        spent: seconds since each running run was started.
        at_a_time: number of runs at a time; of those that use a GPU at most `gpus`, if there are any.
    """
    means, complete, seconds = stage_means(planned), True, {}
    for run, state in states.items():
        remaining = _own_speed(run, spent.get(run, 0.0)) if state == "running" else None
        if remaining is None:
            average, is_own = means.get(run.stage, (0.0, False))
            complete = complete and is_own
            remaining = max(1.0, average + STARTUP - spent.get(run, 0.0)) if average else 0.0
        seconds[run] = remaining
    places = max(1, min(at_a_time, len(states)))
    gpu_places = min(gpus, places) or places
    total = sum(value / (gpu_places if run.stage in process.GPU_STAGES else places) for run, value in seconds.items())
    return max(total, *seconds.values(), 0.0), complete


def _own_speed(run: Run, spent: float) -> float | None:
    """Seconds that a training still needs by its own speed, earlier attempts counted; None where too little is done."""
    step = training_step(run)
    if step is None or step.share < MIN_SHARE:
        return None
    attempt = read_attempt(files.staging_dir(run.name))
    since = min(spent, time.time() - step.written)  # what has been done since the checkpoint is not known
    until = (attempt.seconds if attempt else 0.0) + spent - since
    return max(1.0, until * (1 - step.share) / step.share - since)


def blocked(planned: list[Run], failed: set[Run]) -> set[Run]:
    """Returns the runs that need a failed one, directly or not. `planned` is in an order in which runs are made."""
    found: set[Run] = set()
    for run in planned:
        if run not in failed and any(need in failed or need in found for need in run.needs):
            found.add(run)
    return found


def describe_time_left(seconds: float, complete: bool) -> str:
    """Returns "about 3 min left", or "at least" where the time is not known of every run; "" for less than a second."""
    if seconds < 1:
        return ""
    return f"{'about' if complete else 'at least'} {format_duration(seconds, rounded=True)} left"


def status_table(planned: list[Run]) -> str:
    """Returns the stages of a study with their runs by state, what is running, and the time left."""
    statuses = runs_status.study_status(planned)
    present = {status.state for status in statuses.values()} | {"done", "running", "failed", "missing"}
    order = ("done", "outdated", "damaged", "running", "failed", "stopped", "missing")
    columns = [state for state in order if state in present]
    rows = [["stage", *(runs_status.WORDS.get(state, state) for state in columns)]]
    for stage in STAGES:
        counts = Counter(status.state for run, status in statuses.items() if run.stage == stage)
        if counts:
            rows.append([stage, *(str(counts[state] or "-") for state in columns)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    for run, status in statuses.items():
        if status.state in ("running", "stopped", "failed", "damaged"):
            step = training_step(run) if status.state in ("running", "stopped") else None
            lines.append(f"{status.state}: {run.stage} {run.label}: {f'{step}; ' if step else ''}{status.error}")
    return "\n".join([*lines, _describe_remaining(planned, statuses)])


def _describe_remaining(planned: list[Run], statuses: dict[Run, runs_status.Status]) -> str:
    """Returns one sentence: how many runs are to do, how long they take, and who works on them."""
    todo = {run: status.state for run, status in statuses.items() if status.state != "done"}
    if not todo:
        return f"All {len(planned)} runs are done."
    lock = files.home() / "runs" / ".command.lock"
    who = locks.holder(lock)
    since = modified(lock) if who else time.time()
    failed = {  # in this run of the study; what failed before is tried again
        run
        for run, state in todo.items()
        if state in ("failed", "stopped") and modified(files.home() / "logs" / f"{run.name}.txt") > since
    }
    cannot = failed | blocked(planned, failed)
    possible = {run: state for run, state in todo.items() if run not in cannot}
    spent = {
        run: time.time() - modified(files.staging_dir(run.name) / "lock")  # written when it is taken
        for run, state in possible.items()
        if state == "running" and locks.holder(files.staging_dir(run.name) / "lock")
    }
    places = snakemake.read_options([]).places  # that the default profile allows
    left = describe_time_left(*time_left(planned, possible, spent, places, len(process.gpus())))
    work = f"{who} is running a study in this project" if who else "no study is running"
    return f"{len(todo)} of {len(planned)} runs are to do{', ' + left if left else ''}; {work}."

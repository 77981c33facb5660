"""The progress of a study: what has ended, what is running at which step and loss, how much time is left.

`status_table` describes it from any process (`studykit status`); `display` shows it while Snakemake runs.
"""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from studykit.runs import files, locks, process
from studykit.runs import status as runs_status
from studykit.runs.manifest import MANIFEST, Manifest, read_manifest
from studykit.runs.text import aligned, format_duration
from studykit.study.parameters import STAGES
from studykit.study.plan import Run
from studykit.workflow import snakemake
from studykit.workflow.steps import modified, training_step
from studykit.workflow.time_left import describe_time_left, time_left


def describe_shares(planned: Iterable[Run], since: float) -> str:
    """Returns the work of the runs finished after `since` (a time of day) by stage, the longest first; "" without any.

    It is the time inside the runs: the starts of notebooks, and their figures, are not in it.
    """
    spent: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for run, manifest in finished_since(planned, since):
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


def finished_since(planned: Iterable[Run], since: float) -> list[tuple[Run, Manifest]]:
    """Returns the runs that were finished after `since`, a time of day, with their manifests."""
    found = [(run, read_manifest(files.home() / run.dir)) for run in planned]
    return [
        (run, manifest)
        for run, manifest in found
        if isinstance(manifest, Manifest) and modified(files.home() / run.dir / MANIFEST) >= since
    ]


def blocked(planned: list[Run], failed: set[Run]) -> set[Run]:
    """Returns the runs that need a failed one, directly or not. `planned` is in an order in which runs are made."""
    found: set[Run] = set()
    for run in planned:
        if run not in failed and any(need in failed or need in found for need in run.needs):
            found.add(run)
    return found


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
    lines = aligned(rows)
    for run, status in statuses.items():
        if status.state in ("running", "stopped", "failed", "damaged"):
            step = training_step(run) if status.state in ("running", "stopped") else None
            lines.append(f"{status.state}: {run.stage} {run.label}{f': {step}' if step else ''}")
            lines += [f"    {line}" for line in textwrap.wrap(status.error, 76)]
    return "\n".join([*lines, _describe_remaining(planned, statuses)])


def run_data(run: Run, status: runs_status.Status) -> dict[str, Any]:
    """Returns what is known of a run, for programs that read it."""
    step = training_step(run) if status.state in ("running", "stopped") else None
    return {
        "run": run.name,
        "state": status.state,
        "why": status.error,
        "seconds": status.manifest.seconds if status.manifest else None,
        "step": {"step": step.step, "steps": step.steps, "loss": step.loss, "share": step.share} if step else None,
    }


def status_data(planned: list[Run]) -> dict[str, Any]:
    """Returns the runs of a study by state, those that are not done, and the time left, for programs that read it."""
    statuses = runs_status.study_status(planned)
    seconds, complete, who = _remaining(planned, statuses)
    return {
        "runs": dict(Counter(status.state for status in statuses.values())),
        "not_done": [run_data(run, status) for run, status in statuses.items() if status.state != "done"],
        "seconds_left": round(seconds, 1),
        "seconds_left_cover_every_run": complete,
        "command": who,
    }


def _describe_remaining(planned: list[Run], statuses: dict[Run, runs_status.Status]) -> str:
    """Returns two sentences: how many runs are to do and how long they take; and who works on them."""
    count = sum(status.state != "done" for status in statuses.values())
    if not count:
        return f"All {len(planned)} runs are done."
    seconds, complete, who = _remaining(planned, statuses)
    left = describe_time_left(seconds, complete)
    work = f"{who} is running a study in this project" if who else "No study is running"
    return f"{count} of {len(planned)} runs are to do{', ' + left if left else ''}.\n{work}."


def _remaining(planned: list[Run], statuses: dict[Run, runs_status.Status]) -> tuple[float, bool, str | None]:
    """The seconds that the possible runs take, whether they cover all of these, and who works on them."""
    todo = {run: status.state for run, status in statuses.items() if status.state != "done"}
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
    return *time_left(planned, possible, spent, places, len(process.gpus())), who

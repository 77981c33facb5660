"""The time that a study still needs, from its finished runs, from earlier runs on the same base, and from priors.

A run costs its amount of work (see `work`) times the seconds that a unit of it takes. These are, the best first:

1. the mean of the finished runs of the same stage in this plan;
2. that of its trainings that are running, by what they took for their steps until now;
3. that of the same stage in other studies on the same base;
4. the prior of the stage, times how much slower or faster than its prior the work that is known was.

Where nothing is known of any stage, priors hold for the quickstart's tiny base and one that the study trains itself;
how long a published base takes is then unknown. The runs are then laid out in time as Snakemake would start them: each
when its inputs are there and a place is free.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from studykit.runs import files, process
from studykit.runs.manifest import MANIFEST, read_attempt, read_manifest
from studykit.runs.store import COPY
from studykit.runs.text import format_duration
from studykit.study import methods
from studykit.study.bases import TINY_BASES
from studykit.study.plan import Run
from studykit.workflow.steps import modified, training_step

STARTUP = 3.0  # seconds that a notebook takes to start, until some have ended
FUSED = 2  # completions of a fusion take about so many times as long as those of one adapter
LONGEST_DRAWING = 600  # seconds
MIN_SHARE = 0.1  # share of a training from which its own speed tells when it ends, and how fast the others are
PRIORS = {  # seconds per unit of work, of the order of a quickstart on two cores; earlier runs replace them
    "base_model": 0.0090, "data": 5.0, "adapter": 0.0059, "fusion": 0.0070, "evaluate": 3.4, "fusion_attention": 0.009,
    "compare": 10.0, "gather": 10.0,
}  # fmt: skip


def work(stage: str, params: Mapping[str, Any]) -> float:
    """Returns the amount of work of a run, in units of its stage.

    A unit is an example of training (over both phases of AdvFusion), a set of completions of one adapter, a sample read
    of one phase, or the run; a base that is not trained is one unit.
    """
    if stage == "base_model" and params["base"] != "scratch":
        return 1.0
    if stage in ("adapter", "fusion", "base_model"):
        phases = 2 if params.get("method") == "advfusion" else 1
        return phases * params["steps"] * params["batch_size"] * params.get("gradient_accumulation", 1)
    amount = max(1, len(params.get("trained_runs", ()))) * params.get("samples", 1)
    if stage in ("evaluate", "fusion_attention"):
        method = methods.parse(params["method"])
        amount *= FUSED * len(methods.PHASES[method.name]) if method.members else 1
    return amount


def time_left(
    planned: list[Run],
    states: Mapping[Run, str],
    spent: Mapping[Run, float],
    at_a_time: int,
    gpus: int = 0,
    startup: float = STARTUP,
) -> tuple[float, bool]:
    """Returns the seconds until everything is done, and whether they cover every run.

    Args:
        states: the runs that remain, by state; "running" is one of them.
        spent: seconds since each running run was started.
        at_a_time: number of runs at a time; of those that use a GPU at most `gpus`, if there are any.
        startup: seconds that a notebook takes to start.
    """
    paces = {run: pace for run in states if states[run] == "running" and (pace := _pace(run, spent.get(run, 0.0)))}
    speeds, complete = unit_seconds(planned, {run: whole for run, (whole, _) in paces.items()}), True
    running: dict[Run, float] = {}
    waiting: dict[Run, float] = {}
    for run, state in states.items():
        done, unit = spent.get(run, 0.0), speeds.get(run.stage)
        remaining = paces[run][1] if run in paces else None
        if remaining is None:
            complete = complete and unit is not None
            whole = unit * work(run.stage, run.params) + startup if unit else 0.0
            remaining = max(0.1 * whole, whole - done)
        (running if state == "running" else waiting)[run] = remaining
    return makespan(running | waiting, len(running), at_a_time, gpus), complete


def makespan(seconds: Mapping[Run, float], running: int, at_a_time: int, gpus: int = 0) -> float:
    """Returns when the last run ends if each starts once its inputs are there and a place is free.

    Args:
        seconds: how long each run takes; the first `running` of them have started.
        at_a_time: number of places, of which runs that use a GPU get at most `gpus`, if there are any.
    """
    places = [0.0] * max(1, min(at_a_time, len(seconds)))
    gpu_places = [0.0] * max(1, min(gpus or len(places), len(places)))
    order = {run: at for at, run in enumerate(seconds)}
    missing = {run: {need for need in run.needs if need in order} for run in seconds}
    ends: dict[Run, float] = {}
    ready = [(0.0, order[run], run) for run in seconds if order[run] < running or not missing[run]]
    heapq.heapify(ready)
    followers: dict[Run, list[Run]] = {}
    for run, needs in missing.items():
        for need in needs if order[run] >= running else ():
            followers.setdefault(need, []).append(run)
    while ready:
        since, _, run = heapq.heappop(ready)
        takes = [places, gpu_places] if run.stage in process.GPU_STAGES else [places]
        ends[run] = max(since, *(heapq.heappop(pool) for pool in takes)) + seconds[run]
        for pool in takes:
            heapq.heappush(pool, ends[run])
        for follower in followers.get(run, ()):
            missing[follower].discard(run)
            if not missing[follower]:
                since = max(ends[need] for need in follower.needs if need in order)
                heapq.heappush(ready, (since, order[follower], follower))
    return max(ends.values(), default=0.0)


def unit_seconds(planned: Iterable[Run], running: Mapping[Run, float] | None = None) -> dict[str, float]:
    """Returns the seconds per unit of work of every stage of a plan of which they can be told.

    Args:
        running: the seconds that running trainings take as a whole, by their own speed.
    """
    running = running or {}
    by_stage: dict[str, list[Run]] = {}
    for run in planned:
        by_stage.setdefault(run.stage, []).append(run)
    known: dict[str, float] = {}
    for stage, runs in by_stage.items():
        found = [measured for run in runs if (measured := _measured(files.home() / run.dir))]
        if not found:
            found = [(running[run], work(stage, run.params), _base(run.params)) for run in runs if run in running]
        if not found:
            others = (_measured(file.parent) for file in (files.home() / "runs" / stage).glob(f"*/{MANIFEST}"))
            found = [measured for measured in others if measured and measured[2] == _base(runs[0].params)]
        if found:
            known[stage] = sum(seconds for seconds, _, _ in found) / sum(amount for _, amount, _ in found)
    bases = {run.params["base"] for run in by_stage.get("base_model", ())}
    is_trained, is_tiny = "scratch" in bases, not bases.isdisjoint(TINY_BASES)
    amounts = {
        stage: sum(work(stage, run.params) for run in runs)
        for stage, runs in by_stage.items()
        if stage in process.GPU_STAGES and (stage != "base_model" or is_trained)
    }
    ratio = _ratio(known, amounts) or (1.0 if is_tiny else None)
    for stage in by_stage:
        scale = ratio if is_tiny or stage in process.GPU_STAGES else 1.0  # the others do not use a published base
        if stage not in known and scale is not None:
            known[stage] = scale * PRIORS[stage]
    return known


def _ratio(known: Mapping[str, float], amounts: Mapping[str, float]) -> float | None:
    """How much slower than its prior the known work with the base was, each stage by its share of the plan."""
    stages = known.keys() & amounts.keys()
    prior = sum(PRIORS[stage] * amounts[stage] for stage in stages)
    return sum(known[stage] * amounts[stage] for stage in stages) / prior if prior else None


def _base(params: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells whether two runs have the same base, or bases of the same size."""
    return tuple(params.get(name) for name in ("base", "hidden_size", "layers"))


def drawing_seconds(directory: Path) -> float:
    """Returns how long the notebook of a finished run went on after it had published, to draw its figures.

    Snakemake touches the manifest at the end, but not its copy. A notebook that was shown again on another day tells
    nothing.
    """
    seconds = round(modified(directory / "notebook.ipynb") - modified(directory / COPY))
    return seconds if 0 < seconds < LONGEST_DRAWING else 0


def _measured(directory: Path) -> tuple[float, float, tuple[Any, ...]] | None:
    """The seconds, the amount of work and the base of a finished run."""
    if found := _read(directory, modified(directory / MANIFEST)):
        seconds, amount, base = found
        return seconds + drawing_seconds(directory), amount, base
    return None


@lru_cache(maxsize=4096)
def _read(directory: Path, _written: float) -> tuple[float, float, tuple[Any, ...]] | None:
    """The seconds, the amount of work and the base of a finished run; it is read again when its manifest changes."""
    manifest = read_manifest(directory)
    if manifest is None:
        return None
    try:
        return manifest.seconds, work(manifest.stage, manifest.params), _base(manifest.params)
    except (KeyError, TypeError, ValueError):  # a run of another version, with other parameters
        return None


def _pace(run: Run, spent: float) -> tuple[float, float] | None:
    """Seconds that a training takes as a whole and still needs, by its own speed, earlier attempts counted; None where
    too little is done."""
    step = training_step(run)
    if step is None or step.share < MIN_SHARE:
        return None
    attempt = read_attempt(files.staging_dir(run.name))
    since = min(spent, time.time() - step.written)  # what has been done since the checkpoint is not known
    whole = ((attempt.seconds if attempt else 0.0) + spent - since) / step.share
    return whole, max(1.0, whole * (1 - step.share) - since)


def describe_time_left(seconds: float, complete: bool) -> str:
    """Returns "about 3 min left", that it is not known where some run's time is not, or "" for less than a second."""
    if not complete:
        return "time left not known yet"
    return f"about {format_duration(seconds, rounded=True)} left" if seconds >= 1 else ""

"""The costs of a study's runs, read from the files that they published: parameters, time, memory, fusion weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from studykit.data.rows import DataRun
from studykit.data.splits import SPLITS
from studykit.errors import UserError
from studykit.evaluation.results import Interval, MethodCost, OwnAttention, StageTime
from studykit.evaluation.statistics import mean_sd, student_t
from studykit.runs import files
from studykit.runs.manifest import Manifest, finished_run
from studykit.study.parameters import STAGES
from studykit.training.result import TrainingResult


def read_trainings(run: str | Path) -> list[TrainingResult]:
    """Reads the training results of an adapter run (one) or of a fusion run (one per phase).

    Raises UserError if there is none.
    """
    trainings = [TrainingResult.read(file) for file in sorted(Path(run).glob("**/training.json"))]
    if not trainings:
        raise UserError(f"{run} has no training.json; a finished run of 02_adapter or 03_fusion is needed.")
    return trainings


def member_runs(run: str | Path) -> list[str]:
    """Returns the adapter runs that a fusion run fuses, or that an adapter could start from."""
    file = Path(run, "members.json")
    return list(files.read_json(file).values()) if file.exists() else finished_run(run).params.get("start") or []


def method_cost(method: str, trained_runs: Sequence[str]) -> MethodCost:
    """Returns the cost of one training of a method, as a mean over its runs (the seeds); the base has no runs."""
    of_runs = [read_trainings(run) for run in trained_runs]
    of_members = [[t for member in member_runs(run) for t in read_trainings(member)] for run in trained_runs]

    def mean_sum(trainings_of_runs: list[list[TrainingResult]], field: str) -> float | None:
        sums = [sum(getattr(training, field) for training in trainings) for trainings in trainings_of_runs]
        return float(np.mean(sums)) if sums else None

    trainings = [training for of_run in of_runs for training in of_run]
    return MethodCost(
        method=method,
        parameters=max((training.trainable for training in trainings), default=0),
        steps=mean_sum(of_runs, "steps"),
        seconds=mean_sum(of_runs, "seconds"),
        cpu_seconds=mean_sum(of_runs, "cpu_seconds"),
        members_seconds=mean_sum(of_members, "seconds") if any(of_members) else None,
        members_cpu_seconds=mean_sum(of_members, "cpu_seconds") if any(of_members) else None,
        memory_mb=max((training.peak_memory_mb for training in trainings), default=None),
    )


def labelled_rows(evaluations: Mapping[str, str], target: str) -> dict[str, int]:
    """Counts the target's rows that a study used, by split: those that train, that select steps, and that are tested.

    Args:
        evaluations: evaluate runs of one data run by method; at most `limit` test rows are used.
    """
    params = finished_run(next(iter(evaluations.values()))).params
    data = DataRun(params["data"])
    counts = {split: len(data.rows(target, split)) for split in SPLITS}
    counts |= {"valid": 0} if data.is_cross_validated(target) else {}
    return counts | {"test": min(counts["test"], params["limit"] or counts["test"])}


def own_attention(attention: Mapping[str, str], confidence: float = 0.95) -> list[OwnAttention]:
    """Returns the own adapter's share of the fusion weight per method and state.

    Args:
        attention: fusion_attention runs (notebook 05) by method, whose `summary.json` is read.
        confidence: of the interval over the test rows.

    Raises UserError that names the file or the key that is missing.
    """
    rows = []
    for method, run in attention.items():
        file = Path(run, "summary.json")
        try:
            summary = files.read_json(file)
            states = list(summary["phases"].items())
            for state, values in states:
                own, before = np.array(values["own_weight"]), np.array(states[0][1]["own_weight"])
                error, change, change_sd = values["own_change_error"], *mean_sd(own - before)
                half = error and student_t(0.5 + confidence / 2, summary["clusters"] - 1) * error
                row = OwnAttention(
                    method=method,
                    phase=state,
                    own_weight=own.mean(),
                    own_share=np.mean(values["own_share"]),
                    by_seed=list(own),
                    change=change,
                    change_sd=change_sd if len(own) > 1 else None,
                    change_interval=None if half is None else Interval(low=change - half, high=change + half),
                    samples=summary["samples"],
                    tokens=summary["tokens"],
                    empty_slot=state.endswith(", masked") and summary["mask"] == "zero",
                )
                rows.append(row)
        except OSError:
            raise UserError(f"{file} does not exist; a finished run of 05_fusion_attention is needed.") from None
        except KeyError as missing:
            raise UserError(f"{file} has no {missing}; run 05_fusion_attention again.") from None
    return rows


def read_manifests(runs: Iterable[str]) -> dict[str, Manifest]:
    """Reads the manifests of runs, and of all runs that they were made from, by directory."""
    manifests: dict[str, Manifest] = {}
    waiting = list(runs)
    while waiting:
        run = waiting.pop()
        if run not in manifests:
            manifests[run] = finished_run(run).manifest
            waiting += manifests[run].inputs
    return manifests


def stage_times(runs: Iterable[str]) -> list[StageTime]:
    """Returns the wall time of runs, and of all runs that they were made from, by stage, and last of all together."""
    manifests = list(read_manifests(runs).values())

    def total(stage: str, of_stage: list[Manifest]) -> StageTime:
        seconds = [manifest.seconds for manifest in of_stage]
        return StageTime(
            stage=stage,
            runs=len(seconds),
            seconds=sum(seconds),
            slowest=max(seconds),
            memory_mb=max(manifest.peak_memory_mb for manifest in of_stage),
        )

    by_stage = {stage: [manifest for manifest in manifests if manifest.stage == stage] for stage in STAGES}
    return [total(stage, part) for stage, part in by_stage.items() if part] + [total("all", manifests)]

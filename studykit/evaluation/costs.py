"""What a study's runs cost and rely on, read from what they left behind: parameters, time, memory, fusion weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studykit.errors import UserError
from studykit.evaluation.statistics import mean_sd
from studykit.runs import files
from studykit.runs.manifest import Manifest, finished_run
from studykit.study.methods import PHASE_1
from studykit.study.parameters import STAGES
from studykit.training.result import TrainingResult


def trainings(run: str | Path) -> list[TrainingResult]:
    """Returns the training results of an adapter run (one) or a fusion run (one per phase); UserError if there is none."""
    found = [TrainingResult.read(file) for file in sorted(Path(run).glob("**/training.json"))]
    if not found:
        raise UserError(f"{run} has no training.json; a finished run of 02_adapter or 03_fusion is needed.")
    return found


def members(run: str | Path) -> list[str]:
    """The adapter runs that a fusion run stands on."""
    file = Path(run, "members.json")
    return list(files.read_json(file).values()) if file.exists() else []


def cost(method: str, trained: Sequence[str]) -> dict[str, Any]:
    """What one training of a method takes, as a mean over its runs (the seeds).

    parameters: trained in it; steps and seconds: of all phases; members_seconds: of the adapters that a fusion needs
    first; memory_mb: the peak of any. The base, which trains nothing, has no runs.
    """
    own = [trainings(run) for run in trained]
    parts = [[t for member in members(run) for t in trainings(member)] for run in trained]

    def mean(of_runs: Iterable[float]) -> float | None:
        values = list(of_runs)
        return float(np.mean(values)) if values else None

    return {
        "method": method,
        "parameters": max((t.trainable for of_run in own for t in of_run), default=0),
        "steps": mean(sum(t.steps for t in of_run) for of_run in own),
        "seconds": mean(sum(t.seconds for t in of_run) for of_run in own),
        "members_seconds": mean(sum(t.seconds for t in of_run) for of_run in parts) if any(parts) else None,
        "memory_mb": max((t.peak_memory_mb for of_run in own for t in of_run), default=None),
    }


def own_attention(attention: Mapping[str, str]) -> list[dict[str, Any]]:
    """The own adapter's share per method and phase, from the `summary.json` of fusion_attention runs (notebook 05).

    Read are `phases` (phase -> `own`, the mean fusion weight on the target's adapter, and `own_share`, norm-weighted; a
    number per seed each), `mask`, `samples` and `tokens`. UserError that names the file or the key that is missing.
    """
    rows = []
    for method, place in attention.items():
        file = Path(place, "summary.json")
        try:
            found = files.read_json(file)
            for phase, values in found["phases"].items():
                (own, sd), (share, _) = mean_sd(values["own_weight"]), mean_sd(values["own_share"])
                rows.append({"method": method, "phase": phase, "own": own, "sd": sd if len(values["own_weight"]) > 1 else None,
                             "own_share": share, "by_seed": values["own_weight"],
                             **{name: found[name] for name in ("samples", "tokens")},
                             "empty slot": phase == PHASE_1.title and found["mask"] == "zero"})  # fmt: skip
        except OSError:
            raise UserError(f"{file} does not exist; a finished run of 05_fusion_attention is needed.") from None
        except KeyError as missing:
            raise UserError(f"{file} has no {missing}; make the run again with 05_fusion_attention.") from None
    return rows


def named(value: Any) -> list[str]:
    """Every run directory named anywhere in parameters (mappings and lists of paths, None)."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return [value] if isinstance(value, str) else [place for part in value or () for place in named(part)]


def manifests(places: Iterable[str]) -> dict[str, Manifest]:
    """Returns the manifests of runs and of all runs that they read, at any depth, by directory."""
    found: dict[str, Manifest] = {}
    waiting = list(places)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found[place] = finished_run(place).manifest
            waiting += found[place].inputs
    return found


def wall_time(places: Iterable[str]) -> list[dict[str, Any]]:
    """Runs, seconds and memory per stage of runs and all that they stand on, in the stages' order; then of all."""
    made = list(manifests(places).values())

    def row(stage: str, of_stage: list[Manifest]) -> dict[str, Any]:
        seconds = [m.seconds for m in of_stage]
        return {"stage": stage, "runs": len(seconds), "seconds": sum(seconds), "slowest": max(seconds),
                "memory_mb": max(m.peak_memory_mb for m in of_stage)}  # fmt: skip

    parts = {stage: [m for m in made if m.stage == stage] for stage in STAGES}
    return [row(stage, part) for stage, part in parts.items() if part] + [row("all", made)]

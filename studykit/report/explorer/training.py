"""Attention while fusions train, for the explorer's view *Training*: what their logs hold at each validation.

training_of({"advfusion_zero": ["runs/fusion/lua-advfusion_zero-s0-..."]})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studykit.runs.manifest import finished_run
from studykit.training.result import read_phase_results

DIGITS = 4  # of a weight


def training_of(runs: Mapping[str, Sequence[str | Path]]) -> list[dict[str, Any]]:
    """Returns the trainings of fusion runs, ready for JSON; those without looks at their attention are left out.

    Args:
        runs: fusion runs by the name of their method.
    """
    trainings = []
    for method, of_method in runs.items():
        for run in map(finished_run, of_method):
            results, start = read_phase_results(run.dir, run.params["method"]), 0
            looks: list[dict[str, Any]] = []
            for phase, result in results.items():
                looks += [
                    {
                        "phase": phase,
                        "step": start + entry["step"],
                        "loss": round(entry["eval_loss"], DIGITS),
                        "weights": np.round(entry["attention"]["weights"], DIGITS).ravel().tolist(),
                    }
                    for entry in result.evaluations
                    if "attention" in entry
                ]
                start += result.steps
            members = list(run.params["members"])
            if looks:
                layers = [f"L{i + 1}" for i in range(np.size(looks[0]["weights"]) // len(members))]
                about = {"label": f"{method}, seed {run.params['seed']}", "members": members, "layers": layers}
                trainings.append(about | {"target": run.params["target"], "looks": looks})
    return trainings

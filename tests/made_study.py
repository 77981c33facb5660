"""A study whose evaluations are made by hand: known completions of each method, for tests of what reads samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from studykit.evaluation.samples import Sample
from studykit.study.family import StudyPlan, load_plan
from tests import made_runs
from tests.made_scores import checkpoint, scores
from tests.project import STUDY

METHODS = ("base", "bottleneck", "lora")
Text = Callable[[str, int | None, int], str]  # of a method, a seed and the number of a row


def evaluated(
    home: Path,
    text: Text,
    rows: int = 12,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0, 1),
    change: str = "",
    group: int = 1,
    prompt: str = "-- a task\nfunction f(n)",
) -> StudyPlan:
    """Plans the study `tiny` in a project's directory and publishes its evaluations.

    change: lines added to the study file. group: rows that share a problem.
    """
    study = STUDY.replace("[base, bottleneck]", f"[{', '.join(methods)}]").replace("seeds: [0]", f"seeds: {[*seeds]}")
    (home / "params").mkdir(exist_ok=True)
    (home / "params/tiny.yaml").write_text(study + change)
    planned = load_plan("params/tiny.yaml", home)
    for method, place in planned.result.params["evaluations"].items():
        run, of_seeds = home / place, [None] if method == "base" else seeds
        (run / "samples").mkdir(parents=True, exist_ok=True)
        checkpoints = [checkpoint(seed, np.arange(rows) % 2 == 0, np.ones(rows)) for seed in of_seeds]
        fields = {"method": method, "groups": [f"g{n // group}" for n in range(rows)]}
        (run / "scores.json").write_text(scores(checkpoints, **fields).model_dump_json())
        for seed, one in zip(of_seeds, checkpoints, strict=True):
            about = {"sample": 0, "finished": True, "prompt_cut": False, "nats": None, "tokens": None}
            samples = [
                Sample(id=f"r{n}", prompt=f"{prompt} -- {n}", reference=f"return {n}", prediction=text(method, seed, n),
                       status=None, stderr=None, **about)
                for n in range(rows)
            ]  # fmt: skip
            lines = [json.dumps(asdict(sample)) + "\n" for sample in samples]
            (run / "samples" / f"{one.file_stem}.jsonl").write_text("".join(lines))
        params = next(run.params for run in planned.runs if run.dir == place)
        made_runs.finish(run, "evaluate", params)
    return planned

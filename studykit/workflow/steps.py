"""The step that a training has reached, by its newest checkpoint.

Runs and checkpoints may vanish while they are read: a training prunes its checkpoints. That is not an error here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from studykit.runs import files
from studykit.study.methods import PHASES
from studykit.study.plan import Run

ADVFUSION = PHASES["advfusion"]  # the only method whose progress is counted over several phases


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

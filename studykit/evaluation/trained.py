"""The checkpoints that the evaluation of one method scores: one per seed and phase.

AdvFusion has three per seed: after phase 1, scored under the mask that it was trained with; the same weights with the
masked member restored; and after phase 2. So what restoring does and what the steps of phase 2 do are told apart.
Without a mask there are two. Everything else has one per seed, and the base has one in all. The last checkpoint of a
seed is the method's own score. All checkpoints are loaded onto one base in memory, one after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from studykit.runs.manifest import finished_run
from studykit.study.methods import PHASES, RESTORED
from studykit.study.parameters import EvaluateParams
from studykit.training.adapters import require_base, use_head
from studykit.training.fusions import load_trained, masked_afterwards, trained_phases
from studykit.training.peft_baselines import unload
from studykit.tuners import CompositionModel, fusion_members


@dataclass(frozen=True)
class EvaluatedCheckpoint:
    """A checkpoint to score, with the mask under which it is scored."""

    name: str  # "base", "trained", or the title of the phase: "phase 1", "phase 1, restored", "phase 2"
    seed: int | None = None
    run: str | None = None  # the directory of the trained run; None for the base itself
    phase: str | None = None  # the directory of the phase inside the run; None for a training in one go
    masked: tuple[str, ...] = ()  # members without influence
    mask: str = "zero"  # how they are masked, see `fusion_members`

    @property
    def file_stem(self) -> str:
        """Returns the name of its files: base, s0, s0-phase1, s0-phase1-restored ..."""
        state = "restored" if self.name == RESTORED else None
        return "-".join(part for part in (f"s{self.seed}" if self.run else "base", self.phase, state) if part)


def evaluated_checkpoints(p: EvaluateParams) -> list[EvaluatedCheckpoint]:
    """Returns the checkpoints that the parameters of notebook 04 name: seed by seed, the phases in their order.

    Raises UserError for a run that is unfinished, or was trained on another base or on a base in other numbers than the
    parameters say.
    """
    require_base(p.base, p.trained_runs, p.trained_quantization or p.quantization)
    checkpoints = [] if p.trained_runs else [EvaluatedCheckpoint("base")]
    for seed, run in zip(p.seeds, p.trained_runs, strict=True):
        params = finished_run(run).params
        phases = trained_phases(params["method"]) if params["method"] in PHASES else ()
        if len(phases) < 2:  # an adapter has none, other compositions have one
            checkpoints.append(EvaluatedCheckpoint("trained", seed, run))
            continue
        for phase in phases:
            masked = masked_afterwards(params, phase)
            checkpoints.append(EvaluatedCheckpoint(phase.title, seed, run, phase.key, masked, params["mask"]))
            if masked:
                checkpoints.append(EvaluatedCheckpoint(RESTORED, seed, run, phase.key))
    return checkpoints


@contextmanager
def loaded(base: PreTrainedModel, checkpoint: EvaluatedCheckpoint) -> Iterator[Any]:
    """Loads a checkpoint onto the base and folds a fusion by attention; afterwards the base is bare again."""
    if checkpoint.run is None:
        yield base
        return
    model: Any = load_trained(base, checkpoint.run, checkpoint.phase)
    if checkpoint.masked:
        fusion_members(model, checkpoint.masked, checkpoint.mask)
    fold(model)
    try:
        yield model
    finally:
        unload(model)
        use_head(base, None)


def fold(model: torch.nn.Module) -> bool:
    """Folds the active fusion into fewer matrices, which generates the same text faster, and returns whether it did.

    Only a fusion by attention can be folded; any other model stays as it is.
    """
    tuner = getattr(model, "base_model", None)
    return isinstance(tuner, CompositionModel) and bool(tuner.fold_fusion())

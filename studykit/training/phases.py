"""The phases in which a fusion is trained.

AdvFusion (arXiv 2307.07854) trains phase 1 with the target's member masked, and phase 2 with it restored. AdapterFusion
trains once and may take as many steps as both phases together, so that budgets are equal: the published comparison gave
AdvFusion twice the steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft import PeftModel

from studykit.data.rows import DataRun
from studykit.study.methods import PEFT_COMPOSITIONS, UNTRAINED, Phase, has_value_matrix
from studykit.study.training_parameters import FusionParams
from studykit.training.batches import encode_rows
from studykit.training.fusions import MASKED_PHASES, masked_members, save_fusion, trained_phases
from studykit.training.result import TrainingResult
from studykit.training.train import train
from studykit.training.trainer import AdamState
from studykit.tuners import fusion_members


@dataclass(frozen=True)
class TrainingPhase:
    """One phase of a composition with what it is trained on."""

    phase: Phase  # its row in the table of phases
    masked: tuple[str, ...]  # names of the members that are masked while it trains
    mode: str  # zero | exclude: how they are masked
    languages: tuple[str, ...]  # languages whose rows it trains on
    steps: int  # optimizer steps; 0: nothing is trained


def training_phases(p: FusionParams) -> list[TrainingPhase]:
    """Returns the phases that the parameters of notebook 03 describe, in the order in which they are trained."""
    phases = trained_phases(p.method)
    if len(phases) == 1:
        steps = 0 if p.method in UNTRAINED else 2 * p.steps
        return [TrainingPhase(phases[0], (), "zero", (p.target,), steps)]
    described = []
    for phase in phases:
        on_all = phase.key in MASKED_PHASES and p.phase1_data == "all"
        languages = tuple(p.members) if on_all else (p.target,)
        mode = "zero" if p.mask == "none" else p.mask
        described.append(TrainingPhase(phase, masked_members(p.model_dump(), phase), mode, languages, p.steps))
    return described


def train_phases(
    model: PeftModel, tokenizer, p: FusionParams, limits: tuple[int, int], run
) -> Iterator[tuple[TrainingPhase, TrainingResult]]:
    """Trains phase after phase and yields each with its result, when the model has its weights and its mask is set.

    A killed run that is continued loads what it had finished, so it yields the same in the same order.

    Args:
        limits: max_prompt_tokens, max_target_tokens of the data.
        run: the open run; its checkpoints survive a kill, and the files in its path are published.
    """
    adam_state = None
    for phase in training_phases(p):
        result, adam_state = train_phase(model, tokenizer, phase, p, limits, run, adam_state)
        if not p.carry_optimizer:
            adam_state = None
        yield phase, result


def train_phase(
    model: PeftModel,
    tokenizer,
    phase: TrainingPhase,
    p: FusionParams,
    limits: tuple[int, int],
    run,
    adam_state: AdamState | None = None,
) -> tuple[TrainingResult, AdamState]:
    """Trains one phase and saves it to `<run>/<phase>/`.

    Args:
        adam_state: AdamW's state at the end of phase 1, for `carry_optimizer`: the published behaviour, in which one
            Trainer ran both phases.

    Returns: the result of the training, and AdamW's state at its end.
    """
    if p.method not in PEFT_COMPOSITIONS:
        fusion_members(model, masked=list(phase.masked), mode=phase.mode)
    data = DataRun(p.data)
    rows = [row for language in phase.languages for row in data.rows(language, "train")]
    result, adam_state = train(
        model,
        tokenizer,
        encode_rows(rows, tokenizer, *limits),
        encode_rows(data.rows(p.target, "valid"), tokenizer, *limits),
        p,
        steps=phase.steps,
        trainer_state_dir=run.checkpoints / phase.phase.key,
        seed=p.seed,
        value_regularizer=p.value_regularizer if has_value_matrix(p.method, p.variant) else 0.0,
        adam_state=adam_state,
    )
    save_fusion(model, run.path(phase.phase.key))
    result.write(run.path(phase.phase.key, "training.json"))
    return result, adam_state

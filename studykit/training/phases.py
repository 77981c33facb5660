"""The phases in which a fusion is trained.

AdvFusion (arXiv 2307.07854) trains phase 1 with the target's member masked, and phase 2 with it restored. AdapterFusion
trains once and may take as many steps as both phases together, so that budgets are equal: the published comparison gave
AdvFusion twice the steps. `phases` gives each phase a mask, steps, rate, rows and patience of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from peft import PeftModel
from transformers import TrainerCallback

from studykit.data.rows import DataRun, Row, folds, halves, validation_rows
from studykit.errors import UserError
from studykit.runs.manifest import finished_run
from studykit.study.fusion_parameters import FusionParams, PhaseParams
from studykit.study.methods import PEFT_COMPOSITIONS, UNTRAINED, Phase, has_value_matrix
from studykit.study.training_parameters import WITHOUT_FOLD
from studykit.training.adapters import use_head
from studykit.training.batches import Collator, encode_rows
from studykit.training.cross_fit import fold_switch, with_folds
from studykit.training.cross_validation import fold_curve
from studykit.training.fusions import fusion_head, masked_members, save_fusion, trained_phases
from studykit.training.probes import GradientProbe, full_precision_twin
from studykit.training.result import TrainingResult
from studykit.training.rounding import RoundedWeights
from studykit.training.train import TrainingSettings, free_state, last_checkpoint, optimizer_steps, train
from studykit.training.trainer import AdamState
from studykit.tuners import fusion_members

NEXT_ORDER = 1_000_003  # what a phase's number adds to the seed, so that its rows come in another order


@dataclass(frozen=True)
class TrainingPhase:
    """One phase of a composition with what it is trained on."""

    phase: Phase  # its row in the table of phases
    masked: tuple[str, ...]  # names of the members that are masked while it trains
    mode: str  # zero | exclude: how they are masked
    languages: tuple[str, ...]  # languages whose rows it trains on
    steps: int  # optimizer steps; 0: nothing is trained
    epochs: float | None  # passes over its rows in place of the steps
    learning_rate: float  # at its peak
    patience: int  # evaluations in a row without a better loss after which it stops; 0: it never stops early
    seed: int  # decides the order of its rows


def training_phases(p: FusionParams) -> list[TrainingPhase]:
    """Returns the phases that the parameters of notebook 03 describe, in the order in which they are trained."""
    phases = trained_phases(p.method)
    equal = 2 if len(phases) == 1 and p.budget == "equal" else 1
    budget = 0 if p.method in UNTRAINED else equal  # times `steps`
    described = []
    for number, phase in enumerate(phases):
        own = p.phases[number] if p.phases else PhaseParams()
        rows = own.rows or (p.phase1_data if len(phases) > 1 and number == 0 else "target")
        described.append(
            TrainingPhase(
                phase,
                masked=masked_members(p.model_dump(), phase),
                mode="exclude" if p.mask == "exclude" else "zero",
                languages=tuple(p.members) if rows == "all" else (p.target,),
                steps=budget * p.steps if own.steps is None else own.steps,
                epochs=budget * p.epochs if budget and p.epochs and own.steps is None else None,
                learning_rate=p.learning_rate if own.learning_rate is None else own.learning_rate,
                patience=p.patience if own.patience is None else own.patience,
                seed=p.seed if p.same_order else (p.seed + number * NEXT_ORDER) % 2**32,
            )
        )
    return described


def train_phases(
    model: PeftModel,
    tokenizer,
    p: FusionParams,
    limits: tuple[int, int],
    run,
    callbacks: Sequence[TrainerCallback] = (),
) -> Iterator[tuple[TrainingPhase, TrainingResult]]:
    """Trains phase after phase and yields each with its result, when the model has its weights and its mask is set.

    A killed run that is continued loads what it had finished, so it yields the same in the same order.

    Args:
        limits: max_prompt_tokens, max_target_tokens of the data.
        run: the open run; its checkpoints survive a kill, and the files in its path are published.
        callbacks: take part in the training of every phase.
    """
    adam_state, twin = None, full_precision_twin(model, p)
    for phase in training_phases(p):
        result, moments = train_phase(model, tokenizer, phase, p, limits, run, adam_state, callbacks, twin)
        if p.carry_optimizer:
            adam_state = moments or adam_state  # a phase without steps has none
        del moments  # the memory of the optimizer's state is free before the next phase begins
        yield phase, result


def phase_rows(p: FusionParams, languages: Iterable[str]) -> list[Row]:
    """Returns the training rows of these languages.

    Those of the target are, with `held_out`, the half that its member has not seen, and with `fold` all but this fold.

    Raises: UserError if the target's member has not been trained on the other half, or without the same fold.
    """
    rows = {language: DataRun(p.data).rows(language, "train") for language in languages}
    if p.target in rows and p.rows == "held_out":
        _, rows[p.target] = halves(rows[p.target], p.seed)
        _require_member(p, "half", "rows is 'held_out'")
    elif p.target in rows and p.fold:
        unseen = {row.id for row in selecting_rows(p)}
        rows[p.target] = [row for row in rows[p.target] if row.id not in unseen]
        _require_member(p, WITHOUT_FOLD[p.fold - 1], f"fold is {p.fold}")
    return [row for of_language in rows.values() for row in of_language]


def selecting_rows(p: FusionParams) -> list[Row]:
    """Returns the rows of the target that choose steps: its validation rows, or the fold that is left out."""
    data = DataRun(p.data)
    if p.fold:
        return folds(data.rows(p.target, "train"), len(WITHOUT_FOLD), p.seed)[p.fold - 1]
    return validation_rows(data.rows(p.target, "valid"), p.validation)[0]


def _require_member(p: FusionParams, rows: str, reason: str) -> None:
    """Raises UserError unless the target's member, if there is one, was trained on these rows of the same division."""
    member = finished_run(p.members[p.target]).params if p.target in p.members else None
    if member and (member.get("rows"), member["seed"]) != (rows, p.seed):
        raise UserError(
            f"{reason}, but {p.members[p.target]} was trained with rows: {member.get('rows')} and seed "
            f"{member['seed']}; a member with rows: {rows} and seed {p.seed} is needed."
        )


def train_phase(
    model: PeftModel,
    tokenizer,
    phase: TrainingPhase,
    p: FusionParams,
    limits: tuple[int, int],
    run,
    adam_state: AdamState | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    twin: PeftModel | None = None,
) -> tuple[TrainingResult, AdamState]:
    """Trains one phase and saves it to `<run>/<phase>/`.

    Args:
        adam_state: AdamW's state at the end of phase 1, for `carry_optimizer`: the published behaviour, in which one
            Trainer ran both phases.
        twin: the same fusion on the base in full precision, with which probes compare; None: there is none.

    Returns: the result of the training, and AdamW's state at its end.
    """
    for one in (model, twin) if twin else (model,):
        if p.method not in PEFT_COMPOSITIONS:
            fusion_members(one, masked=list(phase.masked), mode=phase.mode)
        use_head(one, fusion_head(p.model_dump(), phase.phase))
    rows = phase_rows(p, phase.languages)
    examples = encode_rows(rows, tokenizer, *limits)
    if p.probe_every and phase.steps:
        step = {"rows": p.batch_size * p.gradient_accumulation, "batch_size": p.batch_size, "seed": phase.seed}
        collate = Collator(tokenizer.pad_token_id, p.loss_on)
        callbacks = [*callbacks, GradientProbe(examples, collate, every=p.probe_every, twin=twin, **step)]
    use_fold = fold_switch(model, p)
    result, adam_state = train(
        model,
        tokenizer,
        with_folds(examples, p, phase.languages) if use_fold else examples,
        encode_rows(selecting_rows(p), tokenizer, *limits),
        TrainingSettings.of(p, learning_rate=phase.learning_rate, patience=phase.patience),
        steps=optimizer_steps(p, phase.steps, phase.epochs, len(rows)),
        trainer_state_dir=run.checkpoints / phase.phase.key,
        seed=phase.seed,
        value_regularizer=p.value_regularizer if has_value_matrix(p.method, p.variant) else 0.0,
        late_regularizer=p.late_regularizer,
        adam_state=adam_state,
        callbacks=[*callbacks, *([RoundedWeights()] if p.weights == "bf16" else [])],
        use_fold=use_fold,
        curve=fold_curve(p.steps_from, phase.phase.key),
        records_divergence=p.probe_every > 0,
    )
    state_dir = run.checkpoints / phase.phase.key
    if p.keep_trainer_state and (last := last_checkpoint(state_dir)):
        shutil.copyfile(last / "optimizer.pt", run.path(phase.phase.key, "optimizer.pt"))
    elif not p.carry_optimizer and not any("diverged" in entry for entry in result.log):
        free_state(state_dir)  # a resumed attempt has to diverge again, so that it is recorded again
    save_fusion(model, run.path(phase.phase.key))
    result.write(run.path(phase.phase.key, "training.json"))
    return result, adam_state

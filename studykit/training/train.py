"""Training of a base model, an adapter or one phase of a fusion, by transformers.Trainer.

The log holds the loss that is trained and both validation losses: that of the completion, and that of prompt and
completion, so that curves of differently trained runs can be compared. The validation loss of the completion decides
which step's weights are kept and when a training stops early; the weights before the first step compete, too. A killed
training resumes from its last checkpoint and ends as if it had not been killed; on a CPU that holds bit by bit.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from studykit.errors import Interrupted, UserError
from studykit.runs.files import fsync
from studykit.study.data_parameters import BaseModelParams
from studykit.study.training_parameters import Training
from studykit.training.base import fast_precision, half_precision
from studykit.training.batches import Collator, TokenSequence, require_packable, require_steady_positions
from studykit.training.cross_validation import StopAt, chosen_step, with_curve
from studykit.training.optimizers import MUON, OPTIMIZERS, require_optimizer
from studykit.training.result import LogEntry, TrainingResult
from studykit.training.trainer import (
    TRAINED_WEIGHTS_FILE,
    AdamState,
    Meter,
    Patience,
    Progress,
    StudyTrainer,
    is_exhausted,
    kept_step,
    peak_memory_mb,
    step_of,
    unpatch,
)

ENDED_FILE = "ended"  # in the last checkpoint of a training of which only the log and the kept weights are left
CHECKPOINTING_ARGUMENTS: dict[str, Any] = {
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training besides steps and seed, under the names of the notebooks' parameters."""

    learning_rate: float  # at its peak, after the warm-up; it falls linearly to 0
    batch_size: int = 16  # examples per forward pass
    gradient_accumulation: int = 1  # forward passes per optimizer step
    warmup_ratio: float = 0.03  # share of the steps in which the learning rate rises
    optimizer: str = "adamw"  # a key of OPTIMIZERS
    weight_decay: float = 0.0
    eval_every: int = 20  # optimizer steps between evaluations
    patience: int = 0  # evaluations in a row without a better loss after which it stops; 0: it never stops early
    select_on: str = "loss"  # loss | exact_match: what makes a step better, on the validation rows
    keep: str = "best"  # best | best_after_start | last: the step whose weights are kept
    loss_on: str = "completion"  # completion | sequence: the tokens that count in the loss
    packing: bool = False  # whether examples of a batch share rows, without attending to each other
    precision: str = "auto"  # fp32 | bf16 | auto: bf16 where the hardware is fast with it
    gradient_checkpointing: bool = False
    max_grad_norm: float = 1.0  # gradients are clipped to this norm
    adam_beta2: float = 0.999
    float32_matmul_precision: str = "highest"  # highest | high: whether products of fp32 matrices on a GPU may use TF32

    @classmethod
    def of(cls, p: TrainingSettings | Training | BaseModelParams, **overrides) -> TrainingSettings:
        """Returns the settings among the parameters of a notebook; a setting that they lack keeps its default.

        `precision: auto` becomes the precision that is fast here for the base run of these parameters.
        """
        known = {f.name: getattr(p, f.name) for f in fields(cls) if hasattr(p, f.name)}
        if isinstance(p, Training) and (base_run := getattr(p, "base", None)) and p.precision == "auto":
            known["precision"] = fast_precision(base_run)
        return cls(**{**known, **overrides})


def tokens_per_second(result: TrainingResult, examples: list[TokenSequence], p: TrainingSettings | Training) -> float:
    """Returns the trained tokens per second, padding excluded, of a training that drew its examples evenly."""
    settings = TrainingSettings.of(p)
    mean = sum(len(example["input_ids"]) for example in examples) / len(examples)
    tokens = result.steps * settings.batch_size * settings.gradient_accumulation * mean
    return tokens / result.seconds if result.steps else 0.0


def optimizer_steps(p: Training, steps: int, epochs: float | None, rows: int) -> int:
    """Returns the steps of a training on this many rows: `epochs` passes over them, or `steps` if that is None."""
    return steps if epochs is None else math.ceil(epochs * rows / (p.batch_size * p.gradient_accumulation))


def last_checkpoint(directory: Path) -> Path | None:
    """Returns the newest checkpoint from which a training can resume; None if there is none.

    A kill may leave the newest one half-written, and a power cut may leave any of its files empty or cut short: then an
    older one is taken.
    """
    for path in sorted(directory.glob("checkpoint-*"), key=step_of, reverse=True):
        if step_of(path) == 0:  # the initial weights alone
            break
        if is_whole(path):
            return path
        print(f"{path.name} is incomplete; an older checkpoint is taken.")
    return None


def is_whole(checkpoint: Path) -> bool:
    """Returns whether all files of a checkpoint open, those of the kept weights included.

    The weights to keep until then lie in this checkpoint or in an older one.
    """
    try:
        ended = (checkpoint / ENDED_FILE).exists()
        for step in {kept_step(checkpoint)} | (set() if ended else {step_of(checkpoint)}):
            with safe_open(checkpoint.with_name(f"checkpoint-{step}") / TRAINED_WEIGHTS_FILE, "pt"):
                pass  # opening it reads the header and compares it with the size of the file
    except (OSError, ValueError, SafetensorError):
        return False
    if ended:
        return True
    states = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")]
    return all(zipfile.is_zipfile(file) for file in states)  # a zip file has its directory at its end


def free_state(directory: Path) -> None:
    """Removes from the disk what an ended training does not need any more: all but its log and the kept weights.

    A fusion's optimizer state is twice as large as its weights, and would stay until the run is published.
    """
    last = last_checkpoint(directory)
    if last is None:
        return
    (last / ENDED_FILE).touch()
    fsync(last)
    kept = kept_step(last)
    for path in directory.glob("checkpoint-*/*"):
        needed = path.name == TRAINED_WEIGHTS_FILE and step_of(path.parent) == kept
        if not needed and not (path.parent == last and path.name in (ENDED_FILE, "trainer_state.json")):
            path.unlink(missing_ok=True)  # several processes may do this at once


def has_ended(checkpoint: Path, steps: int, p: TrainingSettings) -> bool:
    """Returns whether a training of this many steps had nothing left to do at this checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    ended = (checkpoint / ENDED_FILE).exists() or any("diverged" in entry for entry in state["log_history"])
    return ended or state["global_step"] >= steps or is_exhausted(state["log_history"], p.patience, p.keep, p.select_on)


def process_count() -> int:
    """Returns the number of processes that train together: more than one under `accelerate launch`."""
    return int(os.environ.get("WORLD_SIZE", 1))


def require_trainable(
    model: nn.Module, examples: Sequence[TokenSequence], p: TrainingSettings, *, folded: bool
) -> None:
    """Raises UserError if this machine and these processes cannot train a model with these settings.

    Args:
        folded: whether the model is prepared for the rows of each fold.
    """
    require_optimizer(p.optimizer)
    longest = max((len(example["input_ids"]) for example in examples), default=0)
    require_steady_positions(model, longest)
    if p.packing:
        require_packable(model, longest)
    processes = process_count()
    if p.batch_size % processes:
        raise UserError(
            f"batch_size is {p.batch_size}; {processes} processes need a batch size that they can share evenly."
        )
    if folded and processes > 1:
        raise UserError(f"rows is 'cross_fit', but there are {processes} processes; only a single one can train so.")


def training_arguments(
    p: TrainingSettings, steps: int, directory: Path, seed: int, *, resumes: bool
) -> TrainingArguments:
    """Returns the arguments of transformers' Trainer for a training of this many steps.

    Args:
        directory: of the checkpoints.
        resumes: whether the training goes on from a checkpoint, at which it was evaluated before.
    """
    bf16 = p.precision == "bf16" or (p.precision == "auto" and half_precision())
    every = min(p.eval_every, max(1, steps))
    return TrainingArguments(
        output_dir=str(directory),
        max_steps=max(1, steps),
        per_device_train_batch_size=p.batch_size // process_count(),
        per_device_eval_batch_size=p.batch_size,
        gradient_accumulation_steps=p.gradient_accumulation,
        learning_rate=p.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(p.warmup_ratio * steps),
        optim=OPTIMIZERS[p.optimizer],
        weight_decay=p.weight_decay,
        max_grad_norm=p.max_grad_norm,
        adam_beta2=p.adam_beta2,
        bf16=bf16,
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=not resumes,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=None,  # StudyTrainer removes older ones
        # It divides `every`, so that no checkpoint falls among the steps whose mean loss is logged.
        logging_steps=next(n for n in range(max(1, every // 4), 0, -1) if every % n == 0),
        logging_nan_inf_filter=False,  # the filter would hide a diverged run
        remove_unused_columns=False,
        label_names=["labels"],
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,  # `Progress` shows a bar
        use_cpu=not torch.cuda.is_available(),
        **(CHECKPOINTING_ARGUMENTS if p.gradient_checkpointing else {}),
    )


def train(
    model: nn.Module,
    tokenizer,
    train_examples: list[TokenSequence],
    valid_examples: list[TokenSequence],
    p: TrainingSettings | Training,
    *,
    steps: int,
    trainer_state_dir: Path,
    seed: int,
    value_regularizer: float = 0.0,
    late_regularizer: bool = False,
    adam_state: AdamState | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    use_fold: Callable[[int], None] | None = None,
    curve: Sequence[LogEntry] = (),
    records_divergence: bool = False,
) -> tuple[TrainingResult, AdamState]:
    """Trains the trainable parameters of `model` in place; afterwards it has the weights that `keep` asks for.

    Args:
        train_examples, valid_examples: from `encode_rows` or `packed_blocks`.
        p: the settings, or the parameters of a notebook that hold them.
        steps: optimizer steps at most; 0 only measures the validation losses.
        trainer_state_dir: the directory of checkpoints, from which a killed training with these parameters resumes.
        value_regularizer: factor of the value penalty; only for fusions that have a value matrix.
        late_regularizer: whether the first step lacks that penalty, see `StudyTrainer`.
        adam_state: AdamW's state by parameter name to start with, as an earlier call returned it; None: a new one. The
            learning-rate schedule is always a new one.
        callbacks: take part in the training; they may add to the newest entry of the log.
        use_fold: prepares the model for the rows of a fold, see `cross_fit`; None: the examples have no folds.
        records_divergence: whether a loss that is not finite ends the training, whose log says so; otherwise it is an
            error.
        curve: losses that choose the step at which the training ends, see `cross_validation`; none: its own ones do.

    Returns: the result, and AdamW's state after the last step.
    Raises: UserError if the optimizer does not work on this machine, the batch cannot be shared out, or the loss is
        not finite.
    """
    p, end = TrainingSettings.of(p), steps
    if curve:
        end = min(steps, chosen_step(curve, p.keep, p.select_on))
        p, callbacks = replace(p, keep="last", patience=0), [*callbacks, StopAt(end)]
    require_trainable(model, [*train_examples, *valid_examples], p, folded=use_fold is not None)
    set_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    resumed = last_checkpoint(trainer_state_dir)
    arguments = training_arguments(p, steps, trainer_state_dir, seed, resumes=resumed is not None)
    if not end:
        untrained = _untrained(model, tokenizer, valid_examples, p, arguments)
        return replace(untrained, log=with_curve(untrained.log, curve)) if curve else untrained, {}
    trainer_state_dir.mkdir(parents=True, exist_ok=True)
    meter = Meter(trainer_state_dir / "meter.json")
    trainer = StudyTrainer(
        model=model,
        args=arguments,
        train_dataset=train_examples,
        eval_dataset=valid_examples,
        data_collator=Collator(tokenizer.pad_token_id, p.loss_on, p.packing),
        callbacks=[Progress, Patience(p.patience, p.keep, p.select_on), meter, *callbacks],
        value_regularizer=value_regularizer,
        late_regularizer=late_regularizer,
        adam_state=adam_state,
        keep=p.keep,
        select_on=p.select_on,
        use_fold=use_fold,
        muon=p.optimizer == MUON,
        records_divergence=records_divergence,
    )
    trainer.remove_callback(PrinterCallback)
    with matrix_products(p.float32_matmul_precision):
        run_to_end(trainer, resumed, end, p)
        used = torch.get_float32_matmul_precision()
    trainer.load_kept_weights()
    ended: Any = trainer.state
    log = [entry for entry in ended.log_history if "train_runtime" not in entry]
    result = TrainingResult(
        log=with_curve(log, curve) if curve else log,
        best_step=ended.best_global_step,
        steps=ended.global_step,
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        precision="bf16" if trainer.args.bf16 else "fp32",
        matrix_products=used,
        **meter.read(),
    )
    model.eval()
    assert trainer.optimizer is not None
    state = trainer.optimizer.state
    return result, {name: state[parameter] for name, parameter in model.named_parameters() if parameter in state}


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Sets torch's `float32_matmul_precision` meanwhile: `highest`, exact, or `high`, TF32 where a GPU has it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def run_to_end(trainer: StudyTrainer, resumed: Path | None, end: int, p: TrainingSettings) -> None:
    """Trains until step `end`, from a checkpoint if there is one; Interrupted if the user stops it."""
    if resumed and has_ended(resumed, end, p):
        trainer.restore_end(resumed)
        return
    if resumed:
        print(f"Resuming from step {step_of(resumed)}.")
    try:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except KeyboardInterrupt:
        step = trainer.state.global_step
        raise Interrupted(f"Stopped at step {step}; run this cell again to go on.") from None
    finally:
        unpatch(trainer.model)


def base_losses(
    base: nn.Module, tokenizer, valid_examples: list[TokenSequence], p: Training, trainer_state_dir: Path
) -> dict[str, float]:
    """Returns the validation losses of the base alone, `completion` and `sequence`, in nats per token.

    A Trainer refuses a quantized base without adapters even where it trains nothing, so it is told of one meanwhile.
    """
    mark: Any = base
    before = getattr(base, "_hf_peft_config_loaded", False)
    mark._hf_peft_config_loaded = True
    try:
        result, _ = train(base, tokenizer, [], valid_examples, p, steps=0, trainer_state_dir=trainer_state_dir, seed=0)
    finally:
        mark._hf_peft_config_loaded = before
    return {"completion": result.validation_loss(), "sequence": result.validation_loss(of="sequence_loss")}


def judge_trial(
    model: nn.Module, tokenizer, examples: list[TokenSequence], p: TrainingSettings | Training, trainer_state_dir: Path
) -> dict[str, Any]:
    """Returns what the manifest of a trial records: its mean loss per token of the completions of other rows.

    Args:
        examples: the validation rows that selected no step, from `encode_rows`; [] is no trial, which records nothing.
    """
    if not examples:
        return {}
    result, _ = train(model, tokenizer, [], examples, p, steps=0, trainer_state_dir=trainer_state_dir, seed=0)
    return {"trial_loss": result.validation_loss(0), "trial_rows": len(examples)}


def _untrained(
    model: nn.Module, tokenizer, valid_examples: list[TokenSequence], p: TrainingSettings, arguments: TrainingArguments
) -> TrainingResult:
    """Returns the result of a training without steps, which holds only the validation losses."""
    collate = Collator(tokenizer.pad_token_id, p.loss_on, p.packing)
    trainer = StudyTrainer(
        model=model, args=arguments, eval_dataset=valid_examples, data_collator=collate, select_on=p.select_on
    )
    trainer.remove_callback(PrinterCallback)
    entry: Any = {**trainer.evaluate(), "step": 0}
    return TrainingResult(
        [entry], best_step=0, steps=0, seconds=0.0, cpu_seconds=0.0, trainable=0, peak_memory_mb=peak_memory_mb()
    )

"""Training of a base model, an adapter or one phase of a fusion, by transformers.Trainer.

The log holds the loss that trains and, beside it, both validation losses: that of the completion, and that of prompt
and completion, so that curves of differently trained runs stand on one scale. Every run is stopped and selected on its
validation rows. A killed run continues from its last checkpoint and ends as if it had not been killed; on a CPU that
is true of every bit.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PrinterCallback, TrainingArguments, set_seed

from studykit.errors import UserError
from studykit.runs import provenance
from studykit.study.parameters import Training
from studykit.training.base import half_precision
from studykit.training.batches import Collator
from studykit.training.result import TrainingResult
from studykit.training.trainer import (
    OPTIMIZERS,
    WEIGHTS,
    Meter,
    Patience,
    Progress,
    StudyTrainer,
    is_exhausted,
    require_optimizer,
    step_of,
)

CHECKPOINTING = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}


@dataclass(frozen=True)
class TrainingSettings:
    """What `train` is told beside steps and seed; the names are those of the notebooks' parameters."""

    learning_rate: float  # peak, linear decay
    batch_size: int = 16  # examples per forward pass
    gradient_accumulation: int = 1  # forward passes per optimizer step
    warmup_ratio: float = 0.03  # share of the steps
    optimizer: str = "adamw"  # a key of OPTIMIZERS
    weight_decay: float = 0.0
    eval_every: int = 20  # steps
    patience: int = 0  # evaluations without a gain until the end; 0: never
    loss_on: str = "completion"  # or sequence
    packing: bool = False  # examples of a batch share rows, without seeing each other
    precision: str = "auto"  # fp32 | bf16; auto: bf16 where the hardware is fast with it
    gradient_checkpointing: bool = False
    max_grad_norm: float = 1.0
    adam_beta2: float = 0.999

    @classmethod
    def of(cls, p, **instead) -> TrainingSettings:
        """The settings among the parameters of a notebook; what it does not have takes the default, or `instead`."""
        known = {f.name: getattr(p, f.name) for f in fields(cls) if hasattr(p, f.name)}
        return cls(**{**known, **instead})


def tokens_per_second(result: TrainingResult, examples: list[dict], p: TrainingSettings | Training) -> float:
    """Returns the trained tokens per second, padding excluded, of a training that drew its examples evenly."""
    settings = TrainingSettings.of(p)
    mean = sum(len(example["input_ids"]) for example in examples) / len(examples)
    return result.steps * settings.batch_size * settings.gradient_accumulation * mean / result.seconds


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint from which a training can go on. A kill may tear the newest one, and a power cut leave any
    of its files empty or cut short: it is passed over for an older one."""
    for path in sorted(directory.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_whole(path):
            return path
        print(f"{path.name} is not whole and is passed over.")
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint open, and the best weights until then, which lie in it or in an older one."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for step in {state["global_step"], state["best_global_step"] or state["global_step"]}:
            with safe_open(checkpoint.with_name(f"checkpoint-{step}") / WEIGHTS, "pt"):
                pass  # the header was read, and the file is as long as that says
    except (OSError, ValueError, SafetensorError):
        return False
    states = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")]
    return all(zipfile.is_zipfile(file) for file in states)  # whose directory stands at its end


def has_ended(checkpoint: Path, steps: int, patience: int) -> bool:
    """Whether a training of so many steps had nothing left to do at this checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state["global_step"] >= steps or is_exhausted(state["log_history"], patience)


def train(
    model: nn.Module,
    tokenizer,
    train_examples: list[dict],
    valid_examples: list[dict],
    p: TrainingSettings | Training,
    *,
    steps: int,
    trainer_state_dir: Path,
    seed: int,
    penalty: float = 0.0,
    moments: dict[str, dict[str, Tensor]] | None = None,
) -> tuple[TrainingResult, dict[str, dict[str, Tensor]]]:
    """Trains what is trainable in `model`, in place, and leaves it with its best weights on the validation examples.

    Args:
        train_examples, valid_examples: from `encode_rows` or `packed_blocks`.
        p: `TrainingSettings`, or the parameters of a notebook.
        steps: optimizer steps at most; 0 only measures the validation losses.
        trainer_state_dir: where a killed run of the same parameters left its state, and will find it.
        moments: AdamW's state by parameter name to go on with, as an earlier call returned it; none: it starts afresh.
            The schedule is always new.

    Returns: the result, and the moments after the last step.
    Raises: UserError if the optimizer does not work here, or the loss is not finite.
    """
    p = TrainingSettings.of(p)
    require_optimizer(p.optimizer)
    if p.packing and (found := model.config._attn_implementation) != "sdpa":
        raise UserError(f"packing is true, but the model's attention is {found!r}; packed rows need 'sdpa'.")
    set_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    processes = int(os.environ.get("WORLD_SIZE", 1))  # more under `accelerate launch`, see `parallel`
    if p.batch_size % processes:
        raise UserError(f"batch_size is {p.batch_size}; {processes} processes need one that they can share out evenly.")
    bf16 = p.precision == "bf16" or (p.precision == "auto" and half_precision())
    every = min(p.eval_every, max(1, steps))
    resumed = last_checkpoint(trainer_state_dir)
    arguments = TrainingArguments(
        output_dir=str(trainer_state_dir),
        max_steps=max(1, steps),
        per_device_train_batch_size=p.batch_size // processes,
        per_device_eval_batch_size=2 * p.batch_size,
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
        eval_on_start=resumed is None,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=None,  # StudyTrainer lets older ones go
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        # Divides `every`, so that a checkpoint never stands amid the steps over which a logged loss is the mean.
        logging_steps=next(n for n in range(max(1, every // 4), 0, -1) if every % n == 0),
        logging_nan_inf_filter=False,  # which would hide a diverged run
        remove_unused_columns=False,
        label_names=["labels"],
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,  # our own bar instead
        use_cpu=not torch.cuda.is_available(),
        **(CHECKPOINTING if p.gradient_checkpointing else {}),
    )
    if not steps:
        return _untrained(model, tokenizer, valid_examples, p, arguments), {}
    trainer_state_dir.mkdir(parents=True, exist_ok=True)
    meter = Meter(trainer_state_dir / "meter.json")
    trainer = StudyTrainer(
        model=model,
        args=arguments,
        train_dataset=train_examples,
        eval_dataset=valid_examples,
        data_collator=Collator(tokenizer.pad_token_id, p.loss_on, p.packing),
        callbacks=[Progress, Patience(p.patience), meter],
        penalty=penalty,
        moments=moments,
    )
    trainer.remove_callback(PrinterCallback)
    if resumed and has_ended(resumed, steps, p.patience):
        trainer.restore_end(resumed)
    else:
        if resumed:
            print(f"Resuming from step {step_of(resumed)}.")
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    result = TrainingResult(
        log=[row for row in trainer.state.log_history if "train_runtime" not in row],
        best_step=trainer.state.best_global_step,
        steps=trainer.state.global_step,
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        **meter.read(),
    )
    model.eval()
    state = trainer.optimizer.state
    return result, {name: state[weight] for name, weight in model.named_parameters() if weight in state}


def _untrained(model: nn.Module, tokenizer, valid_examples: list[dict], p, arguments: TrainingArguments) -> TrainingResult:
    """Returns the result of a training of no steps: the validation losses alone."""
    collate = Collator(tokenizer.pad_token_id, p.loss_on, p.packing)
    trainer = StudyTrainer(model=model, args=arguments, eval_dataset=valid_examples, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    losses = trainer.evaluate()
    return TrainingResult([{**losses, "step": 0}], 0, 0, 0.0, 0, provenance.peak_memory_mb())

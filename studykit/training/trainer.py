"""The trainer under `training`: transformers' Trainer with another loss, evaluation and checkpoint, and its callbacks.

The loss is a mean over tokens, exact under gradient accumulation. For a fusion the penalty, factor times
sum_l ||W_v - I||_F^2, is a term of it and stands in the log. A checkpoint holds the weights that train and no others.
"""

from __future__ import annotations

import copy
import json
import math
import resource
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback, TrainerState

from studykit.errors import UserError
from studykit.runs.files import fsync, write_json
from studykit.training.batches import forward, token_losses
from studykit.tuners import value_deviation

WEIGHTS = "trained.safetensors"
# Our words for Trainer's. bitsandbytes keeps moments of fewer than 4096 entries (biases, narrow adapters) in fp32.
OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}


class StudyTrainer(Trainer):
    """Trainer with a token-mean loss, the penalty on W_v, exact evaluation, and checkpoints of what trains alone."""

    def __init__(self, *args, penalty: float = 0.0, moments: dict[str, dict[str, Tensor]] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.penalty, self.moments = penalty, moments or {}
        self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = True  # it counts the items of all micro-batches
        self.last_penalty: float | None = None

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        for name, parameter in self.model.named_parameters():
            if name in self.moments:
                optimizer.state[parameter] = copy.deepcopy(self.moments[name])
        return optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"]
        outputs = forward(model, inputs)
        items = (labels[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = token_losses(outputs.logits, labels).sum() / items
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        if self.penalty:
            penalty = self.penalty * value_deviation(model)
            self.last_penalty = penalty.item()
            loss = loss + penalty / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise UserError(
                    f"The {name} is {logs[name]} after step {self.state.global_step}, with learning_rate="
                    f"{self.args.learning_rate}; it stays finite with a lower one, or with precision: fp32."
                )
        if "loss" in logs and self.last_penalty is not None:
            logs = {**logs, "value_penalty": self.last_penalty}
        super().log(logs, *args, **kwargs)

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Token means of the completion loss (`eval_loss`) and of the whole sequence (`eval_sequence_loss`).

        Of several processes each takes all rows: shared out among them, the last batches would be filled up with rows
        that were counted before.
        """
        self.model.eval()
        sums = {"completion": [0.0, 0], "sequence": [0.0, 0]}
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        for batch in DataLoader(rows, self.args.per_device_eval_batch_size, collate_fn=self.data_collator):
            batch = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                logits = forward(self.model, batch).logits
            losses = token_losses(logits, batch["sequence_labels"])
            for name, total in sums.items():
                counted = batch[f"{name}_labels"][:, 1:] != -100
                total[0] += losses[counted].double().sum().item()
                total[1] += int(counted.sum())
        metrics = {
            f"{metric_key_prefix}_loss": sums["completion"][0] / sums["completion"][1],
            f"{metric_key_prefix}_sequence_loss": sums["sequence"][0] / sums["sequence"][1],
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def get_decay_parameter_names(self, model) -> list[str]:
        """W_v belongs near the identity, not near zero: it is never decayed."""
        return [name for name in super().get_decay_parameter_names(model) if ".value." not in name]

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        save_file(trained_weights(self.model), directory / WEIGHTS)

    def _save_checkpoint(self, model, trial) -> None:
        """Leaves this checkpoint and the best one, or one before where this is the best. It is on the disk before
        others go: a power cut may come at any time."""
        super()._save_checkpoint(model, trial)
        if not self.args.should_save:
            return
        last = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        for path in (*last.iterdir(), last, last.parent):
            fsync(path)
        needed = {self.state.global_step, self.state.best_global_step}
        older = sorted((p for p in last.parent.glob("checkpoint-*") if step_of(p) not in needed), key=step_of)
        for path in older if len(needed) > 1 else older[:-1]:
            shutil.rmtree(path)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained_weights(model or self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_trained_weights(self.model, Path(self.args.output_dir, f"checkpoint-{self.state.best_global_step}"))

    def restore_end(self, checkpoint: Path) -> None:
        """State, optimizer and best weights of a training that had ended at this, its last, checkpoint."""
        self.state = TrainerState.load_from_json(checkpoint / "trainer_state.json")
        self.create_optimizer_and_scheduler(self.args.max_steps)
        self._load_optimizer_and_scheduler(str(checkpoint))
        self._load_best_model()


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def require_optimizer(name: str) -> None:
    """UserError unless an optimizer, by a key of OPTIMIZERS, works on this machine."""
    if name == "adamw":
        return
    if name.startswith("paged") and not torch.cuda.is_available():
        raise UserError(f"optimizer is {name!r}, whose moments may leave the GPU, but this machine has no CUDA device; "
                        "adamw or adamw_8bit is accepted here.")  # fmt: skip
    weight = nn.Parameter(torch.zeros(4096, device="cuda" if torch.cuda.is_available() else "cpu"))
    weight.grad = torch.ones_like(weight)
    try:
        from bitsandbytes.optim import AdamW8bit

        AdamW8bit([weight]).step()
    except Exception as error:  # whatever a library does that was built for another machine
        raise UserError(f"optimizer is {name!r}, which bitsandbytes cannot run on this machine "
                        f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); adamw is accepted "
                        "everywhere.") from None  # fmt: skip


class Progress(ProgressCallback):
    """One bar with the newest losses, instead of a line per log entry."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None:
            shown = {key: f"{logs[key]:.3f}" for key in ("loss", "eval_loss") if key in (logs or {})}
            self.training_bar.set_postfix(shown)


class Patience(TrainerCallback):
    """Ends a training after so many evaluations in a row without a gain.

    It counts in the log, which a checkpoint keeps; transformers' own callback counts in itself and forgets.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_evaluate(self, args, state, control, **kwargs):
        if is_exhausted(state.log_history, self.patience):
            control.should_training_stop = True


def is_exhausted(log: list[dict], patience: int) -> bool:
    """Whether the last `patience` evaluations after step 0 are all no better than the one before them; 0: never."""
    losses = [row["eval_loss"] for row in log if "eval_loss" in row and row["step"] > 0]
    return bool(patience and losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


class Meter(TrainerCallback):
    """Time and memory over all attempts: what earlier ones took until their last checkpoint, and this one."""

    def __init__(self, path: Path):
        self.path, self.started = path, time.monotonic()
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.before, self.peak_before = before.get("seconds", 0.0), before.get("peak_memory_mb", 0.0)

    def read(self) -> dict[str, float]:
        seconds = self.before + time.monotonic() - self.started
        return {"seconds": seconds, "peak_memory_mb": max(self.peak_before, peak_memory_mb())}

    def on_save(self, args, state, control, **kwargs):
        write_json(self.path, self.read())


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every trainable parameter by name."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def load_trained_weights(model: nn.Module, directory: Path) -> None:
    given, own = load_file(directory / WEIGHTS), trained_weights(model)
    if given.keys() != own.keys():
        other = sorted(given.keys() ^ own.keys())
        raise ValueError(f"{directory / WEIGHTS} does not hold the parameters that train now: {other}")
    for name, parameter in model.named_parameters():
        if name in given:
            with torch.no_grad():
                parameter.copy_(given[name])


def peak_memory_mb() -> float:
    """Peak memory in MiB: what was allocated on the GPU, or the resident set of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

"""The trainer behind `train`: transformers' Trainer with another loss, evaluation and checkpoint, and its callbacks.

The loss is a mean over tokens, exact under gradient accumulation. For a fusion, the value penalty
`value_regularizer` * sum_l ||W_v - I||_F^2 is a term of the loss and is in the log. A checkpoint holds the weights that
train and no others.
"""

from __future__ import annotations

import copy
import json
import math
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback, TrainerState

from studykit.errors import UserError
from studykit.runs.files import fsync, write_json
from studykit.training.batches import label_logits, token_losses
from studykit.training.optimizers import MuonWithAdamW
from studykit.tuners import value_deviation

TRAINED_WEIGHTS_FILE = "trained.safetensors"  # the trainable parameters, in every checkpoint
AdamState = dict[str, dict[str, Tensor]]  # parameter -> its state in AdamW: step, exp_avg, exp_avg_sq ...


def unpatch(model: Any) -> None:
    """Takes from a model what accelerate has put on it for a training in bf16, and never takes away itself.

    Or whatever is computed with the model afterwards would be in bf16 too: records of attention, completions, the loss
    that judges a trial. Of a training that was found ended, none of it would.
    """
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(name, None)


class StudyTrainer(Trainer):
    """Trainer with a token-mean loss, the value penalty, exact evaluation, and checkpoints of the trained weights.

    Args:
        value_regularizer: factor of the value penalty; 0: there is none.
        late_regularizer: whether the first step lacks the penalty. The reference implementation adds its gradient after
            each step, so it is that of the weights with which the next step begins: all other steps are the same.
        adam_state: AdamW's state to start with; None: a new one.
        keep: the step whose weights are kept: best, best_after_start or last. `TrainerState.best_global_step` holds it.
        select_on: the measure by which a step is better: loss or exact_match.
        use_fold: prepares the model for the rows of a fold, see `cross_fit`; 0: for all rows.
        muon: whether the optimizer is `MuonWithAdamW`.
        records_divergence: whether a loss that is not finite ends the training, which keeps what it has; otherwise it
            is an error.
    """

    model: Any  # Trainer takes it for optional
    args: Any

    def __init__(
        self,
        *args,
        value_regularizer: float = 0.0,
        late_regularizer: bool = False,
        adam_state: AdamState | None = None,
        keep: str = "last",
        select_on: str = "loss",
        use_fold: Callable[[int], None] | None = None,
        muon: bool = False,
        records_divergence: bool = False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.value_regularizer, self.adam_state = value_regularizer, adam_state or {}
        self.late_regularizer = late_regularizer
        self.keep, self.select_on, self.muon = keep, select_on, muon
        self.records_divergence = records_divergence
        self.step_norms: list[Any] = []  # of the gradients since the last entry of the log
        self.use_fold, self.parts = use_fold, 1  # parts: of the batch, one for each fold in it
        # Trainer then counts the items of all micro-batches, by which `compute_loss` divides.
        self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = True
        self.last_value_penalty: float | None = None
        self.fallback: set[int | None] = set()  # the last checkpoint, and the one with the weights to keep until then

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.muon:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            self.optimizer: Any = MuonWithAdamW(self.model, self.args.learning_rate, betas)
            return self.optimizer
        optimizer = super().create_optimizer(model)
        for name, parameter in self.model.named_parameters():
            if name in self.adam_state:
                optimizer.state[parameter] = copy.deepcopy(self.adam_state[name])
        return optimizer

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Computes the gradients of a batch and returns its loss; the rows of each fold have a pass of their own."""
        folds = inputs.pop("fold", None)
        if self.use_fold is None or folds is None:
            return super().training_step(model, inputs, num_items_in_batch)
        present = folds.unique().tolist()
        losses, self.parts = [], len(present)
        for fold in present:
            self.use_fold(fold)
            part = {name: values[folds == fold] for name, values in inputs.items()}
            losses.append(super().training_step(model, part, num_items_in_batch))
        self.use_fold(0)
        return torch.stack(losses).sum()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Returns the mean loss per token of the whole batch, with the value penalty once per optimizer step."""
        labels = inputs["labels"]
        losses = token_losses(model, inputs, labels)
        items = (labels[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = losses.sum() / items
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        if self.value_regularizer and (self.state.global_step or not self.late_regularizer):
            value_penalty = self.value_regularizer * value_deviation(model)
            self.last_value_penalty = value_penalty.item()
            loss = loss + value_penalty / self.current_gradient_accumulation_steps / self.parts
        return (loss, {"losses": losses}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds value penalty and gradient norms to an entry of the log.

        Raises UserError for a loss or a gradient that is not finite, or ends the training, see `records_divergence`.
        """
        for name in ("loss", "eval_loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                if self._can_end():
                    last: Any = {"step": self.state.global_step, "diverged": 1.0, "grad_norms": self._taken_norms()}
                    self.state.log_history.append(last)
                    self.control.should_training_stop = True
                    return
                raise UserError(
                    f"The {name} is {logs[name]} after step {self.state.global_step}, with learning_rate="
                    f"{self.args.learning_rate}; try a lower one, or precision: fp32."
                )
        if "loss" in logs and self.last_value_penalty is not None:
            logs = {**logs, "value_penalty": self.last_value_penalty}
        if "loss" in logs and self.step_norms:
            entry: Any = {**logs, "grad_norms": self._taken_norms()}
            logs = entry
        super().log(logs, *args, **kwargs)

    def _taken_norms(self) -> list[float | None]:
        """Returns the gradient norms since the last entry of the log, None for one that is not finite."""
        norms, self.step_norms = [float(norm) for norm in self.step_norms], []
        return [norm if math.isfinite(norm) else None for norm in norms]

    def _can_end(self) -> bool:
        """Returns whether a divergence is to be recorded, and there are weights from before that can be kept."""
        best = self._checkpoint(self.state.best_global_step) / TRAINED_WEIGHTS_FILE
        return self.records_divergence and self.state.global_step > 0 and best.exists()

    def _get_grad_norm(self, model, grad_norm=None):
        """Returns the norm of the gradient before clipping and notes it for the log."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.step_norms.append(norm)
        return norm

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Measures the mean loss per token of completions (`eval_loss`) and of sequences (`eval_sequence_loss`).

        With several processes each one takes all rows: if they were shared out, the last batches would be filled up
        with rows that are counted already.
        """
        self.model.eval()
        sums = {"completion": [0.0, 0], "sequence": [0.0, 0]}
        exact = 0
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        for batch in DataLoader(rows, self.args.per_device_eval_batch_size, collate_fn=self.data_collator):
            batch = self._prepare_inputs(batch)
            # Trainer itself computes in bf16 by a patch that the model has while it trains only, see `unpatch`.
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
                predicted = label_logits(self.model, batch, batch["sequence_labels"])
            losses = predicted.losses()
            for name, total in sums.items():
                counted = batch[f"{name}_labels"][:, 1:] != -100
                total[0] += losses[counted].double().sum().item()
                total[1] += int(counted.sum())
            if self.select_on == "exact_match":
                exact += exact_matches(predicted.hits(), batch["completion_labels"])
        metrics = {
            f"{metric_key_prefix}_loss": sums["completion"][0] / sums["completion"][1],
            f"{metric_key_prefix}_sequence_loss": sums["sequence"][0] / sums["sequence"][1],
        }
        if self.select_on == "exact_match":
            metrics[f"{metric_key_prefix}_exact_match"] = exact / len(rows)
        self.log(metrics)
        if not math.isfinite(metrics[f"{metric_key_prefix}_loss"]):
            return metrics
        self._select()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _select(self) -> None:
        """Notes the step that was just validated if its weights are to be kept; those of the start are saved for it."""
        state = self.state
        looks = {entry["step"]: shortfall(entry, self.select_on) for entry in state.log_history if "eval_loss" in entry}
        if state.global_step == 0 and self.keep == "best" and self.args.should_save:
            start = self._checkpoint(0)
            self._save(str(start))
            for path in (start / TRAINED_WEIGHTS_FILE, start, start.parent):
                fsync(path)
        best = state.best_global_step
        may_be_kept = state.global_step > 0 or self.keep != "best_after_start"
        if may_be_kept and (self.keep == "last" or best is None or looks[state.global_step] < looks[best]):
            state.best_global_step = state.global_step

    def _checkpoint(self, step: int | None) -> Path:
        return Path(self.args.output_dir, f"checkpoint-{step}")

    def get_decay_parameter_names(self, model) -> list[str]:
        """Returns the parameters that weight decay pulls to zero: never W_v, which belongs near the identity."""
        return [name for name in super().get_decay_parameter_names(model) if ".value." not in name]

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        save_file(trained_weights(self.model), directory / TRAINED_WEIGHTS_FILE)

    def _save_checkpoint(self, model, trial) -> None:
        """Writes a checkpoint and removes all others but the best one; if this is the best, one before it stays.

        The new checkpoint is on the disk before others are removed, since a power cut may come at any time. The one
        before it stays with the best one of its time, without which a training cannot resume from it.
        """
        super()._save_checkpoint(model, trial)
        if not self.args.should_save:
            return
        last = self._checkpoint(self.state.global_step)
        for path in (*last.iterdir(), last, last.parent):
            fsync(path)
        needed = {self.state.global_step, self.state.best_global_step}
        if len(needed) == 1:
            needed |= self.fallback
        self.fallback = {self.state.global_step, self.state.best_global_step}
        for path in last.parent.glob("checkpoint-*"):
            if step_of(path) not in needed:
                shutil.rmtree(path)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoint = Path(resume_from_checkpoint)
        self.fallback = {step_of(checkpoint), kept_step(checkpoint)}
        load_trained_weights(model or self.model, checkpoint)

    def load_kept_weights(self) -> None:
        """Gives the model the weights of the step that is kept."""
        load_trained_weights(self.model, self._checkpoint(self.state.best_global_step))

    def restore_end(self, checkpoint: Path) -> None:
        """Restores state and optimizer of a training that had ended at this, its last, checkpoint.

        Where the optimizer's state is no longer kept, see `train.free_state`, it is a new one.
        """
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self.create_optimizer_and_scheduler(self.args.max_steps)
        if (checkpoint / "optimizer.pt").exists():
            self._load_optimizer_and_scheduler(str(checkpoint))


def step_of(checkpoint: Path) -> int:
    """Returns the step of a directory `checkpoint-<step>`."""
    return int(checkpoint.name.split("-")[1])


def kept_step(checkpoint: Path) -> int:
    """Returns the step whose weights were to be kept when a checkpoint was written."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["best_global_step"]


class Progress(ProgressCallback):
    """A bar with the newest losses, in place of a line per log entry."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None:
            shown = {key: f"{logs[key]:.3f}" for key in ("loss", "eval_loss") if key in (logs or {})}
            self.training_bar.set_postfix(shown)


class Patience(TrainerCallback):
    """Ends a training after a number of evaluations in a row without a better loss.

    It counts in the log, which a checkpoint keeps; transformers' own callback loses its count when a run is killed.
    """

    def __init__(self, patience: int, keep: str = "best", select_on: str = "loss"):
        self.patience, self.keep, self.select_on = patience, keep, select_on

    def on_evaluate(self, args, state, control, **kwargs):
        if is_exhausted(state.log_history, self.patience, self.keep, self.select_on):
            control.should_training_stop = True


def exact_matches(hits: Tensor, labels: Tensor) -> int:
    """Returns the number of rows whose completion is reproduced token by token, its end included.

    A greedy completion is the reference exactly if the likeliest token after each of its beginnings is the next one: so
    no text has to be generated.

    Args:
        hits: (B, T-1), whether each next token is the likeliest one.
        labels: (B, T), -100 outside of the completion.
    """
    return int((hits | (labels[:, 1:] == -100)).all(-1).sum())


def shortfall(entry: dict, select_on: str) -> tuple[float, float]:
    """Returns what a validated step lacks, less is better: rows that are not exact, if they select; then the loss."""
    return (1 - entry["eval_exact_match"] if select_on == "exact_match" else 0.0), entry["eval_loss"]


def is_exhausted(log: list[dict], patience: int, keep: str = "best", select_on: str = "loss") -> bool:
    """Returns whether the last `patience` evaluations are all no better than the best one before them.

    The evaluation at step 0 counts, unless `keep` is best_after_start; with a patience of 0 it is never exhausted.
    """
    first = 1 if keep == "best_after_start" else 0
    losses = [shortfall(entry, select_on) for entry in log if "eval_loss" in entry and entry["step"] >= first]
    return bool(patience and losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


class Meter(TrainerCallback):
    """A meter of time and memory over all attempts: the earlier ones until their last checkpoint, and this one.

    Args:
        path: the file that hands the readings of one attempt on to the next.
    """

    def __init__(self, path: Path):
        self.path, self.started, self.cpu_started = path, time.monotonic(), time.process_time()
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.earlier_seconds, self.earlier_cpu = earlier.get("seconds", 0.0), earlier.get("cpu_seconds", 0.0)
        self.earlier_peak = earlier.get("peak_memory_mb", 0.0)

    def read(self) -> dict[str, float]:
        """Returns `seconds`, `cpu_seconds` and `peak_memory_mb` of all attempts until now."""
        seconds = self.earlier_seconds + time.monotonic() - self.started
        cpu = self.earlier_cpu + time.process_time() - self.cpu_started
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": max(self.earlier_peak, peak_memory_mb())}

    def on_save(self, args, state, control, **kwargs):
        write_json(self.path, self.read())


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns every trainable parameter by name."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trained_weights(model: nn.Module, directory: Path) -> None:
    """Copies the weights of a checkpoint into the parameters that train; raises ValueError if they are others."""
    file = directory / TRAINED_WEIGHTS_FILE
    saved, trainable = load_file(file), trained_weights(model)
    if saved.keys() != trainable.keys():
        differing = sorted(saved.keys() ^ trainable.keys())
        raise ValueError(f"{file} does not hold the parameters that train now; only one of the two has {differing}")
    for name, parameter in model.named_parameters():
        if name in saved:
            parameter.copy_(saved[name])


def peak_memory_mb() -> float:
    """Returns the peak memory in MiB: of what was allocated on the GPU, or of this process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

"""What a training leaves behind, as `training.json` holds it. No torch here: reports read results without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Required, Self, TypedDict

from studykit.errors import UserError
from studykit.runs.files import read_json, write_json
from studykit.study.methods import PHASES


class AttentionLook(TypedDict):
    """The attention of a fusion at one look at the validation loss, at the tokens that predict completions."""

    weights: list[list[float]]  # L layers x A members, means
    saturated: list[float]  # by layer: share of tokens with one weight above `attention.record.SATURATED`
    query_gradient: list[float]  # by layer: norm of the gradient of the mean loss at W_q; [] without such a matrix
    key_gradient: list[float]  # likewise at W_k


class ProbeLook(TypedDict):
    """What a probe of a fusion in training found, see `probes`."""

    rows: int  # that were drawn
    norm: float  # of the gradient of the mean loss per token, on the base as it is kept in the training
    cosine: float | None  # with the gradient on the base in full precision; None where the base is kept so
    noise: float  # estimate of tr(S), the noise of one row's gradient
    signal: float  # estimate of |G|^2; it may be negative
    changed: float | None  # share of the trained numbers that differ from the last probe; None: there was none


class LogEntry(TypedDict, total=False):
    """One entry of a training's log: training quantities, or validation losses, at a step."""

    step: Required[int]  # optimizer steps taken until then
    epoch: float
    loss: float  # nats per token, mean over the steps since the last entry; the value penalty is part of it
    value_penalty: float  # value_regularizer * sum_l ||W_v - I||_F^2 at this step, for a fusion
    grad_norm: float  # before clipping
    grad_norms: list[float | None]  # the same at each step since the last entry; None: it was not finite
    learning_rate: float
    eval_loss: float  # nats per completion token, over the validation rows
    eval_exact_match: float  # share of validation rows whose completion is exact, where `select_on` asks for it
    eval_sequence_loss: float  # nats per token of prompt and completion, over the validation rows
    diverged: float  # 1: the loss was not finite, and the training was ended; only of one that is probed
    probe: ProbeLook  # of a fusion that is probed
    attention: AttentionLook  # of a fusion, beside the validation losses


@dataclass(frozen=True)
class TrainingResult:
    """The result of one training, of an adapter, of one phase of a fusion, or of a base.

    result = TrainingResult.read("runs/fusion/lua-advfusion_zero-s0-.../phase1/training.json")
    gain = result.validation_loss(0) - result.validation_loss()
    """

    log: list[LogEntry]  # in the order of the steps
    best_step: int  # the step whose weights were kept; 0: those before the first step
    steps: int  # optimizer steps taken
    seconds: float  # wall time of all attempts; the time between them is excluded
    cpu_seconds: float  # CPU time of this process in all attempts, over all its threads
    trainable: int  # parameters that were trained
    peak_memory_mb: float  # MiB allocated on the GPU, or resident in this process on a CPU
    precision: str = field(
        default="", kw_only=True
    )  # of the forward pass, fp32 or bf16: what `auto` became; "": unknown
    matrix_products: str = field(default="", kw_only=True)  # of fp32: torch's float32_matmul_precision; highest: exact

    @property
    def evaluations(self) -> list[LogEntry]:
        """Returns the entries that hold validation losses, in order."""
        return [entry for entry in self.log if "eval_loss" in entry]

    def validation_loss(self, step: int | None = None, of: str = "loss") -> float:
        """Returns a validation loss in nats per token.

        Args:
            step: a step at which it was measured; None: that of the kept weights.
            of: `loss` of the completions, or `sequence_loss` of prompts and completions.
        """
        step = self.best_step if step is None else step
        evaluations: Sequence[Mapping[str, Any]] = self.evaluations
        return next(entry[f"eval_{of}"] for entry in evaluations if entry["step"] == step)

    def headline(self) -> dict[str, float]:
        """Returns the numbers that the index of a study shows of this training."""
        numbers = {"validation loss": self.validation_loss(), "trainable": self.trainable}
        return numbers | {"best step": self.best_step}

    def write(self, file: Path) -> None:
        """Writes the result as JSON."""
        write_json(file, asdict(self))

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Reads a result of this kind, or of one with more fields; raises UserError if a field is missing."""
        values = read_json(Path(file))
        needed = [known.name for known in fields(cls) if known.default is MISSING]
        if missing := [name for name in needed if name not in values]:
            raise UserError(
                f"{file} has no {', '.join(missing)}; it was not written by this version; run its notebook again."
            )
        return cls(**{known.name: values[known.name] for known in fields(cls) if known.name in values})


@dataclass(frozen=True)
class AdapterTrainingResult(TrainingResult):
    """The result of an adapter's training, with the further numbers that notebook 02 shows."""

    training_rows: int
    validation_rows: int
    parameters: int  # of the base and the adapter together
    tokens_per_second: float  # trained tokens, padding excluded
    starts: dict[str, float]  # validation loss of each run that it could start from; {}: there was no choice
    base_losses: dict[str, float]  # validation losses of the base alone: completion, sequence
    examples: list[dict[str, str]]  # {before, after}: completions of the first validation prompts


@dataclass(frozen=True)
class BaseTrainingResult(TrainingResult):
    """The result of a base's training, with the further numbers that notebook 00 shows."""

    blocks: int  # blocks of tokens, the held-out ones included
    held_out: int  # blocks on which the validation loss is measured
    block_tokens: float  # mean tokens of a training block
    tokens_per_second: float  # trained tokens, padding excluded
    corpus: list[dict]  # a row per language: its documents, those of each kind, and its characters


def read_phase_results(run_dir: str | Path, method: str) -> dict[str, TrainingResult]:
    """Reads the results of a fusion run by the titles of its phases in figures, in order."""
    results = {phase.title: Path(run_dir, phase.key, "training.json") for phase in PHASES[method]}
    return {title: TrainingResult.read(file) for title, file in results.items() if file.exists()}

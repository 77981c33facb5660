"""What notebook 02 accepts: the parameters of an adapter, and what any training accepts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from studykit.study.fields import (
    Optimizer,
    Planned,
    Quantization,
    Section,
    auto,
    role,
    run_dir,
)

WITHOUT_FOLD = ("without_fold_1", "without_fold_2", "without_fold_3")  # values of `rows` of an adapter, see `cross_fit`


class Training(Section):
    """What an adapter's and a fusion's training share."""

    epochs: float | None = Field(
        None, gt=0, description="The training reads its rows this many times, in place of `steps`; null means `steps`."
    )
    batch_size: int = Field(4, ge=1, description="A forward pass reads this many rows.")
    gradient_accumulation: int = Field(
        1, ge=1, description="An optimizer step sums the gradients of this many forward passes."
    )
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="The learning rate rises during this share of the steps.")
    optimizer: Optimizer = Field(
        "adamw",
        description=(
            "AdamW keeps its moments in fp32 (adamw) or in 8 bits (adamw_8bit), or in either with paging out of a full "
            "GPU (paged_adamw_32bit, paged_adamw_8bit)."
        ),
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW decays the weights by this factor.")
    eval_every: int = Field(20, ge=1, description="The validation loss is measured every so many steps.")
    patience: int = Field(
        0,
        ge=0,
        description=(
            "The training stops after this many measurements without a better loss; 0 means that it never stops early."
        ),
    )
    select_on: Literal["loss", "exact_match"] = Field(
        "loss",
        description=(
            "A step is better if the completion loss on validation rows is less (loss), or if more completions of them "
            "are exact, and among equals if the loss is less (exact_match)."
        ),
    )
    keep: Literal["best", "best_after_start", "last"] = Field(
        "best",
        description=(
            "The weights of the best validated step are kept, the start included (best) or not "
            "(best_after_start), or those of the last step (last)."
        ),
    )
    loss_on: Literal["completion", "sequence"] = Field(
        "completion", description="The loss counts the tokens of the completion alone, or of the whole sequence."
    )
    packing: bool = Field(False, description="Short rows of a batch share one sequence, without seeing each other.")
    gradient_checkpointing: bool = Field(
        False, description="Activations are computed twice, which trades time for memory."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="The forward pass computes in fp32, in bf16, or in whichever the hardware is fast with (auto).",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    quantization: Quantization | None = Field(
        None,
        description=(
            "While this trains, the base is kept in memory as it is (none), in 4 bits (nf4) or in 8 bits (int8); null "
            "means as the study's own quantization says."
        ),
    )
    validation: Literal["all", "half"] = role(
        "all",
        (
            "All validation rows select steps (all), or one half of them, while the loss on the other judges the "
            "training as a trial (half)."
        ),
    )

    @model_validator(mode="after")
    def _rows_are_apart(self) -> Self:
        if self.packing and self.select_on == "exact_match":
            raise ValueError("select_on is 'exact_match', which needs rows apart; it must be loss, or packing false")
        return self


class AdapterParams(Training):
    """02_adapter: one adapter of one language."""

    base: Planned[str] = run_dir("The adapter is trained on this base_model run.")
    data: Planned[str] = run_dir("The rows come from this data run.")
    language: str = role("python", "The rows of this language train the adapter.")
    method: Literal["bottleneck", "houlsby", "parallel", "compacter", "compacterpp", "lora", "full"] = role(
        "bottleneck",
        (
            "The adapter is of this kind: bottleneck, houlsby, parallel, compacter, "
            "compacterpp or lora; full trains all weights of the base instead."
        ),
    )
    trained_on: Literal["task", "code"] = role(
        "task", "The adapter learns the task, or the task's targets as plain code (code)."
    )
    seed: int = role(0, "The seed decides the initial weights and the order of the rows.", ge=0)
    rows: Literal["all", "half", "pooled", "without_fold_1", "without_fold_2", "without_fold_3"] = role(
        "all",
        (
            "The adapter trains on all training rows of its language, on one half of them, so that a fusion can train "
            "on the other (half), on all but one of three folds (without_fold_1, without_fold_2, without_fold_3), or "
            "on those of all members together (pooled)."
        ),
    )
    start: Planned[list[str]] = run_dir(
        "Training goes on from the best of these adapter runs on the validation rows; an empty list means new weights."
    )
    steps_from: Planned[list[str]] = run_dir(
        "The training ends at the step at which the mean loss of these runs, one per fold, is best; an empty list "
        "means that its own validation rows choose the step."
    )
    train_embeddings: bool = Field(
        False,
        description="The base's embeddings and head are trained with the adapter, as published; the head is saved.",
    )
    init_seed: Literal["shared", "by_language"] = Field(
        "shared",
        description=(
            "All adapters of one kind and seed start from the same weights (shared), or those of each language from "
            "their own (by_language)."
        ),
    )
    reduction_factor: float = Field(
        16.0,
        ge=1,
        description="The bottleneck of all kinds but lora is this many times narrower than the hidden size.",
    )
    lora_rank: int = Field(16, ge=1, description="LoRA's matrices have this rank.")
    lora_alpha: float = Field(16.0, gt=0, description="LoRA's output is scaled by this number divided by the rank.")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="LoRA drops this share of its inputs while it trains.")
    learning_rate: Planned[float] = auto(
        "The learning rate starts at this peak and decays linearly; null means the published 1e-4, or 2e-5 for full.",
        gt=0,
        le=1,
    )
    steps: Planned[int] = auto(
        (
            "The adapter is trained for this many optimizer steps; null means the study's "
            "`steps`, or `target_steps` for the target."
        ),
        ge=0,
    )
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _start_fits(self) -> AdapterParams:
        if self.steps == 0 and not self.start:
            raise ValueError("steps is 0, which only an adapter with a start may have; it must be at least 1")
        if self.start and self.method == "full":
            raise ValueError("start names adapter runs, but method is 'full'; it must be a kind of adapter")
        return self

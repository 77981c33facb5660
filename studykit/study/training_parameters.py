"""What notebooks 02 and 03 accept: the parameters of adapters and fusions."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from studykit.errors import show
from studykit.study.fields import (
    Optimizer,
    Planned,
    Quantization,
    Rank,
    Section,
    Temperature,
    auto,
    plan_only,
    role,
    run_dir,
)
from studykit.study.methods import PHASES, UNTRAINED

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


class PhaseParams(Section):
    """One phase in which a fusion is trained; what is None follows from the method's word and its other parameters."""

    masked: str | None = Field(
        default=None,
        min_length=1,
        description="While the phase trains, the target's member (target), another one by its name, or none is masked.",
    )
    steps: int | None = Field(
        default=None, ge=0, description="The phase has this many optimizer steps; with 0 its start is only measured."
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="The learning rate of the phase starts at this peak and decays linearly."
    )
    rows: Literal["target", "all"] | None = Field(
        default=None, description="The phase trains on the rows of the target, or of all members (all)."
    )
    patience: int | None = Field(
        default=None,
        ge=0,
        description="The phase stops after this many measurements without a better loss; 0 means never.",
    )


class FusionParams(Training):
    """03_fusion: one fusion over the members' adapters, in one phase (AdapterFusion) or two (AdvFusion)."""

    base: Planned[str] = run_dir("The fusion is trained on this base_model run.")
    data: Planned[str] = run_dir("The rows come from this data run.")
    members: Planned[dict[str, str]] = run_dir("These adapter runs are fused, by language, the target last.")
    target: Planned[str] = role(None, "This is the low-resource language.")
    method: Literal[
        "adapterfusion",
        "advfusion",
        "average",
        "scalar_mix",
        "mhr",
        "task_arithmetic",
        "ties",
        "merge",
        "xlora",
        "arrow",
    ] = role(
        "adapterfusion",
        (
            "The members are fused by attention in one phase (adapterfusion) or two (advfusion), or by a composition "
            "without attention: average, scalar_mix, mhr, task_arithmetic, ties, merge, xlora or arrow."
        ),
    )
    variant: Literal["full", "static", "lowrank"] = role(
        "full",
        ("The attention has all its matrices (full), no value matrix (static), or matrices of rank `rank` (lowrank)."),
    )
    mask: Literal["zero", "exclude", "none"] = role(
        "none",
        (
            "Phase 1 of AdvFusion sets the masked member to zero (zero), leaves it out of the softmax (exclude), or "
            "masks nothing, as other methods (none)."
        ),
    )
    masked_member: str = role("", "This member is masked in phase 1 of AdvFusion; empty means the target's.")
    left_out: list[str] = role([], "These members of the study are not fused.")
    placebo: Literal["none", "random", "shuffled"] = role(
        "none",
        (
            "The source members are as they were trained (none), drawn again with their norms (random), or have their "
            "layers in another order (shuffled)."
        ),
    )
    seed: int = role(0, "The seed decides the initial weights and the order of the rows.", ge=0)
    steps: int = Field(
        100,
        ge=1,
        description="A phase has this many optimizer steps; adapterfusion has one, with twice as many (see budget).",
    )
    learning_rate: Planned[float] = auto(
        (
            "The learning rate starts at this peak and decays linearly; null means the "
            "published 1e-5, or 1e-4 over Compacter, and 0.05 for scalar_mix and mhr."
        ),
        gt=0,
        le=1,
    )
    value_regularizer: float = Field(
        0.01,
        ge=0,
        description="The loss has this multiple of ||V - I||^2, which keeps the value matrices near the identity.",
    )
    carry_optimizer: bool = Field(False, description="Phase 2 continues with the Adam moments of phase 1.")
    budget: Literal["equal", "single"] = Field(
        "equal",
        description=(
            "A method with one phase has as many steps as the two phases of advfusion together (equal), or as one of "
            "them, as published (single)."
        ),
    )
    weights: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="The fusion's weights stay in fp32, or are rounded to bf16 after every step, as published.",
    )
    probe_every: int = Field(
        0,
        ge=0,
        description=(
            "Every so many steps the gradient is compared with that on the base in full precision, which is then "
            "loaded beside, and its noise is measured; 0 means never."
        ),
    )
    float32_matmul_precision: Literal["highest", "high"] = Field(
        "highest",
        description=(
            "On a GPU, products of fp32 matrices are exact (highest), or computed in TF32 (high), which is faster and "
            "has 10 bits of mantissa; a CPU always computes them exactly."
        ),
    )
    keep_trainer_state: bool = Field(
        False,
        description=(
            "The optimizer's state at the end of each phase is published with the run; otherwise it is removed as soon "
            "as it is not needed."
        ),
    )
    late_regularizer: bool = Field(
        False, description="The first step of a phase lacks the value penalty, whose gradient comes late, as published."
    )
    head: Literal["none", "source", "target", "restored"] = Field(
        "none",
        description=(
            "Of members with a trained head the fusion uses none, that of the last source, that of the target, or "
            "that of the last source in phase 1 and then the target's (restored)."
        ),
    )
    phase1_data: Literal["target", "all"] = Field(
        "target", description="Phase 1 trains on the rows of the target, or of all members (all)."
    )
    phases: list[PhaseParams] = role(
        [],
        (
            "These are the phases of the method in their order, each with values of its own; an empty list means that "
            "all phases follow from the method and the other parameters."
        ),
    )
    rows: Literal["same", "held_out", "cross_fit"] = Field(
        "same",
        description=(
            "The fusion and the target's member train on the same rows of the target (same), each on one half of them, "
            "by the seed (held_out), or the fusion reads each row through a member that was trained on the other "
            "folds (cross_fit)."
        ),
    )
    fold_members: Planned[list[str]] = run_dir(
        "With cross_fit these adapter runs stand in the place of the target's member while the fusion trains, each for "
        "the rows of the fold that it has not seen."
    )
    fold: int = role(
        0,
        "With cross-validation, the fusion trains without this fold of the target's rows, which chooses its steps; 0 "
        "means that it trains on all.",
        ge=0,
        le=len(WITHOUT_FOLD),
    )
    members_quantization: Quantization | None = plan_only(
        "The members were trained on a base that was kept so (none, nf4, int8); null means as the fusion's own.",
    )
    steps_from: Planned[list[str]] = run_dir(
        "Each phase ends at the step at which the mean loss of these runs, one per fold, is best; an empty list means "
        "that the target's validation rows choose the step."
    )
    same_order: bool = Field(False, description="Every phase reads the rows in the same order.")
    rank: Rank = Field(
        8,
        description=(
            "With lowrank, queries and keys have this many dimensions, and V - I has this rank; match means the rank "
            "with as many parameters as one member."
        ),
    )
    scores: Literal["dot", "scaled", "query_norm"] = Field(
        "dot",
        description=(
            "The scores of the members are the published products of query and key (dot), these divided by the root of "
            "their dimensions (scaled), or products of a query that reads normalised states (query_norm)."
        ),
    )
    temperature: Temperature = Field(
        1.0,
        description=(
            "The scores are divided by this number, 1 as published; with auto, by the least power of two at which the "
            "untrained weights have 90 % of the uniform entropy in every layer."
        ),
    )
    factor: Planned[float] = auto(
        (
            "The sum of the members' updates is multiplied by this factor in task_arithmetic and merge, their mean in "
            "ties; null means 1 / members, or 1 for ties."
        ),
        gt=0,
    )
    density: float = Field(
        0.2, gt=0, le=1, description="Of each member's update, ties keeps this share, the largest entries."
    )
    heads: int = Field(8, ge=1, description="The members' input has so many blocks in mhr, each with its weights.")
    top_k: int = Field(3, ge=1, description="Each token reads so many members in arrow, or all if they are fewer.")
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _mask_fits(self) -> FusionParams:
        if self.mask != "none" and self.method != "advfusion":
            raise ValueError(f"mask is {self.mask!r}; {self.method} takes 'none'")
        masked = self.masked_member or self.target
        if self.masked_member and self.mask == "none":
            raise ValueError(f"masked_member is {show(self.masked_member)}; without a mask it must be empty")
        if self.members is not None and self.mask != "none" and masked not in self.members:
            raise ValueError(f"masked_member is {show(masked)}; it must be a member ({', '.join(self.members)})")
        return self

    @model_validator(mode="after")
    def _phases_fit(self) -> FusionParams:
        count = len(PHASES[self.method])
        if self.phases and (self.method in UNTRAINED or len(self.phases) != count):
            accepted = "no phases, since nothing trains" if self.method in UNTRAINED else f"a list of {count}"
            raise ValueError(f"phases is a list of {len(self.phases)}; {self.method} takes {accepted}")
        for number, phase in enumerate(self.phases):
            if phase.masked in (None, "none"):
                continue
            if self.mask == "none":
                raise ValueError(
                    f"phases[{number}].masked is {show(phase.masked)}, but mask is 'none'; name the phases of "
                    "advfusion_zero or advfusion_exclude"
                )
            if self.members and (self.target if phase.masked == "target" else phase.masked) not in self.members:
                raise ValueError(
                    f"phases[{number}].masked is {show(phase.masked)}; it must be target, none, or one of "
                    f"{', '.join(self.members)}"
                )
        return self

    @model_validator(mode="after")
    def _members_can_change(self) -> FusionParams:
        if self.rows == "cross_fit" and (self.packing or self.method == "xlora"):
            why = "packing is true" if self.packing else "method is 'xlora'"
            raise ValueError(
                f"rows is 'cross_fit', but {why}; it needs rows apart, and a composition whose members can change from "
                "row to row: adapterfusion, advfusion, scalar_mix or mhr"
            )
        return self

    @model_validator(mode="after")
    def _moments_stay_paged(self) -> FusionParams:
        if self.carry_optimizer and self.optimizer.startswith("paged"):
            raise ValueError(
                f"optimizer is '{self.optimizer}', whose moments carry_optimizer cannot carry; it carries "
                "those of adamw and adamw_8bit"
            )
        return self

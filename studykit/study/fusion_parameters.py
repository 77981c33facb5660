"""What notebook 03 accepts: the parameters of a fusion, and of one of its phases."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from studykit.errors import show
from studykit.study.fields import (
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
from studykit.study.training_parameters import WITHOUT_FOLD, Training


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
    factor: float | None = Field(
        None,
        gt=0,
        description=(
            "The sum of the members' updates is multiplied by this factor in task_arithmetic and merge, their mean in "
            "ties; null means 1 / members, or 1 for ties."
        ),
    )
    density: float = Field(
        0.2, gt=0, le=1, description="Of each member's update, ties keeps this share, the largest entries."
    )
    heads: int = Field(8, ge=1, description="The members' input has so many blocks in mhr, each with its weights.")
    top_k: int = Field(3, ge=1, description="Each token reads so many members in arrow, or all if they are fewer.")
    out: Planned[str] = run_dir("The run is published in this directory.")

    @property
    def merge_factor(self) -> float:
        """Returns the factor of a merge, which depends on the number of members where none is given."""
        if self.factor is not None:
            return self.factor
        return 1.0 if self.method == "ties" else 1 / len(self.members or [""])

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

"""What notebooks 00 to 03 accept: the parameters of bases, rows, adapters and fusions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from studykit.errors import show
from studykit.study.fields import (
    DataFormat,
    Optimizer,
    Planned,
    Quantization,
    Rank,
    Section,
    Task,
    Temperature,
    auto,
    role,
    run_dir,
)


class BaseModelParams(Section):
    """00_base_model: the frozen base, made from scratch or fetched."""

    base: Planned[str] = role(
        "scratch", "The base model is 'scratch' (trained here), a hub id such as owner/name, or a local directory."
    )
    quantization: Quantization = role(
        "none", "The base's weights are kept in memory as they are (none), in 4 bits (nf4) or in 8 bits (int8)."
    )
    languages: Planned[list[str]] = role(None, "These are all languages of the study, the target last.")
    target: Planned[str] = role(None, "This is the low-resource language.")
    corpus: str = Field(
        "polyglot",
        min_length=1,
        description=(
            "The base reads programs of the kit's own ('polyglot') or files <language>.jsonl "
            "with `content` in this directory."
        ),
    )
    seed: int = Field(
        0, ge=0, description="The seed decides the corpus, the initial weights and the order of the sequences."
    )
    vocab_size: int = Field(640, ge=257, description="The byte-level BPE vocabulary has this many entries.")
    hidden_size: int = Field(
        96, ge=8, description="The residual stream is this wide; it must be a multiple of 2 * heads."
    )
    layers: int = Field(3, ge=1, description="The model has this many decoder layers.")
    heads: int = Field(4, ge=1, description="Every layer has this many attention heads.")
    intermediate_size: int = Field(288, ge=8, description="The MLP of every layer is this wide.")
    context: int = Field(128, ge=16, description="A training sequence has this many tokens.")
    steps: int = Field(1700, ge=1, description="The base is trained for this many optimizer steps.")
    batch_size: int = Field(16, ge=1, description="An optimizer step reads this many sequences.")
    learning_rate: float = Field(
        3e-3, gt=0, le=1, description="The learning rate starts at this peak and decays linearly."
    )
    samples: int = Field(60_000, ge=100, description="The built-in corpus has this many programs.")
    target_share: float = Field(0.1, ge=0, lt=1, description="This share of the corpus is in the target language.")
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _divisible(self) -> BaseModelParams:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be a multiple of 2 * heads")
        return self


class DataParams(Section):
    """01_data: rows with prompt, target and checks for every language."""

    base: Planned[str] = run_dir("This base_model run provides the tokenizer.")
    task: Task = role(
        "generation",
        (
            "The model is asked for a program (generation), the same program in another "
            "language (translation), a commit message (commit), a summary (summarization) or "
            "a method's name (naming)."
        ),
    )
    members: Planned[list[str]] = role(None, "These are all members of the study, the target last.")
    target: Planned[str] = role(None, "This member has few examples.")
    language: str = role("", "If the members are tasks, all rows are in this language; elsewhere it is empty.")
    path: str | None = Field(
        None,
        min_length=1,
        description=(
            "The rows come from this file, directory or hf://datasets/... address; null means the built-in programs."
        ),
    )
    test_path: str | None = Field(
        None, min_length=1, description="The test rows come from here; null means that `path` has them."
    )
    format: DataFormat = Field(
        "auto", description="The rows have this data set's format; auto recognises it by files and fields."
    )
    source_examples: int = Field(
        2000, ge=1, description="A member besides the target has at most this many training rows."
    )
    target_examples: int = Field(30, ge=1, description="The target has at most this many training rows.")
    valid_examples: int = Field(48, ge=1, description="Every member has at most this many validation rows.")
    test_examples: int = Field(250, ge=1, description="Every member has at most this many test rows.")
    max_prompt_tokens: int = Field(96, ge=4, description="A prompt has at most this many tokens.")
    max_target_tokens: int = Field(96, ge=4, description="A target has at most this many tokens.")
    template: str | None = Field(
        None,
        description="The prompt is this text with {fields} of the row; null means the published default of the task.",
    )
    diff_context: int = Field(
        3, ge=0, description="The diff of a commit shows this many unchanged lines around each change."
    )
    split_by: Literal["repository", "file", "row"] = Field(
        "repository", description="Commits of one repository, of one file, or of neither (row) stay in one split."
    )
    reference: Literal["auto", "docstring", "docstring_tokens"] = Field(
        "auto",
        description=(
            "The reference of a summary is the whole docstring, or the docstring_tokens of its first paragraph with "
            "spaces between them, as in CodeXGLUE; auto takes these for rows of CodeXGLUE and the docstring for others."
        ),
    )
    shares: list[float] = Field(
        [0.8, 0.1, 0.1],
        description="Rows without splits are divided into train, valid and test by these three shares.",
    )
    near_duplicates: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Training rows that are this similar to others are dropped, on a scale up to 1; null drops none.",
    )
    bad_rows: int = Field(0, ge=0, description="At most this many malformed rows are skipped before the run stops.")
    seed: int = Field(0, ge=0, description="The seed decides which rows are drawn and how they are split.")
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _shares_add_up(self) -> DataParams:
        trained, test = self.shares[:2], self.shares[2:]
        if len(test) != 1 or min(trained) <= 0 or test[0] < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(
                f"shares is {show(self.shares)}; it must be three numbers with the sum 1, of which only "
                "the last, the test's, may be 0"
            )
        if self.test_path is not None and self.path is None:
            raise ValueError(f"test_path is {show(self.test_path)}, without a path to train on; it must stand by path")
        return self


class Training(Section):
    """What an adapter's and a fusion's training share."""

    batch_size: int = Field(4, ge=1, description="A forward pass reads this many rows.")
    gradient_accumulation: int = Field(
        1, ge=1, description="An optimizer step sums the gradients of this many forward passes."
    )
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="The learning rate rises during this share of the steps.")
    optimizer: Optimizer = Field(
        "adamw",
        description=(
            "AdamW keeps its moments in fp32 (adamw), in 8 bits (adamw_8bit), or in 8 bits "
            "with paging out of a full GPU (paged_adamw_8bit)."
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
    keep: Literal["best", "best_after_start", "last"] = Field(
        "best",
        description=(
            "The weights with the least validation loss are kept, those of the start included (best) or not "
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
    rows: Literal["all", "pooled"] = role(
        "all",
        "The adapter trains on all training rows of its language, or on those of all members together (pooled).",
    )
    start: Planned[list[str]] = run_dir(
        "Training goes on from the best of these adapter runs on the validation rows; an empty list means new weights."
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
        ("The learning rate starts at this peak and decays linearly; null means the published 1e-4."), gt=0, le=1
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


class FusionParams(Training):
    """03_fusion: one fusion over the members' adapters, in one phase (AdapterFusion) or two (AdvFusion)."""

    base: Planned[str] = run_dir("The fusion is trained on this base_model run.")
    data: Planned[str] = run_dir("The rows come from this data run.")
    members: Planned[dict[str, str]] = run_dir("These adapter runs are fused, by language, the target last.")
    target: Planned[str] = role(None, "This is the low-resource language.")
    method: Literal["adapterfusion", "advfusion", "average", "scalar_mix", "merge", "xlora", "arrow"] = role(
        "adapterfusion",
        (
            "The members are fused by attention in one phase (adapterfusion) or two "
            "(advfusion), or by a composition without attention: average, scalar_mix, merge, "
            "xlora or arrow."
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
        description="Each phase has this many optimizer steps; adapterfusion has one phase and gets twice as many.",
    )
    learning_rate: Planned[float] = auto(
        (
            "The learning rate starts at this peak and decays linearly; null means the "
            "published 1e-5, or 1e-4 over Compacter."
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
    phase1_data: Literal["target", "all"] = Field(
        "target", description="Phase 1 trains on the rows of the target, or of all members (all)."
    )
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
    def _moments_stay_paged(self) -> FusionParams:
        if self.carry_optimizer and self.optimizer == "paged_adamw_8bit":
            raise ValueError(
                "optimizer is 'paged_adamw_8bit', whose moments carry_optimizer cannot carry; it carries "
                "those of adamw and adamw_8bit"
            )
        return self

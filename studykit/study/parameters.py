"""What each notebook accepts: one pydantic model per notebook, strict, with errors of one sentence.

- Types are strict: an integer is accepted where a number is wanted, `true` never is; numbers are finite and in range.
- A field is either the reader's (a number, a word) or the plan's. The plan's are of three kinds: a **role** says which
  run it is (language, method, seed), a **path** says what it stands on, an **auto** value follows from the study. In a
  notebook run by hand a path or auto value of None is filled in from a study (see `plan.resolve`).
- A study's sections are made from the same models (see `study`), so that a key has one definition.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from studykit.errors import UserError, show
from studykit.study import methods
from studykit.study.messages import sentence

POLYGLOT = ("python", "javascript", "go", "ruby", "julia", "lua")  # what the built-in corpus can write
Method = Annotated[str, Field(max_length=60), AfterValidator(methods.known)]
Task = Literal["generation", "translation", "commit", "summarization", "naming"]
DataFormat = Literal["auto", "commitpackft", "xcodeeval", "humaneval", "humanevalx", "multipl_e", "nichetrans", "ct",
                     "codesearchnet", "prepared"]  # fmt: skip
Quantization = Literal["none", "nf4", "int8"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
Runnable = Literal["python", "lua", "ruby", "javascript", "julia", "go", "rust", "java", "c++", "c"]  # see `runtimes`


def role(default: Any, description: str, **limits: Any) -> Any:
    """A field of the plan's that says which run this is."""
    return Field(default, description=description, json_schema_extra={"plan": "role"}, **limits)


def run_dir(description: str) -> Any:
    """A field of the plan's that names run directories; None in a notebook means the study's own."""
    return Field(None, description=description, json_schema_extra={"plan": "path"})


def auto(description: str, **limits: Any) -> Any:
    """A field that follows from the study when it is None."""
    return Field(None, description=description, json_schema_extra={"plan": "auto"}, **limits)


def kind(model: type[BaseModel], field: str) -> str | None:
    """'role', 'path', 'auto', or None for a field that is the reader's alone."""
    return (model.model_fields[field].json_schema_extra or {}).get("plan")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)


class BaseModelParams(Section):
    """00_base_model: the frozen base, made from scratch or fetched."""

    base: str | None = role("scratch", "'scratch', a hub id or a local directory")
    quantization: Quantization = role("none", "weights of the base in memory")
    languages: list[str] | None = role(None, "all languages of the study, the target last")
    target: str | None = role(None, "the low-resource language")
    corpus: str = Field("polyglot", min_length=1,
                        description="'polyglot' or a directory of <language>.jsonl with `content`")
    seed: int = Field(0, ge=0, description="of corpus, initialisation and order")
    vocab_size: int = Field(640, ge=257, description="entries of the byte-level BPE")
    hidden_size: int = Field(96, ge=8, description="width of the residual stream")
    layers: int = Field(3, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads")
    intermediate_size: int = Field(288, ge=8, description="width of the MLP")
    context: int = Field(128, ge=16, description="tokens per training sequence")
    steps: int = Field(1700, ge=1, description="optimizer steps")
    batch_size: int = Field(16, ge=1, description="sequences per step")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="peak, linear decay")
    samples: int = Field(60_000, ge=100, description="programs drawn from the corpus")
    target_share: float = Field(0.1, ge=0, lt=1, description="share of the corpus in the target language")
    out: str | None = run_dir("directory of this run")

    @model_validator(mode="after")
    def _divisible(self) -> BaseModelParams:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be a multiple of 2 * heads")
        return self


class DataParams(Section):
    """01_data: rows with prompt, target and checks for every language."""

    base: str | None = run_dir("base_model run, for its tokenizer")
    task: Task = role("generation", "what the model is asked to write")
    language: str = role("", "of all rows where members are tasks, which then stand in languages, target; else empty")
    languages: list[str] | None = role(None, "all languages of the study, the target last")
    target: str | None = role(None, "the low-resource language")
    path: str | None = Field(None, min_length=1,
                             description="file, directory or hf://datasets/...; None: the built-in corpus")
    test_path: str | None = Field(None, min_length=1, description="the same for the test alone; None: path has it")
    format: DataFormat = Field("auto", description="of the rows in path; auto: told by their files and fields")
    source_examples: int = Field(2000, ge=1, description="training rows per source language, at most")
    target_examples: int = Field(30, ge=1, description="training rows of the target, at most")
    valid_examples: int = Field(48, ge=1, description="validation rows per language, at most")
    test_examples: int = Field(250, ge=1, description="test rows per language, at most")
    max_prompt_tokens: int = Field(96, ge=4, description="tokens of a prompt, at most")
    max_target_tokens: int = Field(96, ge=4, description="tokens of a target, at most")
    template: str | None = Field(None, description="prompt with {fields}; None: the published default of the task")
    diff_context: int = Field(3, ge=0, description="commit: unchanged lines around each change")
    split_by: Literal["repository", "file", "row"] = Field("repository", description="commit: what a split keeps whole")
    shares: list[float] = Field([0.8, 0.1, 0.1], description="train, valid, test, where data has no splits")
    near_duplicates: float | None = Field(None, gt=0, le=1, description="similarity at which rows go; None: never")
    bad_rows: int = Field(0, ge=0, description="malformed rows that are refused before it stops")
    seed: int = Field(0, ge=0, description="of the draw and the split")
    out: str | None = run_dir("directory of this run")

    @model_validator(mode="after")
    def _shares_add_up(self) -> DataParams:
        trained, test = self.shares[:2], self.shares[2:]
        if len(test) != 1 or min(trained) <= 0 or test[0] < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares is {show(self.shares)}; it must be three numbers with the sum 1, of which only "
                             "the last, the test's, may be 0")
        if self.test_path is not None and self.path is None:
            raise ValueError(f"test_path is {show(self.test_path)}, without a path to train on; it must stand by path")
        return self


class Training(Section):
    """What an adapter's and a fusion's training share."""

    batch_size: int = Field(16, ge=1, description="rows per forward pass")
    gradient_accumulation: int = Field(1, ge=1, description="forward passes per optimizer step")
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="share of the steps")
    optimizer: Optimizer = Field("adamw", description="AdamW, its moments in fp32 or 8 bits; paged: out of a full GPU")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's")
    eval_every: int = Field(20, ge=1, description="steps between looks at the validation loss")
    patience: int = Field(0, ge=0, description="looks without a better loss before it stops; 0: it never stops early")
    loss_on: Literal["completion", "sequence"] = Field("completion", description="tokens that count in the loss")
    packing: bool = Field(False, description="short rows of a batch share one; they do not see each other")
    gradient_checkpointing: bool = Field(False, description="trade time for memory")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the forward pass")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")


class AdapterParams(Training):
    """02_adapter: one adapter of one language."""

    base: str | None = run_dir("base_model run")
    data: str | None = run_dir("data run")
    language: str = role("python", "whose rows train it")
    method: Literal[methods.ADAPTERS] = role("bottleneck", "kind of adapter, or full: all weights of the base")
    trained_on: Literal["task", "code"] = role("task", "what it learns: the task, or its targets as plain code")
    seed: int = role(0, "of initialisation and order", ge=0)
    reduction_factor: float = Field(3.0, ge=1, description="all kinds but lora: hidden size / rank")
    lora_rank: int = Field(8, ge=1, description="lora: rank")
    lora_alpha: float = Field(16.0, gt=0, description="lora: scale * rank")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="lora: dropout of its input")
    learning_rate: float | None = auto("peak, linear decay; None: 5e-3 on a base from scratch, else 1e-4", gt=0, le=1)
    steps: int | None = auto("optimizer steps; None: the study's steps, or target_steps for its target", ge=1)
    out: str | None = run_dir("directory of this run")


class FusionParams(Training):
    """03_fusion: one fusion over the members' adapters, in one phase (AdapterFusion) or two (AdvFusion)."""

    base: str | None = run_dir("base_model run")
    data: str | None = run_dir("data run")
    members: dict[str, str] | None = run_dir("adapter runs by language, the target last")
    target: str | None = role(None, "the low-resource language")
    method: Literal["adapterfusion", "advfusion", "average", "scalar_mix", "merge", "xlora", "arrow"] = role(
        "adapterfusion", "one phase or two, or a composition without attention")
    variant: Literal["full", "static", "lowrank"] = role("full", "static: no value matrix; lowrank: of `rank`")
    mask: Literal["zero", "exclude", "none"] = role("none", "what phase 1 does to the target's adapter")
    seed: int = role(0, "of initialisation and order", ge=0)
    steps: int = Field(100, ge=1, description="optimizer steps per phase; adapterfusion gets twice as many")
    learning_rate: float | None = auto("peak, linear decay; None: 2e-3 on a base from scratch, else 1e-5", gt=0, le=1)
    value_regularizer: float = Field(0.01, ge=0, description="weight of ||V - I||^2")
    carry_optimizer: bool = Field(False, description="phase 2 keeps the Adam moments of phase 1")
    phase1_data: Literal["target", "all"] = Field("target", description="whose rows train phase 1")
    rank: int = Field(8, ge=1, description="lowrank: dimensions of queries and keys, rank of V - I")
    out: str | None = run_dir("directory of this run")

    @model_validator(mode="after")
    def _mask_fits(self) -> FusionParams:
        if (self.method == "advfusion") != (self.mask != "none"):
            raise ValueError(f"mask is {self.mask!r}; {self.method} takes "
                             + ("'zero' or 'exclude'" if self.method == "advfusion" else "'none'"))
        return self

    @model_validator(mode="after")
    def _moments_stay_paged(self) -> FusionParams:
        if self.carry_optimizer and self.optimizer == "paged_adamw_8bit":
            raise ValueError("optimizer is 'paged_adamw_8bit', whose moments carry_optimizer cannot carry; it carries "
                             "those of adamw and adamw_8bit")
        return self


class EvaluateParams(Section):
    """04_evaluate: one method on one test split, over its seeds."""

    base: str | None = run_dir("base_model run")
    data: str | None = run_dir("data run")
    trained_runs: list[str] | None = run_dir("trained runs, one per seed; []: the base itself")
    method: Method = role("base", "name of what is evaluated")
    language: str | None = role(None, "whose test split")
    seeds: list[int] | None = run_dir("seeds of the trained runs, in their order")
    batch_size: int = Field(32, ge=1, description="prompts per generation batch")
    max_new_tokens: int = Field(96, ge=1, description="tokens of a completion, at most")
    samples: int = Field(1, ge=1, description="completions per prompt")
    temperature: float = Field(0.0, ge=0, description="of sampling; 0: greedy, always the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="of sampling: probability of the tokens drawn from")
    sampling_seed: int = Field(0, ge=0, description="of the draws")
    stop: list[str] | None = Field(None, description="texts that end a completion; None: those of the rows")
    pass_k: list[int] = Field([1], min_length=1, description="the k of pass@k, at most `samples`")
    batch_check: int = Field(8, ge=0, description="rows written again one by one, to see whether batches change them")
    limit: int | None = Field(None, ge=1, description="rows, at most; None: all")
    execute: list[Runnable] | None = Field(None, description="whose programs are run; None: all with a runtime")
    allow_unsandboxed: bool = Field(False, description="run generated code even where no sandbox works (recorded)")
    timeout: float = Field(4.0, gt=0, le=3600, description="seconds of processor time per run of a program")
    memory_mb: int = Field(512, ge=64, le=65536, description="megabytes of memory per program, its files included")
    out: str | None = run_dir("directory of this run")

    @model_validator(mode="after")
    def _seeds_fit(self) -> EvaluateParams:
        if self.trained_runs is not None and self.seeds is not None and len(self.trained_runs) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; it must name one seed per trained run ({len(self.trained_runs)})")
        return self

    @model_validator(mode="after")
    def _draws_differ(self) -> EvaluateParams:
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"samples is {self.samples}, temperature is 0; greedy completions are all the same, so "
                             "more than one needs a temperature above 0")
        if wrong := [k for k in self.pass_k if not 1 <= k <= self.samples]:
            raise ValueError(f"pass_k holds {show(wrong[0])}; it may hold numbers from 1 to samples ({self.samples})")
        return self


class FusionAttentionParams(Section):
    """05_fusion_attention: where the fusions of one method look."""

    base: str | None = run_dir("base_model run")
    data: str | None = run_dir("data run")
    trained_runs: list[str] | None = run_dir("fusion runs, one per seed")
    method: Annotated[str, AfterValidator(methods.weighing)] = role("adapterfusion", "which fusion")
    seeds: list[int] | None = run_dir("seeds of the trained runs, in their order")
    samples: int = Field(64, ge=1, description="test rows of the target, at most")
    batch_size: int = Field(16, ge=1, description="rows per forward pass")
    tokens: Literal["completion", "prompt", "both"] = Field("completion", description="which tokens are averaged")
    sample: int = Field(0, ge=0, description="index of the row that is shown token by token")
    out: str | None = run_dir("directory of this run")


class CompareParams(Section):
    """06_compare: the methods side by side, with intervals."""

    evaluations: dict[str, str] | None = run_dir("evaluate runs by method, on the target")
    sources: dict[str, str] | None = run_dir("evaluate runs of the source adapters, by language")
    adapters: dict[str, list[str]] | None = run_dir("adapter runs of the target, by method")
    fusions: dict[str, list[str]] | None = run_dir("fusion runs, by method")
    attention: dict[str, str] | None = run_dir("fusion_attention runs, by method")
    target: str | None = role(None, "the low-resource language")
    baseline: str | None = auto("method that the others are compared with; None: adapterfusion where it is run")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    resamples: int = Field(2000, ge=100, description="bootstrap draws")
    out: str | None = run_dir("directory of this run")


class Stage(NamedTuple):
    notebook: str  # stem in notebooks/
    model: type[Section]


STAGES: dict[str, Stage] = {
    "base_model": Stage("00_base_model", BaseModelParams),
    "data": Stage("01_data", DataParams),
    "adapter": Stage("02_adapter", AdapterParams),
    "fusion": Stage("03_fusion", FusionParams),
    "evaluate": Stage("04_evaluate", EvaluateParams),
    "fusion_attention": Stage("05_fusion_attention", FusionAttentionParams),
    "compare": Stage("06_compare", CompareParams),
}


def check(stage: str, values: dict[str, Any], place: str = "") -> Any:
    """`values` as the model of `stage`; raises UserError of one sentence, which starts with `place`."""
    model = STAGES[stage].model
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{place or STAGES[stage].notebook}: {sentence(error, model)}") from None

"""The parameters of every notebook: one strict pydantic model each, with errors of one sentence.

- Types are strict: an integer is accepted where a number is wanted, `true` never is; numbers are finite and in range.
- A field is set either by the reader (a number, a word) or by the plan. The plan's fields are of four kinds: a
  **role** says which run it is (language, method, seed), a **path** names the runs that it reads, an **auto** value
  follows from the study, and what is **plan_only** says something of the runs that are read. In a notebook run by hand
  a path or auto value of None is taken from a study (see `runs.notebook.resolve`).
- A study's sections are made from the same models (see `file`), so that a key has one definition.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, model_validator

from studykit.errors import UserError, show
from studykit.study import methods
from studykit.study.data_parameters import BaseModelParams, DataParams
from studykit.study.fields import Method, Planned, Quantization, Runnable, Section, auto, plan_only, role, run_dir
from studykit.study.fusion_parameters import FusionParams
from studykit.study.gather_parameters import GatherParams
from studykit.study.messages import sentence
from studykit.study.training_parameters import AdapterParams

TRAINED_QUANTIZATION: Any = plan_only(
    "The runs were trained on a base that was kept so (none, nf4, int8); null means as it is kept here."
)


def _command(text: str) -> str:
    """Returns the text of a command; raises ValueError unless it falls apart into words as in a shell."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"the command {show(text)} cannot be read as words: {error}") from None
    if not words:
        raise ValueError(f"the command {show(text)} has no words")
    return text


class EvaluateParams(Section):
    """04_evaluate: one method on one test split, over its seeds."""

    base: Planned[str] = run_dir("The completions come from this base_model run.")
    data: Planned[str] = run_dir("The test rows come from this data run.")
    trained_runs: Planned[list[str]] = run_dir(
        "These trained runs are evaluated, one per seed; an empty list means the base itself."
    )
    method: Method = role("base", "This is the name of the evaluated method.")
    language: Planned[str] = role(None, "The test rows are of this language.")
    seeds: Planned[list[int]] = run_dir("These are the seeds of the trained runs, in their order.")
    batch_size: int = Field(32, ge=1, description="A batch of generation has this many prompts.")
    max_new_tokens: int = Field(96, ge=1, description="A completion has at most this many tokens.")
    samples: int = Field(1, ge=1, description="Every prompt is completed this many times.")
    temperature: float = Field(
        0.0, ge=0, description="Tokens are sampled at this temperature; 0 always takes the likeliest token."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Tokens are sampled from the likeliest ones that together have this probability."
    )
    top_k: int | None = Field(
        None, ge=1, description="Tokens are sampled from this many likeliest ones; null means from all."
    )
    sampling_seed: int = Field(0, ge=0, description="The seed decides which tokens are sampled.")
    stop: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, description="A completion ends at any of these texts; null means those of the rows."
    )
    first_line: bool | None = Field(
        None,
        description=(
            "Text scores read the first line that is not empty of a completion and of its reference; "
            "null does so where the task is commit."
        ),
    )
    pass_k: list[int] = Field([1], min_length=1, description="pass@k is computed for these k, each at most `samples`.")
    shots: int = Field(
        4, ge=1, description="The method fewshot shows at most this many training rows of the target before a prompt."
    )
    batch_check: int = Field(
        8, ge=0, description="This many rows are completed again one by one, to see whether batches change them."
    )
    limit: int | None = Field(None, ge=1, description="At most this many test rows are used; null means all.")
    execute: list[Runnable] | None = Field(
        None,
        description=(
            "Programs in these languages are run, of python, lua, ruby, javascript, julia, "
            "go, rust, java, c++ and c; null means all that have a runtime here."
        ),
    )
    allow_unsandboxed: bool = Field(
        False, description="Generated code is run even where no sandbox works; the report then says so."
    )
    timeout: float = Field(4.0, gt=0, le=3600, description="A program may run for this many seconds.")
    memory_mb: int = Field(512, ge=64, le=65536, description="A program may use this many MB of memory.")
    inputs: int = Field(
        20,
        ge=0,
        le=1000,
        description=(
            "A built-in program that passes its tests is called with this many generated inputs more, and a "
            "translation without tests is compared with its reference by what both write; 0 does neither."
        ),
    )
    identification: int = Field(
        0,
        ge=0,
        le=1000,
        description=(
            "The base ranks the own prompt of each message among those of this many other rows, one forward pass each; "
            "0 does not."
        ),
    )
    embedding: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description=(
            "Messages are compared with their references by the model in this directory or installed package; null "
            "means by none."
        ),
    )
    judge: Annotated[str, AfterValidator(_command)] | None = Field(
        None,
        description=(
            "This command judges completions against their references: it reads JSON lines and writes one verdict for "
            "each; null means nobody does."
        ),
    )
    calibrate: int = Field(
        40, ge=0, le=1000, description="The scores are calibrated on this many built-in edits; 0 means not at all."
    )
    quantization: Quantization | None = Field(
        None,
        description=(
            "While completions are generated and attention is read, the base is kept in memory as it is (none), in 4 "
            "bits (nf4) or in 8 bits (int8); null means as the study's own quantization says."
        ),
    )
    trained_quantization: Quantization | None = TRAINED_QUANTIZATION
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _seeds_fit(self) -> EvaluateParams:
        if self.trained_runs is not None and self.seeds is not None and len(self.trained_runs) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; it must name one seed per trained run ({len(self.trained_runs)})")
        return self

    @model_validator(mode="after")
    def _draws_differ(self) -> EvaluateParams:
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"samples is {self.samples}, temperature is 0; greedy completions are all the same, so "
                "more than one needs a temperature above 0"
            )
        if wrong := [k for k in self.pass_k if not 1 <= k <= self.samples]:
            raise ValueError(f"pass_k holds {show(wrong[0])}; it may hold numbers from 1 to samples ({self.samples})")
        return self


class FusionAttentionParams(Section):
    """05_fusion_attention: where the fusions of one method look."""

    base: Planned[str] = run_dir("The fusions run on this base_model run.")
    data: Planned[str] = run_dir("The test rows come from this data run.")
    trained_runs: Planned[list[str]] = run_dir("These fusion runs are recorded, one per seed.")
    method: Annotated[str, AfterValidator(methods.check_weighted_word)] = role(
        "adapterfusion", "This is the name of the recorded fusion method."
    )
    seeds: Planned[list[int]] = run_dir("These are the seeds of the trained runs, in their order.")
    samples: int = Field(64, ge=1, description="At most this many test rows of the target are read.")
    batch_size: int = Field(16, ge=1, description="A forward pass reads this many rows.")
    tokens: Literal["completion", "prompt", "both"] = Field(
        "completion", description="Weights are averaged over the tokens of the completion, of the prompt, or of both."
    )
    sample: int = Field(0, ge=0, description="The row with this index is shown token by token.")
    mute: Literal["none", "loss", "layers", "score"] = Field(
        "loss",
        description=(
            "The loss is measured without each member in turn (loss), also in one layer at a time (layers), or with "
            "the main score of all completions beside it (score), which costs a generation for each; or not at all "
            "(none)."
        ),
    )
    quantization: Quantization | None = plan_only(
        "The base is kept in memory so (none, nf4, int8); null means as the base run says."
    )
    trained_quantization: Quantization | None = TRAINED_QUANTIZATION
    out: Planned[str] = run_dir("The run is published in this directory.")


class CompareParams(Section):
    """06_compare: the methods side by side, with intervals."""

    evaluations: Planned[dict[str, str]] = run_dir("These evaluate runs on the target are compared, by method.")
    sources: Planned[dict[str, str]] = run_dir("These evaluate runs score the sources' own adapters, by language.")
    adapters: Planned[dict[str, list[str]]] = run_dir("These are the adapter runs of the target, by method.")
    fusions: Planned[dict[str, list[str]]] = run_dir("These are the fusion runs, by method.")
    attention: Planned[dict[str, str]] = run_dir("These are the fusion_attention runs, by method.")
    trials: Planned[dict[str, list[list[str]]]] = run_dir(
        "These trainings tried values for the methods: by method and trial, one of each seed."
    )
    target: Planned[str] = role(None, "This is the low-resource language.")
    baseline: str | None = auto(
        "The other methods are compared with this one; null means adapterfusion where the"
        " study has it, else its first method."
    )
    contrasts: list[list[str]] | None = Field(
        None,
        description=(
            "These pairs of methods, or of their phases, are compared and no others; null means those of the study's "
            "questions and all with the baseline."
        ),
    )
    interactions: list[list[str]] = Field(
        [],
        description=(
            "For each four methods a, b, c and d, or phases of them, the difference between a - b and c - d is tested."
        ),
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="The intervals have this confidence.")
    resamples: int = Field(
        10_000,
        ge=100,
        description="The bootstrap draws this many samples; the more comparisons, the more it needs.",
    )
    margin: float | None = Field(
        None,
        gt=0,
        description=(
            "Two methods that differ by less, in the unit of the score by which they are judged, are equivalent; "
            "null means that equivalence is not tested."
        ),
    )
    ratings: str | None = auto(
        "People's ratings are read from this directory, where `studykit rate` puts them; null means ratings/<study>."
    )
    out: Planned[str] = run_dir("The run is published in this directory.")

    @model_validator(mode="after")
    def _pairs(self) -> CompareParams:
        if wrong := [pair for pair in self.contrasts or [] if len(set(pair)) != 2 or len(pair) != 2]:
            raise ValueError(f"contrasts holds {show(wrong[0])}; each must be a list of two different methods")
        if wrong := [four for four in self.interactions if len(four) != 4]:
            raise ValueError(f"interactions holds {show(wrong[0])}; each must be a list of four methods")
        return self


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
    "gather": Stage("07_gather", GatherParams),
}
AnyParams = (
    BaseModelParams
    | DataParams
    | AdapterParams
    | FusionParams
    | EvaluateParams
    | FusionAttentionParams
    | CompareParams
    | GatherParams
)


def check(stage: str, values: dict[str, Any], place: str = "") -> Any:
    """Returns `values` as the model of `stage`; raises UserError of one sentence, which starts with `place`."""
    model = STAGES[stage].model
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{place or STAGES[stage].notebook}: {sentence(error, model)}") from None

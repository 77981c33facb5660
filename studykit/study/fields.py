"""The kinds of fields that parameters have, the types that several share, and the strict model below them all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from studykit.errors import show
from studykit.study import methods

POLYGLOT = ("python", "javascript", "go", "ruby", "julia", "lua")  # what the built-in corpus can write
RESERVED_NAMES = {  # those of the tuner's own modules, and of a fusion among a model's adapters
    *("adapters", "fusions", "composition", "down", "up", "query", "key", "value", "weight", "bias"),
    *("input_projection", "output_projection", "W", "W_left", "W_right", "phm_rule", "phm_rule_left"),
    *("phm_rule_right", "layers", "model", "base_model", "fusion"),
}
Method = Annotated[str, Field(max_length=120), AfterValidator(methods.check_word)]
Task = Literal["generation", "translation", "commit", "summarization", "naming"]
DataFormat = Literal[
    "auto",
    "commitpackft",
    "xcodeeval",
    "humaneval",
    "humanevalx",
    "multipl_e",
    "nichetrans",
    "ct",
    "codesearchnet",
    "prepared",
]
Quantization = Literal["none", "nf4", "int8"]
Dtype = Literal["auto", "fp32", "bf16"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]
Runnable = Literal["python", "lua", "ruby", "javascript", "julia", "go", "rust", "java", "c++", "c"]  # see `runtimes`


def _temperature(value: Any) -> Any:
    """Returns a number above 0, or the word auto; raises ValueError for anything else."""
    if value == "auto" or type(value) in (int, float) and 0 < value < math.inf:
        return value if value == "auto" else float(value)
    raise ValueError(f"temperature is {show(value)}; it must be a number above 0, or auto")


def _rank(value: Any) -> Any:
    """Returns an integer of at least 1, or the word match; raises ValueError for anything else."""
    if value == "match" or type(value) is int and value >= 1:
        return value
    raise ValueError(f"rank is {show(value)}; it must be an integer of at least 1, or match")


T = TypeVar("T")
if TYPE_CHECKING:  # a stage reads its parameters after the plan or `runs.notebook.resolve` has filled in every None
    Planned = Annotated[T, "a value that the plan sets"]
    Temperature = float | Literal["auto"]
    Rank = int | Literal["match"]
else:
    Temperature = Annotated[Any, BeforeValidator(_temperature)]
    Rank = Annotated[Any, BeforeValidator(_rank)]
    Planned = T | None


def role(default: Any, description: str, **limits: Any) -> Any:
    """Returns a field that the plan sets and that says which run this is."""
    return Field(default, description=description, json_schema_extra={"plan": "role"}, **limits)


def run_dir(description: str) -> Any:
    """Returns a field in which the plan names run directories; None in a notebook means those of the study."""
    return Field(None, description=description, json_schema_extra={"plan": "path"})


def auto(description: str, **limits: Any) -> Any:
    """Returns a field that follows from the study when it is None."""
    return Field(None, description=description, json_schema_extra={"plan": "auto"}, **limits)


def plan_only(description: str) -> Any:
    """Returns a field that the plan alone sets, whose None is a value: no study is asked for it alone."""
    return Field(None, description=description, json_schema_extra={"plan": "plan_only"})


def kind(model: type[BaseModel], field: str) -> str | None:
    """Returns how the plan sets a field: role, path, auto or plan_only; None for a field that the reader alone sets."""
    extra = model.model_fields[field].json_schema_extra
    plan = extra.get("plan") if isinstance(extra, dict) else None
    return plan if isinstance(plan, str) else None


class Section(BaseModel):
    """The strict model below all parameters: no unknown keys, no conversions, nothing infinite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)

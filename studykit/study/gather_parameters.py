"""What notebook 07 accepts: the comparisons of several studies, and what the studies differ in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from studykit.errors import show
from studykit.study.fields import Planned, Section, auto, run_dir

Similarity = Literal["known", "position", "tokens", "tokenizer", "programs", "syntax", "outputs", "cross_entropy"]
OF_TEXTS = ("tokens", "tokenizer", "programs", "syntax")  # similarities that need no fusion
NOT_CALIBRATED = ("syntax",)  # no made language, whose kinship is known, has a grammar for a parser
COVARIATES = tuple(name for name in OF_TEXTS if name not in NOT_CALIBRATED)  # similarities that may be one
Level = str | int | float | bool | None  # a value that a study has of what varies


class GatherSection(Section):
    """The section `gather` of a family: how its studies are gathered."""

    over: Planned[list[str]] = auto(
        "The studies are drawn from a population in these respects: the first makes the lines of the forest plot; "
        "null means the keys of vary.",
        min_length=1,
    )
    covariate: str | None = Field(
        None,
        description=(
            "The slope of the differences is taken against this: parameters (of the base), target_rows, the mean "
            "similarity of the sources to the target (tokens, tokenizer or programs), a key that the studies "
            "differ in, or the name of the numbers in `values`; null means no slope."
        ),
    )
    values: dict[str, float] | None = Field(
        None,
        description=(
            "The covariate has these values, by the value of the first key of `over`; null means those of the runs."
        ),
    )
    logarithm: bool = Field(
        True,
        description="The slope is per tenfold covariate; false, and for a similarity always, means per unit of it.",
    )
    contrasts: list[list[str]] | None = Field(
        None, description="These pairs of methods are gathered; null means all that the studies compare."
    )
    interactions: list[str] = Field(
        [],
        description=(
            "For each of these keys of vary, the differences between methods at its further levels are compared with "
            "those at its first one, in studies that differ in nothing else."
        ),
    )
    similarity: list[Similarity] | None = Field(
        None,
        description=(
            "The sources are ranked by these similarities to the target (known: of made languages; position: a "
            "placebo; cross_entropy: the loss of a source's adapter on the target's rows, which the method transfer "
            "measures) against their attention, their worth and the loss of their adapters; null ranks nothing."
        ),
        min_length=1,
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="The intervals have this confidence.")

    @model_validator(mode="after")
    def _consistent(self) -> GatherSection:
        if wrong := [pair for pair in self.contrasts or [] if len(set(pair)) != 2 or len(pair) != 2]:
            raise ValueError(f"contrasts holds {show(wrong[0])}; each must be a list of two different methods")
        if self.values is not None and self.covariate is None:
            raise ValueError("values are given, covariate is null; name what the values are")
        return self


class GatherParams(GatherSection):
    """07_gather: one answer over many studies."""

    compares: Planned[dict[str, str]] = run_dir("These compare runs are gathered, by study.")
    bases: Planned[dict[str, str]] = run_dir("These are the base_model runs, by study.")
    data: Planned[dict[str, str]] = run_dir("These are the data runs, by study.")
    levels: Planned[dict[str, dict[str, Level]]] = auto(
        "The studies have these values of what they differ in, by key and study."
    )
    out: Planned[str] = run_dir("The run is published in this directory.")

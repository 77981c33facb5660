"""The section `tune` of a study: the values that every method tries before the study is run."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from studykit.errors import show
from studykit.study.fields import Section

Tried = dict[str, Annotated[list[Any], Field(min_length=1)]]  # key of a section -> the values to try


class TuneSection(Section):
    """The values to try; with several keys of a section, every combination of their values is one trial."""

    adapter: Tried = Field(default={}, description="Every kind of adapter tries these values of the section adapter.")
    fusion: Tried = Field(default={}, description="Every trained composition tries these values of the section fusion.")
    seed: int = Field(
        default=1000, ge=0, lt=2**32, description="The trials have this seed, which is none of the study's."
    )

    def combinations(self, section: str) -> list[dict[str, Any]]:
        """Returns the values of each trial of a section, `adapter` or `fusion`; [] if it has nothing to try."""
        tried: Tried = getattr(self, section)
        return [dict(zip(tried, values, strict=True)) for values in itertools.product(*tried.values())] if tried else []

    @model_validator(mode="after")
    def _same_number_of_trials(self) -> Self:
        for section in ("adapter", "fusion"):
            for key, values in getattr(self, section).items():
                if repeated := [value for value in values if values.count(value) > 1]:
                    raise ValueError(f"tune.{section}.{key} names {show(repeated[0])} twice; each may be named once")
        of_adapters, of_fusions = (math.prod(map(len, part.values())) for part in (self.adapter, self.fusion))
        if self.adapter and self.fusion and of_adapters != of_fusions:
            raise ValueError(
                f"tune gives an adapter {of_adapters} trials and a fusion {of_fusions}; every method must have the "
                "same number"
            )
        return self

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
    by_method: dict[str, Tried] = Field(
        default={},
        description="A kind of adapter or a composition tries these values in place of those of its section.",
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        default=[1000, 1001, 1002],
        min_length=1,
        description="Each trial is trained once with each of these seeds, which are none of the study's.",
    )

    @property
    def tries_something(self) -> bool:
        """Returns whether there are values to try."""
        return bool(self.adapter or self.fusion or self.by_method)

    def combinations(self, section: str, method: str) -> list[dict[str, Any]]:
        """Returns the values of each trial of a method of a section, `adapter` or `fusion`; [] if it tries nothing."""
        tried: Tried = self.by_method.get(method) or getattr(self, section)
        return [dict(zip(tried, values, strict=True)) for values in itertools.product(*tried.values())] if tried else []

    @model_validator(mode="after")
    def _same_number_of_trials(self) -> Self:
        parts = {"adapter": self.adapter, "fusion": self.fusion}
        parts |= {f"by_method.{word}": tried for word, tried in self.by_method.items()}
        for name, tried in parts.items():
            for key, values in tried.items():
                if repeated := [value for value in values if values.count(value) > 1]:
                    raise ValueError(f"tune.{name}.{key} names {show(repeated[0])} twice; each may be named once")
        if repeated := [seed for seed in self.seeds if self.seeds.count(seed) > 1]:
            raise ValueError(f"tune.seeds names {repeated[0]} twice; each may be named once")
        counts = {name: math.prod(map(len, tried.values())) for name, tried in parts.items() if tried}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"tune gives unlike numbers of trials ({listed}); every method must have the same number")
        return self

"""Checks: how a completion is tested by running it, in one class for each kind of test.

`evaluation.execution.programs` makes a program out of a completion and a check. In JSON a check is an object with the
fields below; its `kind` says which class it is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field

from studykit.errors import show


@dataclass(frozen=True)
class Call:
    """One call of a function and what it must return: None, bool, int, float, str, and lists of these."""

    args: list[Any]
    expected: Any


@dataclass(frozen=True)
class FunctionCheck:
    """Calls of one function, which is the check of a built-in program; see `evaluation.execution.calls`."""

    function: str  # in snake_case, which every language spells in its own way
    tests: Annotated[list[Call], Field(min_length=1)]
    kind: Literal["function"] = "function"


@dataclass(frozen=True)
class CipherCheck:
    """Calls of one function in a language made from Lua: a completion is run after its words are translated back."""

    function: str
    tests: Annotated[list[Call], Field(min_length=1)]
    words: dict[str, str]  # of Lua -> of the language; see `polyglot.kin`
    kind: Literal["cipher"] = "cipher"


@dataclass(frozen=True)
class BenchmarkCheck:
    """The text of a benchmark that stands around a completion.

    The forms are those of HumanEval (arXiv 2107.03374), HumanEval-X (2303.17568) and MultiPL-E (2208.08227).
    """

    form: Literal["humaneval", "humaneval-x", "multipl-e"]
    before: str  # what precedes the completion
    after: str  # the tests
    entry_point: str | None = None  # the function that the tests of HumanEval take as their argument
    kind: Literal["benchmark"] = "benchmark"


@dataclass(frozen=True)
class StdioTest:
    """One input of a whole program and the outputs that are right."""

    input: str
    outputs: Annotated[tuple[str, ...], Field(min_length=1)]  # the program passes if it writes any of them


@dataclass(frozen=True)
class StdioCheck:
    """Inputs and outputs of a whole program, as xCodeEval has them (arXiv 2303.03004)."""

    tests: Annotated[tuple[StdioTest, ...], Field(min_length=1)]
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # seconds per test
    memory_limit_mb: Annotated[int, Field(gt=0)] | None = None
    kind: Literal["stdio"] = "stdio"


Check = Annotated[FunctionCheck | CipherCheck | BenchmarkCheck | StdioCheck, Discriminator("kind")]


def flaw(check: Check | None) -> str:
    """Returns what makes a check unusable though its fields have the right types; "" for nothing."""
    if isinstance(check, BenchmarkCheck) and check.form == "humaneval" and not check.entry_point:
        return "a check of the form 'humaneval' needs an entry_point"
    if isinstance(check, FunctionCheck | CipherCheck):
        if not re.fullmatch(r"[A-Za-z_]\w*", check.function):
            return f"{show(check.function)} is not the name of a function"
        if len({len(test.args) for test in check.tests}) > 1:
            return "its tests have different numbers of args"
        for value in (value for test in check.tests for value in (*test.args, test.expected)):
            if not _is_value(value):
                return f"{show(value)} is none of null, true, false, a finite number, text, or a list of these"
    return ""


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_value, value))
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, bool | int | str)

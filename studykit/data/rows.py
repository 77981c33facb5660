"""Rows: what a study trains on and tests with, in one form for all tasks, and the rows of a finished data run.

The five tasks are commit messages, code generation, code translation, code summarization and method naming. A data run
holds `rows/<language>/<split>.jsonl`, one JSON object per line with the fields of `Row`; fields at their default are
left out.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from studykit.data.checks import Check
from studykit.data.jsonl import json_lines
from studykit.data.rejects import BadRow
from studykit.errors import UserError, show
from studykit.runs.manifest import finished_run


@dataclass(frozen=True)
class Row:
    """A prompt, the target that a model is to write under it, and how a completion is judged."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str  # unique within its language and split
    language: str  # of the target, as the study names it
    prompt: str
    target: str  # empty where `no_reference` is set
    body: tuple[int, int] | None = None  # first and last + 1 character of the prompt that may be cut; None: all may be
    group: str | None = None  # rows of one group (problem, repository, structure) are not independent of each other
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # a completion ends before the first of these texts
    end_if_cut: bool = False  # whether a target that is cut ends with the end-of-text token all the same
    no_reference: bool = False  # the row has no target and is judged by its check alone
    source_language: str | None = None  # of the code in the prompt, where it is not `language`
    check: Check | None = None  # how to test a completion by running it

    @property
    def body_text(self) -> str:
        """Returns the part of the prompt that may be cut."""
        return self.prompt if self.body is None else self.prompt[slice(*self.body)]

    def as_plain_code(self) -> Row:
        """Returns the row of nothing but its target, which is code: there is no task to read before it."""
        return replace(self, prompt="\n", body=(0, 0), check=None)


Rows = dict[str, dict[str, list[Row]]]  # language -> split -> rows
_JSON = TypeAdapter(Row)
_KINDS = "an object whose kind is function, cipher, benchmark or stdio"
_ACCEPTED = {
    "model_attributes_type": "an object",
    "dataclass_type": "an object",
    "union_tag_not_found": _KINDS,
    "union_tag_invalid": _KINDS,
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "bool_type": "true or false",
}


def row_to_json(row: Row) -> dict[str, Any]:
    """Returns the row as a JSON object without the fields that are empty."""
    values = _JSON.dump_python(row, mode="json")
    return {name: value for name, value in values.items() if name == "target" or value not in (None, False, [])}


def row_from_json(values: dict[str, Any]) -> Row:
    """Returns the row of a JSON object. Raises: BadRow, which names the first field that is not as it should be."""
    try:
        row = _JSON.validate_python(values)
    except ValidationError as error:
        raise _bad_field(error) from None
    if row.body is not None and not 0 <= row.body[0] <= row.body[1] <= len(row.prompt):
        raise BadRow(
            "the field 'body' is not a part of the prompt", f" ({list(row.body)} of {len(row.prompt)} characters)"
        )
    return row


def _bad_field(error: ValidationError) -> BadRow:
    first = error.errors()[0]
    name, inside = first["loc"][0], ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "missing" and not inside:
        return BadRow(f"the field {name!r} is missing")
    if first["type"] == "extra_forbidden" and not inside:
        return BadRow(f"the field {name!r} is unknown", f"; known are {', '.join(Row.__dataclass_fields__)}")
    accepted = _ACCEPTED.get(first["type"], first["msg"].removeprefix("Input should be "))
    place = f" at {inside}" if inside else ""
    return BadRow(f"the field {name!r} is not valid", f"{place}, where {show(first['input'])} stands: {accepted}")


def write_rows(directory: Path, rows: Rows) -> None:
    """Writes `<directory>/<language>/<split>.jsonl`."""
    for language, splits in rows.items():
        (directory / language).mkdir(parents=True, exist_ok=True)
        for split, items in splits.items():
            text = "".join(json.dumps(row_to_json(row), ensure_ascii=False) + "\n" for row in items)
            (directory / language / f"{split}.jsonl").write_text(text, encoding="utf-8")


def read_row_file(path: Path) -> list[Row]:
    """Reads a file of rows. Raises: UserError, which names file and line, for a line that is no row."""
    rows = []
    for place, values in json_lines(path):
        try:
            rows.append(row_from_json(values))
        except BadRow as bad:
            raise bad.at(place) from None
    return rows


def folds(rows: Sequence[Row], count: int, seed: int) -> list[list[Row]]:
    """Divides rows in folds of about equal size, by the seed; rows of one group stay together, and all in their order.

    Raises: UserError if the rows are of fewer groups than there are folds.
    """
    sizes = Counter(row.group or row.id for row in rows)
    groups = sorted(sizes)
    random.Random(f"halves {seed}").shuffle(groups)
    if len(groups) < count:
        raise UserError(
            f"{len(rows)} rows are of {len(groups)} groups, so they cannot be divided into {count} parts; leave out "
            "rows: held_out, rows: cross_fit, or tune."
        )
    chosen: list[set[str]] = [set() for _ in range(count)]
    for group in groups:
        min(chosen, key=lambda fold: sum(sizes[other] for other in fold)).add(group)
    return [[row for row in rows if (row.group or row.id) in fold] for fold in chosen]


def halves(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Divides rows in two, see `folds`."""
    first, second = folds(rows, 2, seed)
    return first, second


def validation_rows(rows: list[Row], validation: str) -> tuple[list[Row], list[Row]]:
    """Returns the validation rows that select steps, and those that judge a trial: with `all` none, else half of them.

    All trials of a study have the same halves.
    """
    return halves(rows, seed=0) if validation == "half" else (rows, [])


@dataclass(frozen=True)
class DataRun:
    """A finished run of notebook 01: its rows, and the parameters that say how they are read.

    data = DataRun("runs/data/generation-lua-0123456789")
    train = data.rows("lua", "train")
    data.limits, data.are_programs("lua")
    """

    directory: str | Path

    @cached_property
    def params(self) -> dict[str, Any]:
        """Returns the parameters of the run; raises UserError if it is not finished, or damaged."""
        return finished_run(self.directory).params

    @property
    def limits(self) -> tuple[int, int]:
        """Returns the most tokens of a prompt and of a target: max_prompt_tokens and max_target_tokens."""
        return self.params["max_prompt_tokens"], self.params["max_target_tokens"]

    def task_of(self, language: str) -> str:
        """Returns the task of a language's rows; where members are tasks, `language` is one."""
        return language if self.params["language"] else self.params["task"]

    def is_cross_validated(self, language: str) -> bool:
        """Returns whether a language is the target and has no validation rows of its own (`data.valid: k_fold`)."""
        return self.params.get("valid") == "k_fold" and language == self.params["target"]

    def are_programs(self, language: str) -> bool:
        """Returns whether the targets of a language's rows are programs."""
        return self.task_of(language) in ("generation", "translation", "code")

    def rows(self, language: str, split: str, trained_on: str = "task") -> list[Row]:
        """Reads the rows of one language and split; of a target without validation rows, its training rows for those.

        Args:
            trained_on: `code` gives the targets as plain code, which rows of generation and translation have.
        Raises: UserError if the run has no such rows, or if targets that are not code are asked for as plain code.
        """
        if trained_on == "code" and not self.are_programs(language):
            raise UserError(
                f"{self.directory} holds rows of {self.task_of(language)}, whose targets are not code; trained_on must "
                "be 'task'."
            )
        split = "train" if split == "valid" and self.is_cross_validated(language) else split
        path = Path(self.directory) / "rows" / language / f"{split}.jsonl"
        if not path.exists():
            known = sorted(p.name for p in (Path(self.directory) / "rows").glob("*"))
            raise UserError(f"{self.directory} has no {split} rows for {language!r}; its languages are {known}.")
        rows = read_row_file(path)
        return [row.as_plain_code() for row in rows] if trained_on == "code" else rows

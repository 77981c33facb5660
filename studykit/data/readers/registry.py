"""The data sets that can be read: how each is recognised, what it serves, and who reads it.

A data set is recognised by the fields of its first row. Language and split of a file are words of its name or of its
folders' names, see `study.data_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from studykit.data.checks import flaw
from studykit.data.files import Source, SourceFile, raw_rows
from studykit.data.readers import codesearchnet, commitpackft, humaneval, nichetrans, xcodeeval
from studykit.data.rejects import BadRow, NotRequested, Rejects, text
from studykit.data.request import Example, Location, ReadRequest
from studykit.data.rows import Row, row_from_json
from studykit.errors import UserError

TASKS = ("generation", "translation", "commit", "summarization", "naming")


class Format(NamedTuple):
    """One row of the table below."""

    marks: tuple[frozenset[str], ...]  # its rows have all fields of one of these sets
    tasks: tuple[str, ...]  # what it serves
    reader: Callable[[dict, Location, ReadRequest], Iterator[Example]]
    unit: str  # what its rows are divided by, where the data has no splits
    template: str | None = None  # in templates.yaml; None: that of the task
    link: Callable[[Source, list[SourceFile], ReadRequest, Rejects], Any] | None = None  # what its rows refer to
    licence: str | None = None  # of the whole, where rows name none
    has_references: bool = True  # whether its rows can be trained on

    def prompt_kind(self, task: str) -> str:
        """Returns the entry of `templates.yaml` for its prompts."""
        return task if self.template is None or task == "translation" else self.template

    def licence_of(self, raw: dict) -> str:
        """Returns the licence of a published row."""
        if isinstance(raw.get("license"), str):
            return raw["license"]
        return f"{self.licence} (of the data set as published)" if self.licence else "not stated"


def prepared_rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a row of the user's: prompt, target, and what else a `Row` may have; other fields are the user's own."""
    if location.language is None:
        raise NotRequested("a folder that is named after no language of the study")
    if "meta" in raw:
        raise BadRow("the field 'meta' is not read", "; group, stop and no_reference stand beside 'prompt'")
    text(raw, "prompt")
    text(raw, "target", empty=raw.get("no_reference") is True)
    language = request.language(text(raw, "language"), location) if "language" in raw else location.language
    if location.file.endswith(".csv"):  # an empty cell is no value
        raw = {name: value for name, value in raw.items() if value or name == "target"}
    id = f"{location.file}:{location.number}" if raw.get("id") in (None, "") else str(raw["id"])
    known = {name: raw[name] for name in Row.__dataclass_fields__ if raw.get(name) is not None}
    row = row_from_json(known | {"id": id, "language": language})
    if problem := flaw(row.check):
        raise BadRow("the field 'check' is not valid", f": {problem}")
    if row.no_reference and (row.check is None or location.split != "test"):
        raise BadRow("'no_reference' is set where it may not be", "; it needs a check, and a test row")
    units: tuple[str, ...]
    if row.group:
        units = (row.group,)
    else:
        units = () if location.split else (f"{location.file}:{location.number}",)
    yield Example(row, location.line, location.split, units)


FORMATS = {
    "xcodeeval": Format(
        (xcodeeval.TRAIN_MARKS, xcodeeval.TEST_MARKS),
        ("generation",),
        xcodeeval.rows,
        "problem",
        template="xcodeeval",
        link=xcodeeval.link,
        licence="cc-by-nc-4.0",
    ),
    "commitpackft": Format((commitpackft.MARKS,), ("commit",), commitpackft.rows, "repository"),
    "multipl_e": Format(
        (humaneval.MULTIPL_E_MARKS,),
        ("generation",),
        humaneval.multipl_e_rows,
        "problem",
        template="benchmark",
        licence="mit",
        has_references=False,
    ),
    "humaneval": Format(
        (humaneval.HUMANEVAL_MARKS,),
        ("generation",),
        humaneval.humaneval_rows,
        "problem",
        template="benchmark",
        licence="mit",
    ),
    "humanevalx": Format(
        (humaneval.HUMANEVAL_X_MARKS,),
        ("generation", "translation"),
        humaneval.humaneval_x_rows,
        "problem",
        template="benchmark",
        link=humaneval.link_solutions,
        licence="apache-2.0",
    ),
    "ct": Format((nichetrans.CT_MARKS,), ("translation",), nichetrans.ct_rows, "id", licence="apache-2.0"),
    "codesearchnet": Format(
        (codesearchnet.CODEXGLUE_MARKS, codesearchnet.CODESEARCHNET_MARKS),
        ("summarization", "naming"),
        codesearchnet.rows,
        "repository",
        link=codesearchnet.link,
    ),
    "prepared": Format((frozenset({"prompt", "target"}),), TASKS, prepared_rows, "group"),
    "nichetrans": Format(
        (nichetrans.MARKS,), ("translation",), nichetrans.nichetrans_rows, "name", licence="apache-2.0"
    ),
}


def detect(source: Source, files: list[SourceFile]) -> str:
    """Recognises the format of these files by the fields of their first row.

    Raises: UserError that lists what was looked for, or says why no row can be read.
    """
    refused: list[UserError] = []
    first_rows = (next(raw_rows(file, lambda line, bad: refused.append(bad.at(line))), None) for file in files)
    _, first = next((row for row in first_rows if row is not None), ("", {}))
    for name, format in FORMATS.items():
        if any(marks <= first.keys() for marks in format.marks):
            if name != "nichetrans" or len(first) == len(nichetrans.MARKS) + 2:
                return name
    if not first:
        raise refused[0] if refused else UserError(f"{source.address} holds no row; a file with rows is needed.")
    known = "; ".join(f"{name}: {', '.join(sorted(of.marks[0]))}" for name, of in FORMATS.items())
    raise UserError(
        f"data.path={source.address} has no known format: its first row has the fields {sorted(first)}; "
        f"looked for were the fields of {known} and two languages; name the format in data.format."
    )

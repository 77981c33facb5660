"""The data sets that can be read: how each is told from the others, what it serves, and who reads it.

The files say it (`niche_train.json`), or the fields of the first row. Language and split of a file are told by its
name: a word of a folder or of the file (`ruby/data.jsonl`, `humaneval_go.jsonl.gz`, `prog_syn_test.jsonl`). A file of
another language than the study's is not opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from studykit.data.files import File, Source
from studykit.data.files import rows as rows_of
from studykit.data.languages import ALIASES, LANGUAGE_NAMES, canonical
from studykit.data.readers import codesearchnet, commitpackft, humaneval, nichetrans, xcodeeval
from studykit.data.readers.codesearchnet import SPLIT_WORDS
from studykit.data.rejects import BadRow, NotForThis, text
from studykit.data.request import Asked, At
from studykit.data.rows import Row, row_from_json
from studykit.data.splits import Example
from studykit.errors import UserError

TASKS = ("generation", "translation", "commit", "summarization", "naming")


class Format(NamedTuple):
    """One row of the table below."""

    marks: tuple[frozenset[str], ...]  # fields of its rows, any of these sets; none: told by file names
    tasks: tuple[str, ...]  # what it serves
    rows: Callable[[dict, At, Asked], Iterator[Example]]
    unit: str  # what its rows are divided by, where the data has no splits
    template: str | None = None  # in templates.yaml; None: that of the task
    link: Callable[..., Any] | None = None  # (source, files, asked, tally): what its rows refer to
    licence: str | None = None  # of the whole, where rows name none
    references: bool = True  # whether its rows can be trained on


def prepared_rows(raw: dict, at: At, asked: Asked) -> Iterator[Example]:
    """A row of the user's: prompt, target, and what else a `Row` may have; other fields are the user's own."""
    if at.language is None:
        raise NotForThis("a folder that is named after no language of the study")
    if "meta" in raw:
        raise BadRow("the field 'meta' is not read", "; group, stop and no_reference stand beside 'prompt'")
    text(raw, "prompt")
    text(raw, "target", empty=raw.get("no_reference") is True)
    language = asked.language(text(raw, "language"), at) if "language" in raw else at.language
    identity = str(raw.get("id", f"{at.language}-{at.split}-{at.number}"))
    known = {name: raw[name] for name in Row.__dataclass_fields__ if raw.get(name) is not None}
    row = row_from_json(known | {"id": identity, "language": language})
    if row.no_reference and (row.check is None or at.split != "test"):
        raise BadRow("'no_reference' is set where it may not be", "; it needs a check, and a test row")
    units = (row.group,) if row.group else () if at.split else (f"{at.file}:{at.number}",)
    yield Example(row, at.place, at.split, units)


FORMATS = {
    "nichetrans": Format((), ("translation",), nichetrans.nichetrans_rows, "name", licence="apache-2.0"),
    "xcodeeval": Format((xcodeeval.TRAIN_MARKS, xcodeeval.TEST_MARKS), ("generation",), xcodeeval.rows, "problem",
                        "xcodeeval", xcodeeval.link, "cc-by-nc-4.0"),
    "commitpackft": Format((commitpackft.MARKS,), ("commit",), commitpackft.rows, "repository"),
    "multipl_e": Format((humaneval.MULTIPL_E_MARKS,), ("generation",), humaneval.multipl_e_rows, "problem",
                        "benchmark", licence="mit", references=False),
    "humaneval": Format((humaneval.HUMANEVAL_MARKS,), ("generation",), humaneval.humaneval_rows, "problem",
                        "benchmark", licence="mit"),
    "humanevalx": Format((humaneval.HUMANEVAL_X_MARKS,), ("generation", "translation"), humaneval.humaneval_x_rows,
                         "problem", "benchmark", humaneval.link_solutions, "apache-2.0"),
    "ct": Format((nichetrans.CT_MARKS,), ("translation",), nichetrans.ct_rows, "id", licence="apache-2.0"),
    "codesearchnet": Format((codesearchnet.CODEXGLUE_MARKS, codesearchnet.CODESEARCHNET_MARKS),
                            ("summarization", "naming"), codesearchnet.rows, "repository", link=codesearchnet.link),
    "prepared": Format((frozenset({"prompt", "target"}),), TASKS, prepared_rows, "group"),
}  # fmt: skip


def detect(source: Source, files: list[File], asked: str) -> str:
    """The name of the format of these files: as asked, by their names, or by the fields of their first row.

    Raises: UserError that lists what was looked for.
    """
    if asked != "auto":
        return asked
    if any(re.fullmatch(r"niche_(train|valid|test)\.json", PurePosixPath(f.name).name) for f in files):
        return "nichetrans"
    fields: set[str] = set()
    for file in files:
        bad: list[BadRow] = []
        first = next(rows_of(file, lambda place, error, bad=bad: bad.append(error)), None)
        if first is None:
            continue
        fields = set(first[1])
        for name, format in FORMATS.items():
            if any(marks <= fields for marks in format.marks):
                return name
        break
    looked = "; ".join(f"{name}: {', '.join(sorted(of.marks[0]))}" for name, of in FORMATS.items() if of.marks)
    raise UserError(f"data.path={source.asked} is of no known format: its first row has the fields "
                    f"{sorted(fields) or 'none'}; looked for were the files niche_train.json, niche_valid.json, "
                    f"niche_test.json (nichetrans), and the fields of {looked}; name one by data.format.")  # fmt: skip


def files_for(source: Source, languages: list[str]) -> list[tuple[File, str | None, str | None]]:
    """(file, language, split) of the files of rows that may serve these languages."""
    linked = {xcodeeval.PROBLEMS, xcodeeval.UNIT_TESTS}
    files = [f for f in source.files if PurePosixPath(f.name).name not in linked]
    # A whole copy of xCodeEval has folders of other tasks beside this one.
    files = [f for f in files if "program_synthesis/" in f"{source.root}/{f.name}"] or files
    chosen = []
    for file in files:
        language, split = told_by_name(file.name, languages)
        if language is None or language in languages:
            chosen.append((file, language, split))
    return chosen


def told_by_name(name: str, languages: list[str]) -> tuple[str | None, str | None]:
    """(language, split) that the name of a file tells, the language as the study names it."""
    path = PurePosixPath(name)
    parts = [re.sub(r"\.(jsonl?|parquet|csv)(\.gz)?$", "", path.name), *reversed(path.parts[:-1])]
    own = {canonical(x): x for x in languages}
    known = {*own, *LANGUAGE_NAMES, *ALIASES}
    language = split = None
    for part in parts:
        words = [part.lower(), re.split(r"[_-]", part.lower())[-1]]
        found = next((canonical(w) for w in words if w in known or canonical(w) in known), None)
        language = language or (own.get(found, found) if found else None)
        split = split or next((SPLIT_WORDS[w] for w in re.split(r"[_.-]", part.lower()) if w in SPLIT_WORDS), None)
    return language, split


def read(raw: dict, at: At, asked: Asked, format: Format) -> tuple[list[Example], str]:
    """The examples of a row and "", or none and why it is not asked for; raises BadRow."""
    try:
        return list(format.rows(raw, at, asked)), ""
    except NotForThis as reason:
        return [], str(reason)

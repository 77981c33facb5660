"""From files to the rows of a study, in order: read, divide, drop, sample; and the manifest of what became of all rows.

The published splits of a data set are kept. Where there are none, groups are divided by their hash (`splits`). Every
count in the manifest adds up: rows read = refused + skipped + used; rows made of the used ones = dropped + kept.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from studykit.data.files import Source, SourceFile, open_source, raw_rows
from studykit.data.near_duplicates import drop_near_duplicates
from studykit.data.readers.registry import FORMATS, Format, detect
from studykit.data.rejects import BadRow, NotRequested, Rejects
from studykit.data.request import Example, Location, ReadRequest
from studykit.data.rows import Row, Rows
from studykit.data.splits import SPLITS, divide, require_groups
from studykit.errors import UserError
from studykit.study.data_files import RowFile, files_of_rows
from studykit.study.parameters import DataParams
from studykit.study.templates import check_template


@dataclass(frozen=True)
class DataManifest:
    """What a data run read and what became of it; published as data.json."""

    format: list[str]  # of path and test_path
    templates: dict[str, str]  # kind of prompt -> template
    sources: list[dict] = field(default_factory=list)  # path, revision, and files (file, sha256, bytes) of each
    linked: list[dict] = field(default_factory=list)  # files that the rows refer to
    licences: dict[str, int] = field(default_factory=dict)  # licence -> used rows
    counts: dict[str, int] = field(default_factory=dict)  # read, refused, skipped, used; made, dropped, kept
    rejects: dict[str, list[dict]] = field(default_factory=dict)  # refused, skipped, dropped, noted -> reasons
    filters: dict[str, Any] = field(default_factory=dict)  # bad_rows, near_duplicates
    division: dict[str, Any] | None = None  # by, shares, seed; None where the data has splits of its own
    splits: dict[str, dict[str, int]] = field(default_factory=dict)  # language -> split -> rows
    kinship: dict[str, float] = field(
        default_factory=dict
    )  # of made languages: source -> what it shares with the target


@dataclass
class Ingestion:
    """The state of one ingestion: what was read so far, and what became of it."""

    rejects: Rejects
    examples: list[Example] = field(default_factory=list)
    linked: list[SourceFile] = field(default_factory=list)
    licences: Counter[str] = field(default_factory=Counter)  # of used rows


@dataclass(frozen=True)
class DataSet:
    """The files of `data.path` or `data.test_path`, recognised."""

    source: Source
    format_name: str
    files: list[RowFile]  # those that are read
    is_test: bool

    @property
    def format(self) -> Format:
        """Returns the format by which its rows are read."""
        return FORMATS[self.format_name]


def rows_from_files(p: DataParams, sizes: dict[str, dict[str, int]]) -> tuple[Rows, DataManifest]:
    """Reads the rows of `data.path` and `data.test_path`, `sizes[language][split]` of them at most.

    Raises: UserError for what cannot be read, more bad rows than `data.bad_rows`, or a split without rows.
    """
    assert p.path is not None
    data_sets = [open_data_set(p, p.path, p.format, is_test=False)]
    if p.test_path:
        data_sets.append(open_data_set(p, p.test_path, "auto", is_test=True))
    kinds = [data_set.format.prompt_kind(p.task) for data_set in data_sets]
    templates = {kind: check_template(kind, p.template if kind == kinds[0] else None) for kind in kinds}

    ingestion = Ingestion(Rejects(p.bad_rows))
    for data_set, kind in zip(data_sets, kinds, strict=True):
        read_examples(data_set, templates[kind], p, ingestion)
    examples = divide(ingestion.examples, p.shares, p.seed)
    unit = p.split_by if data_sets[0].format_name == "commitpackft" else data_sets[0].format.unit
    require_groups(ingestion.examples, examples, unit)
    if p.test_path or any(example.split == "fit" for example in ingestion.examples):
        examples = drop_tested_groups(examples, ingestion.rejects)
    if data_sets[0].format_name != "prepared":  # only completions of other splits are run, and tests are long
        examples = [e._replace(row=replace(e.row, check=None)) if e.split == "train" else e for e in examples]
    rows = choose_rows(examples, p, sizes, ingestion.rejects)

    was_divided = any(example.split not in SPLITS for example in ingestion.examples)
    rejects, used = ingestion.rejects, ingestion.licences.total()
    manifest = DataManifest(
        format=[data_set.format_name for data_set in data_sets],
        templates=templates,
        sources=[describe_source(data_set) for data_set in data_sets],
        linked=[describe_file(file) for file in ingestion.linked],
        licences=dict(ingestion.licences.most_common()),
        counts={
            "read": used + rejects.total("refused") + rejects.total("skipped"),
            "refused": rejects.total("refused"),
            "skipped": rejects.total("skipped"),
            "used": used,
            "made": len(ingestion.examples),
            "dropped": rejects.total("dropped"),
            "kept": sum(len(items) for splits in rows.values() for items in splits.values()),
        },
        rejects={kind: rejects.reasons(kind) for kind in Rejects.KINDS},
        filters={"bad_rows": p.bad_rows, "near_duplicates": p.near_duplicates},
        division={"by": unit, "shares": p.shares, "seed": p.seed} if was_divided else None,
        splits={language: {s: len(items) for s, items in splits.items()} for language, splits in rows.items()},
    )
    return rows, manifest


def open_data_set(p: DataParams, address: str, format_name: str, *, is_test: bool) -> DataSet:
    """Lists the files that are read and recognises their format.

    Raises: UserError if no file may serve the study's languages, or if the format does not serve its task.
    """
    parameter = "data.test_path" if is_test else "data.path"
    source, key = open_source(address, parameter), f"{parameter}={address}"
    names = [file.name for file in source.files]
    files = files_of_rows(names, p.members, root=str(source.root), is_test=is_test)
    if not files:
        raise UserError(f"{key} has only files of other languages; the study's are {', '.join(p.members)}.")
    if format_name == "auto":
        format_name = detect(source, [SourceFile(file.name, source.root) for file in files])
    format = FORMATS[format_name]
    if p.task not in format.tasks:
        served = " and ".join(format.tasks)
        raise UserError(f"{key} holds {format_name} rows, which serve the task {served}, not {p.task}.")
    if not format.has_references and not is_test:
        raise UserError(
            f"{key} holds {format_name} rows, which have no solutions to train on; name it as data.test_path."
        )
    return DataSet(source, format_name, files, is_test)


def read_examples(data_set: DataSet, template: str, p: DataParams, ingestion: Ingestion) -> None:
    """Reads the examples of a data set, in the order of its files, into the ingestion."""
    format, source, rejects = data_set.format, data_set.source, ingestion.rejects
    request = ReadRequest(p.task, tuple(p.members), template, p.diff_context, p.split_by, p.reference)
    if format.link:
        files = [SourceFile(file.name, source.root) for file in data_set.files]
        request = replace(request, linked=format.link(source, files, request, rejects))
        ingestion.linked += getattr(request.linked, "files", ())
    first_lines: dict[tuple, str] = {}  # where an id of a language and split was first read
    for file in data_set.files:
        for line, raw in raw_rows(SourceFile(file.name, source.root), rejects.refuse):
            try:
                examples = list(format.reader(raw, Location(file.name, line, file.language, file.split), request))
                require_new_ids(examples, first_lines)
                examples = list(requested(examples, data_set.is_test, has_test=bool(p.test_path)))
            except BadRow as bad:
                rejects.refuse(line, bad)
            except NotRequested as reason:
                rejects.add("skipped", str(reason), line)
            else:
                ingestion.licences[format.licence_of(raw)] += 1
                ingestion.examples += examples


def require_new_ids(examples: list[Example], first_lines: dict[tuple, str]) -> None:
    """Notes the ids of examples. Raises: BadRow if one of them was read before."""
    for example in examples:
        key = (example.row.language, example.split, example.row.id)
        if key in first_lines:
            raise BadRow("an id that was used before", f" ({example.row.id}, first in {first_lines[key]})")
    first_lines |= {(e.row.language, e.split, e.row.id): e.line for e in examples}


def requested(examples: list[Example], is_test: bool, has_test: bool) -> Iterator[Example]:
    """Yields the examples that are wanted of a data set.

    With `data.test_path` these are the test rows of that data set and the other rows of `data.path`; else all.

    Raises: NotRequested if there are none.
    """
    if not has_test:
        yield from examples
    elif is_test:
        if not (examples := [e for e in examples if e.split not in ("train", "valid")]):
            raise NotRequested("no test row")
        yield from (example._replace(split="test") for example in examples)
    else:
        if not (examples := [e for e in examples if e.split != "test"]):
            raise NotRequested("a test row, where data.test_path has the test")
        yield from (example._replace(split=example.split or "fit") for example in examples)


def drop_tested_groups(examples: list[Example], rejects: Rejects) -> list[Example]:
    """Returns the examples without training and validation rows whose group is tested."""
    tested = {e.row.group for e in examples if e.split == "test"} - {None}
    kept = []
    for example in examples:
        if example.split != "test" and example.row.group in tested:
            rejects.add("dropped", f"a {example.split} row of a group that is tested", example.line)
        else:
            kept.append(example)
    return kept


def choose_rows(examples: list[Example], p: DataParams, sizes: dict[str, dict[str, int]], rejects: Rejects) -> Rows:
    """Returns the rows without near duplicates, and not more than were requested.

    Raises: UserError for a split that is left empty.
    """
    rows: Rows = {language: {split: [] for split in SPLITS} for language in p.members}
    for example in examples:
        assert example.split is not None
        rows[example.row.language][example.split].append(example.row)
    lines = {id(example.row): example.line for example in examples}
    for language in p.members:
        if p.near_duplicates is not None:
            rows[language], dropped = drop_near_duplicates(rows[language], p.near_duplicates)
            for (split, similar_split), items in dropped.items():
                reason = f"a {split} row nearly like a {similar_split} row"
                rejects.add("dropped", reason, lines[id(items[0])], len(items))
        for split in SPLITS:
            sampled = sample(rows[language][split], sizes[language][split], p.seed)
            sampled_ids = {id(row) for row in sampled}
            surplus = [row for row in rows[language][split] if id(row) not in sampled_ids]
            if surplus:
                reason = f"a {split} row beyond the requested number"
                rejects.add("dropped", reason, lines[id(surplus[0])], len(surplus))
            rows[language][split] = sampled
            if not sampled and sizes[language][split]:
                source = f"test_path={p.test_path}" if split == "test" and p.test_path else f"path={p.path}"
                words = {"train": "rows to train on", "valid": "rows for validation", "test": "rows to test on"}
                hint = "; with data.valid: k_fold it needs none" * (split == "valid" and language == p.target)
                raise UserError(f"data.{source} has no {words[split]} for {language}{main_reasons(rejects)}{hint}.")
    return rows


def sample(rows: list[Row], n: int, seed: int) -> list[Row]:
    """Returns at most n rows, drawn without replacement, in their original order."""
    if len(rows) <= n:
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), n))]


def main_reasons(rejects: Rejects) -> str:
    """Returns the end of a sentence that says why a split may be without rows."""
    parts = [
        f"{entry['rows']:,} rows were {kind} ({entry['reason']})"
        for kind in ("refused", "skipped")
        for entry in rejects.reasons(kind)[:1]
    ]
    return f"; {' and '.join(parts)}" if parts else ""


def describe_source(data_set: DataSet) -> dict[str, Any]:
    """Returns the address, the revision and the files of a data set."""
    source = data_set.source
    files = [describe_file(SourceFile(file.name, source.root)) for file in data_set.files]
    return {"path": source.address, "revision": source.revision, "files": files}


def describe_file(file: SourceFile) -> dict[str, Any]:
    """Returns the address, the digest and the size of a file."""
    with file.path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"file": file.address, "sha256": digest, "bytes": file.path.stat().st_size}

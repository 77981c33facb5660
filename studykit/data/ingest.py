"""From files to the rows of a study: read, judge, divide, thin out, draw; and the manifest of what became of all.

The published splits of a data set are kept. Where there are none, groups are divided by their hash (`splits`). Every
count in the manifest adds up: rows read = refused + passed over + used; rows made of those = left out + kept.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from studykit.data import files as data_files
from studykit.data.files import File, Hub, Source
from studykit.data.near_duplicates import thin
from studykit.data.readers.registry import FORMATS, Format, detect, files_for, read
from studykit.data.rejects import BadRow, Tally
from studykit.data.request import Asked, At
from studykit.data.rows import Row, Rows
from studykit.data.splits import SPLITS, Example, divide, require_groups
from studykit.errors import UserError
from studykit.study.templates import check_template


@dataclass(frozen=True)
class Part:
    """`data.path` or `data.test_path`: what it is, and the files that are read of it."""

    source: Source
    name: str  # of its format
    files: tuple[tuple[File, str | None, str | None], ...]  # with language and split
    is_test: bool
    template: str | None  # `data.template`, which test rows of another kind do not share

    @property
    def format(self) -> Format:
        return FORMATS[self.name]

    def kind(self, task: str) -> str:
        """Of its prompts, see `templates.yaml`."""
        return task if self.format.template is None or task == "translation" else self.format.template


def rows_from_files(p, sizes: dict[str, dict[str, int]]) -> tuple[Rows, dict]:
    """({language: {split: rows}}, manifest) of `data.path` and `data.test_path`.

    Raises: UserError for what cannot be read, more bad rows than `data.bad_rows`, or a split without rows.
    """
    tally = Tally(p.bad_rows)
    parts = [_part(p.path, p, p.format, False)]
    check_template(parts[0].kind(p.task), p.template)
    if p.test_path:
        test = _part(p.test_path, p, "auto", True)
        own = test.kind(p.task) != parts[0].kind(p.task)
        parts.append(replace(test, template=None) if own else test)
    examples, linked = [], []
    for part in parts:
        found, files = _examples(part, p, tally, has_test=len(parts) > 1)
        examples += found
        linked += files
    by = p.split_by if parts[0].name == "commitpackft" else parts[0].format.unit
    divided = divide(examples, p.shares, p.seed)
    require_groups(examples, divided, by)
    if len(parts) > 1:
        divided = _apart(divided, tally)
    if parts[0].name != "prepared":  # only completions of validation and test rows are run, and tests are long
        divided = [e._replace(row=replace(e.row, check=None)) if e.split == "train" else e for e in divided]
    rows = _chosen(divided, p, sizes, tally)
    return rows, _manifest(p, parts, linked, tally, rows, by, any(e.split not in SPLITS for e in examples))


def sample(rows: list[Row], n: int, seed: int) -> list[Row]:
    """At most n rows, drawn without replacement, in their original order."""
    if len(rows) <= n:
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), n))]


def _part(path: str, p, format: str, is_test: bool) -> Part:
    key = "data.test_path" if is_test else "data.path"
    source = data_files.open_source(path, key)
    files = files_for(source, p.languages)
    if not files:
        raise UserError(f"{key}={path} has files of other languages alone; the study's are "
                        f"{', '.join(p.languages)}.")  # fmt: skip
    part = Part(source, detect(source, [file for file, _, _ in files], format), tuple(files), is_test, p.template)
    if p.task not in part.format.tasks:
        raise UserError(f"{key}={path} holds {part.name} rows, which serve task "
                        f"{' and '.join(part.format.tasks)}, not {p.task}.")  # fmt: skip
    if not part.format.references and not is_test:
        raise UserError(f"data.path={path} holds {part.name} rows, which have no solutions to train on; name it as "
                        "data.test_path.")  # fmt: skip
    tested = [f for f in part.files if f[2] == "test"]
    return replace(part, files=tuple(tested)) if is_test and tested else part


def _examples(part: Part, p, tally: Tally, has_test: bool) -> tuple[list[Example], list[File]]:
    """The examples of one part in the order of its files, and the files that its rows refer to."""
    asked = Asked(p.task, tuple(p.languages), part.template, p.diff_context, p.split_by)
    files = [file for file, _, _ in part.files]
    if part.format.link:
        linked = part.format.link(part.source, files, asked, tally)
        asked = replace(asked, linked=linked)
    seen: dict[tuple, str] = {}
    found: list[Example] = []
    for file, language, split in part.files:
        for place, raw in data_files.rows(file, tally.refuse):
            try:
                made, why = read(raw, At(file.name, place, language, split), asked, part.format)
                _unseen(made, seen)
            except BadRow as bad:
                tally.refuse(place, bad)
                continue
            if made and not (made := list(_of_part(made, part.is_test, has_test))):
                why = "a test row, where data.test_path has the test" if not part.is_test else "no test row"
            if not made:
                tally.add("passed over", why, place)
                continue
            tally.made += len(made)
            tally.licences[_licence(raw, part.format)] += 1
            found += made
    return found, list(getattr(asked.linked, "files", ()))


def _licence(raw: dict, format: Format) -> str:
    if isinstance(raw.get("license"), str):
        return raw["license"]
    return f"{format.licence} (of the data set as published)" if format.licence else "not stated"


def _unseen(made: list[Example], seen: dict[tuple, str]) -> None:
    for example in made:
        key = (example.row.language, example.split, example.row.id)
        if key in seen:
            raise BadRow("an id that stands twice", f" ({example.row.id}, first in {seen[key]})")
    seen |= {(e.row.language, e.split, e.row.id): e.place for e in made}


def _of_part(made: list[Example], is_test: bool, has_test: bool) -> Iterator[Example]:
    """The examples that this part gives: all, or with `data.test_path` the test rows of that and the rest of this."""
    for example in made:
        if is_test:
            if example.split not in ("train", "valid"):
                yield example._replace(split="test")
        elif not has_test:
            yield example
        elif example.split != "test":
            yield example._replace(split=example.split or "fit")


def _chosen(divided: list[Example], p, sizes: dict[str, dict[str, int]], tally: Tally) -> Rows:
    """Without near duplicates, and not more than were asked for. Raises: UserError for a split that is left empty."""
    rows: Rows = {language: {split: [] for split in SPLITS} for language in p.languages}
    for example in divided:
        rows[example.row.language][example.split].append(example.row)
    places = {id(example.row): example.place for example in divided}
    for language in p.languages:
        if p.near_duplicates is not None:
            rows[language], gone = thin(rows[language], p.near_duplicates)
            for (split, of), items in gone.items():
                tally.add("left out", f"a {split} row nearly like a {of} row", places[id(items[0])], len(items))
        for split in SPLITS:
            rows[language][split] = _drawn(rows[language][split], sizes[language][split], p.seed, split, places, tally)
            if not rows[language][split]:
                where = f"test_path={p.test_path}" if split == "test" and p.test_path else f"path={p.path}"
                raise UserError(f"data.{where} has no {split} rows for {language}{_why_none(tally)}.")
    return rows


def _apart(divided: list[Example], tally: Tally) -> list[Example]:
    """Without training and validation rows whose group `data.test_path` tests."""
    tested = {e.row.group for e in divided if e.split == "test"} - {None}
    kept = []
    for example in divided:
        if example.split != "test" and example.row.group in tested:
            tally.add("left out", f"a {example.split} row of a group that is tested", example.place)
        else:
            kept.append(example)
    return kept


def _drawn(items: list[Row], n: int, seed: int, split: str, places: dict[int, str], tally: Tally) -> list[Row]:
    drawn = sample(items, n, seed)
    if len(drawn) < len(items):
        stay = {id(row) for row in drawn}
        first = next(row for row in items if id(row) not in stay)
        tally.add("left out", f"a {split} row beyond those asked for", places[id(first)], len(items) - len(drawn))
    return drawn


def _why_none(tally: Tally) -> str:
    """What may explain a split without rows."""
    said = [f"{entry['rows']:,} rows were {kind} ({entry['reason']})" for kind in ("refused", "passed over")
            for entry in tally.table(kind)[:1]]  # fmt: skip
    return f"; {' and '.join(said)}" if said else ""


def _manifest(p, parts: list[Part], linked: list[File], tally: Tally, rows: Rows, by: str, was_divided: bool) -> dict:
    kept = sum(len(items) for splits in rows.values() for items in splits.values())
    used = tally.licences.total()
    return {
        "format": [part.name for part in parts],
        "templates": {part.kind(p.task): check_template(part.kind(p.task), part.template) for part in parts},
        "sources": [{"path": part.source.asked,
                     "revision": part.source.root.revision if isinstance(part.source.root, Hub) else None,
                     "files": [_file(file) for file, _, _ in part.files]} for part in parts],
        "linked": [_file(file) for file in linked],
        "licences": dict(tally.licences.most_common()),
        "counts": {"read": used + tally.total("refused") + tally.total("passed over"),
                   "refused": tally.total("refused"), "passed over": tally.total("passed over"), "used": used,
                   "made": tally.made, "left out": tally.total("left out"), "kept": kept},
        **{kind.replace(" ", "_"): tally.table(kind) for kind in Tally.KINDS},
        "filters": {"bad_rows": p.bad_rows, "near_duplicates": p.near_duplicates},
        "division": {"by": by, "shares": p.shares, "seed": p.seed} if was_divided else None,
        "splits": {x: {split: len(items) for split, items in splits.items()} for x, splits in rows.items()},
    }  # fmt: skip


def _file(file: File) -> dict:
    with file.path.open("rb") as content:
        return {"file": file.shown, "sha256": hashlib.file_digest(content, "sha256").hexdigest(),
                "bytes": file.path.stat().st_size}  # fmt: skip

"""The rows that notebook 01 publishes, from files or from the built-in programs."""

from __future__ import annotations

from dataclasses import replace

from studykit.data.builtin import rows_by_language, rows_by_task
from studykit.data.ingest import DataManifest, rows_from_files
from studykit.data.polyglot.kin import Kin, kin
from studykit.data.rows import Row, Rows
from studykit.errors import UserError
from studykit.study.parameters import DataParams
from studykit.study.templates import TEMPLATES, check_template


def prepare(p: DataParams) -> tuple[Rows, DataManifest]:
    """Makes the rows and the manifest that the parameters of notebook 01 describe.

    Raises: UserError if a member has no rows, or a source of rows does not serve the task.
    """
    rows, manifest = _prepare(p)
    return as_encoded(rows, p), manifest


def as_encoded(rows: Rows, p: DataParams) -> Rows:
    """Returns the rows with what `truncation`, `end_of_target` and `end_cut_targets` say of their encoding.

    Test rows keep their targets, since those are references of scores.
    """

    def changed(row: Row, split: str) -> Row:
        body = None if p.truncation == "end" else row.body  # None: all of the prompt, from its end
        end = "\n" if p.end_of_target == "newline_eos" and split != "test" else ""
        return replace(row, body=body, target=row.target + end, end_if_cut=p.end_cut_targets or row.end_if_cut)

    return {
        member: {split: [changed(row, split) for row in items] for split, items in splits.items()}
        for member, splits in rows.items()
    }


def _prepare(p: DataParams) -> tuple[Rows, DataManifest]:
    """The rows as they are read or made."""
    if p.target not in p.members:
        raise UserError(f"target={p.target!r} is not among members={p.members}; it must be the last of them.")
    sizes = {
        member: {
            "train": p.target_examples if member == p.target else p.source_examples,
            "valid": 0 if p.valid == "k_fold" and member == p.target else p.valid_examples,
            "test": p.test_examples,
        }
        for member in p.members
    }
    if p.path is not None:
        return rows_from_files(p, sizes)
    if p.task == "naming":
        raise UserError("task='naming' needs data.path: all functions of the built-in rows have one name.")
    template = check_template(p.task, p.template)
    made: dict[str, Kin] = {}
    if p.language:
        templates = {x: template if x == p.task else TEMPLATES.get(x, "") for x in p.members}
        rows = rows_by_task(p.members, p.language, sizes, templates, p.seed)
    else:
        if p.kinship is not None:
            sources = [member for member in p.members if member != p.target]
            made = kin(sources, p.target, p.kinship, p.kinship_in, p.seed)
        rows = rows_by_language(p.task, p.members, sizes, template, p.seed, made)
    count = sum(len(items) for splits in rows.values() for items in splits.values())
    return rows, DataManifest(
        format=["built-in programs"],
        kinship={member: of.kinship for member, of in made.items() if member != p.target},
        templates={p.task: template},
        counts={"made": count, "kept": count},
        splits={member: {s: len(items) for s, items in splits.items()} for member, splits in rows.items()},
    )

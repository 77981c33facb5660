"""The rows that notebook 01 publishes, from files or from the built-in programs."""

from __future__ import annotations

from studykit.data.builtin import rows_by_language, rows_by_task
from studykit.data.ingest import DataManifest, rows_from_files
from studykit.data.polyglot.kin import Kin, kin
from studykit.data.rows import Rows
from studykit.errors import UserError
from studykit.study.parameters import DataParams
from studykit.study.templates import TEMPLATES, check_template


def prepare(p: DataParams) -> tuple[Rows, DataManifest]:
    """Makes the rows and the manifest that the parameters of notebook 01 describe.

    Raises: UserError if a member has no rows, or a source of rows does not serve the task.
    """
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

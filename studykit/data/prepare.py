"""The rows that notebook 01 publishes, from files or from the built-in programs."""

from __future__ import annotations

from studykit.data.builtin import rows_by_language, rows_by_task
from studykit.data.ingest import rows_from_files
from studykit.data.rows import Rows
from studykit.errors import UserError
from studykit.study.templates import TEMPLATES, check_template


def prepare(p) -> tuple[Rows, dict]:
    """({language: {split: rows}}, manifest) as the parameters of notebook 01 ask for; the manifest is JSON.

    Raises: UserError if a language has no rows, or a source of rows does not serve the task.
    """
    languages = p.languages
    if p.target not in languages:
        raise UserError(f"target={p.target!r} is not among languages={languages}; it must stand there, last.")
    sizes = {
        language: {
            "train": p.target_examples if language == p.target else p.source_examples,
            "valid": p.valid_examples,
            "test": p.test_examples,
        }
        for language in languages
    }
    if p.path is not None:
        return rows_from_files(p, sizes)
    if p.task == "naming":
        raise UserError("task='naming' has no built-in rows, whose functions all have one name; set data.path.")
    template = check_template(p.task, p.template)
    if p.language:
        templates = {x: template if x == p.task else TEMPLATES.get(x, "") for x in languages}
        rows = rows_by_task(languages, p.language, sizes, templates, p.seed)
    else:
        rows = rows_by_language(p.task, languages, sizes, template, p.seed)
    made = sum(len(items) for splits in rows.values() for items in splits.values())
    return rows, {
        "format": ["built-in programs"], "templates": {p.task: template}, "sources": [], "linked": [], "licences": {},
        "counts": {"read": 0, "refused": 0, "passed over": 0, "used": 0, "made": made, "left out": 0, "kept": made},
        "refused": [], "passed_over": [], "left_out": [], "noted": [], "filters": {}, "division": None,
        "splits": {x: {split: len(items) for split, items in splits.items()} for x, splits in rows.items()},
    }  # fmt: skip

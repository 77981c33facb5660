"""The five tasks: commit messages, code generation, code translation, code summarization, method naming.

Whatever a task reads, it makes rows of one form:

    {"id", "language", "prompt", "target", "meta": {...}, "check": null | dict}

`meta.body` says which characters of the prompt may be cut, `meta.group` which rows are not independent of each other,
`meta.stop` where a completion ends; `meta.no_reference` marks a row whose target is empty because it is judged by its
check alone. `check` says how to test a completion by running it, see `evaluation`.

    source, lines            where rows come from: local files, files of the hub
    tally                    what became of each
    formats, asked           which data set it is, what the study asks of it
    commit, generation, benchmarks, translation, summarization      one reader per task
    splits, duplicates       division into train, valid and test; near duplicates
    intake                   all of that in order, and the manifest
    embedded, corpus         rows and documents of the built-in programs
    prompts, templates.yaml  prompts, and rows as token ids
    survey                   what there is to know of rows
"""

from __future__ import annotations

import json
from pathlib import Path

from studykit import runs
from studykit.params import UserError
from studykit.tasks.embedded import embedded_rows, plain_code, subject_rows
from studykit.tasks.intake import rows_from_files
from studykit.tasks.lines import json_lines
from studykit.tasks.prompts import TEMPLATES, check_template, encode_prompt, encode_row
from studykit.tasks.splits import SPLITS

__all__ = [
    "SPLITS",
    "are_programs",
    "encode_prompt",
    "encode_row",
    "limits",
    "overlap",
    "prepare",
    "read_rows",
    "write_rows",
]


def prepare(p) -> tuple[dict[str, dict[str, list[dict]]], dict]:
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
        rows = subject_rows(languages, p.language, sizes, templates, p.level, p.seed, p.wording)
    else:
        rows = embedded_rows(p.task, languages, sizes, template, p.level, p.seed, p.wording)
    made = sum(len(items) for splits in rows.values() for items in splits.values())
    return rows, {
        "format": ["built-in programs"], "templates": {p.task: template}, "sources": [], "linked": [], "licences": {},
        "counts": {"read": 0, "refused": 0, "passed over": 0, "used": 0, "made": made, "left out": 0, "kept": made},
        "refused": [], "passed_over": [], "left_out": [], "noted": [], "filters": {}, "division": None,
        "splits": {x: {split: len(items) for split, items in splits.items()} for x, splits in rows.items()},
    }  # fmt: skip


def limits(data_run: str | Path) -> tuple[int, int]:
    """(max_prompt_tokens, max_target_tokens) of a finished data run."""
    asked = runs.manifest(data_run)["params"]
    return asked["max_prompt_tokens"], asked["max_target_tokens"]


def write_rows(directory: Path, rows: dict[str, dict[str, list[dict]]]) -> None:
    """`<directory>/<language>/<split>.jsonl`."""
    for language, splits in rows.items():
        (directory / language).mkdir(parents=True, exist_ok=True)
        for split, items in splits.items():
            text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
            (directory / language / f"{split}.jsonl").write_text(text, encoding="utf-8")


def read_rows(data_run: str | Path, language: str, split: str, trained_on: str = "task") -> list[dict]:
    """The rows that notebook 01 published; raises UserError if the run has none for the language.

    Args:
        trained_on: `code` gives the targets as plain code, which rows of generation and translation have.
    """
    if trained_on == "code" and not are_programs(data_run, language):
        task = task_of(data_run, language)
        raise UserError(f"{data_run} holds rows of {task}, whose targets are no code; trained_on must be 'task'.")
    path = Path(data_run) / "rows" / language / f"{split}.jsonl"
    if not path.exists():
        known = sorted(p.name for p in (Path(data_run) / "rows").glob("*"))
        raise UserError(f"{data_run} has no {split} rows for {language!r}; its languages are {known}.")
    rows = [row for _, row in json_lines(path)]
    return [plain_code(row) for row in rows] if trained_on == "code" else rows


def task_of(data_run: str | Path, language: str) -> str:
    """The task of a language's rows; where members are tasks, `language` is one."""
    asked = runs.manifest(data_run)["params"]
    return language if asked["language"] else asked["task"]


def are_programs(data_run: str | Path, language: str) -> bool:
    """Whether the targets of a language's rows are programs."""
    return task_of(data_run, language) in ("generation", "translation", "code")


def overlap(splits: dict[str, list[dict]]) -> dict[str, int]:
    """Duplicates within train, and test rows whose target or whose prompt and target occur in train."""
    pairs = [(row["prompt"], row["target"]) for row in splits["train"]]
    targets = {row["target"] for row in splits["train"]}
    groups = {row["meta"].get("structure") or row["meta"].get("group") for row in splits["train"]} - {None, ""}
    seen = set(pairs)
    return {
        "duplicates in train": len(pairs) - len(seen),
        "test pairs in train": sum((row["prompt"], row["target"]) in seen for row in splits["test"]),
        "test targets in train": sum(row["target"] in targets for row in splits["test"]),
        "test groups in train": sum(
            (row["meta"].get("structure") or row["meta"].get("group")) in groups for row in splits["test"]
        ),
    }

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

from studykit.data.jsonl import json_lines
from studykit.errors import UserError
from studykit.runs import store


def limits(data_run: str | Path) -> tuple[int, int]:
    """(max_prompt_tokens, max_target_tokens) of a finished data run."""
    asked = store.manifest(data_run)["params"]
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
    asked = store.manifest(data_run)["params"]
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


def plain_code(row: dict) -> dict:
    """A row whose target is code as a row of nothing but that code: there is no task to read before it."""
    return row | {"prompt": "\n", "meta": row["meta"] | {"body": [0, 0]}, "check": None}

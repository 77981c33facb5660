"""The four tasks: commit messages, code generation, code translation, code summarization.

Whatever a task reads, it makes rows of one form:

    {"id", "language", "prompt", "target", "meta": {...}, "check": null | {"function", "tests"}}

`meta.body` says which characters of the prompt may be cut; `check` says how to test the target by running it.
"""

from __future__ import annotations

import json
from pathlib import Path

from studykit import runs
from studykit.params import UserError
from studykit.tasks.embedded import embedded_rows, plain_code, subject_rows
from studykit.tasks.prompts import TEMPLATES, check_template, encode_prompt, encode_row
from studykit.tasks.real import SPLITS, json_lines, nichetrans_rows, prepared_rows, sample

__all__ = [
    "SPLITS",
    "encode_prompt",
    "encode_row",
    "files_read",
    "limits",
    "overlap",
    "prepare",
    "read_rows",
    "write_rows",
]


def prepare(p) -> dict[str, dict[str, list[dict]]]:
    """{language: {split: rows}} as the parameters of notebook 01 ask for.

    Raises: UserError if a language has no rows, or a source of rows does not serve the task.
    """
    languages = p.languages
    if p.target not in languages:
        raise UserError(f"target={p.target!r} is not among languages={languages}; it must stand there, last.")
    template = check_template(p.task, p.template)
    templates = {x: template if x == p.task else TEMPLATES.get(x, "") for x in languages}
    sizes = {
        language: {
            "train": p.target_examples if language == p.target else p.source_examples,
            "valid": p.valid_examples,
            "test": p.test_examples,
        }
        for language in languages
    }
    if p.language:
        return subject_rows(languages, p.language, sizes, templates, p.level, p.seed, p.wording)
    if p.path is None:
        return embedded_rows(p.task, languages, sizes, template, p.level, p.seed, p.wording)
    directory = Path(p.path).expanduser()
    if (directory / "niche_train.json").exists():
        if p.task != "translation":
            raise UserError(f"data.path={p.path} holds NicheTrans pairs, which serve task translation, not {p.task}.")
        rows = nichetrans_rows(directory, languages, template)
    elif directory.is_dir():
        rows = prepared_rows(directory, languages)
    else:
        raise UserError(f"data.path={p.path} does not exist; it must be a directory of rows.")
    for language in languages:
        for split in SPLITS:
            rows[language][split] = sample(rows[language][split], sizes[language][split], p.seed)
            if not rows[language][split]:
                raise UserError(f"data.path={p.path} has no {split} rows for {language}.")
    return rows


def files_read(p) -> list[Path]:
    """The files that `prepare` reads for these parameters, none for the built-in programs."""
    if p.path is None:
        return []
    directory = Path(p.path).expanduser()
    pairs = [directory / f"niche_{split}.json" for split in SPLITS]
    prepared = [directory / language / f"{split}.jsonl" for language in p.languages for split in SPLITS]
    return pairs if pairs[0].exists() else prepared


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
    task = runs.manifest(data_run)["params"]["task"] if trained_on == "code" else None
    if task in ("commit", "summarization"):
        raise UserError(f"{data_run} holds rows of {task}, whose targets are no code; trained_on must be 'task'.")
    path = Path(data_run) / "rows" / language / f"{split}.jsonl"
    if not path.exists():
        known = sorted(p.name for p in (Path(data_run) / "rows").glob("*"))
        raise UserError(f"{data_run} has no {split} rows for {language!r}; its languages are {known}.")
    rows = [row for _, row in json_lines(path)]
    return [plain_code(row) for row in rows] if trained_on == "code" else rows


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

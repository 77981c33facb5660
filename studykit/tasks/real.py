"""Rows from files: NicheTrans pairs, and rows that the user prepared.

CodeTransOcean's NicheTrans (arXiv 2310.04951) is JSON lines despite its `.json` suffix. A row is `id`, `name`, then two
keys that are language names; their order is the direction. The packaged JSON reader of `datasets` merges the keys of
all rows and so loses the direction: the lines are read here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from studykit.params import UserError
from studykit.tasks.prompts import fill

SPLITS = ("train", "valid", "test")


def json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, object) of a JSON-lines file; raises UserError naming file and line."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UserError(f"{path}, line {number}: an object is expected, not {type(row).__name__}.")
                    yield number, row
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; it is needed as JSON lines.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno}).") from None


def nichetrans_pairs(path: Path) -> Iterator[dict]:
    """{id, name, source_language, language, code, target}: language names in lower case, direction by key order."""
    for number, row in json_lines(path):
        languages = [key for key in row if key not in ("id", "name")]
        if "id" not in row or len(languages) != 2:
            raise UserError(
                f"{path}, line {number}: a NicheTrans row has id, name and two language keys, not {list(row)}."
            )
        source, target = languages
        if not all(isinstance(row[key], str) and row[key].strip() for key in languages):
            raise UserError(f"{path}, line {number}: the code in {source!r} or {target!r} is empty or no text.")
        yield {
            "id": f"{row['id']}-{source}-{target}".lower(),
            "name": row.get("name", ""),
            "source_language": source.lower(),
            "language": target.lower(),
            "code": row[source],
            "target": row[target],
        }


def nichetrans_rows(directory: Path, languages: list[str], template: str) -> dict[str, dict[str, list[dict]]]:
    """{language: {split: rows}}: each language as the target of translation from any other of `languages`."""
    rows: dict[str, dict[str, list[dict]]] = {language: {split: [] for split in SPLITS} for language in languages}
    for split in SPLITS:
        for pair in nichetrans_pairs(directory / f"niche_{split}.json"):
            if pair["language"] not in rows or pair["source_language"] not in rows:
                continue
            prompt, body = fill("translation", template, pair)
            meta = {"body": body, "source_language": pair["source_language"], "group": pair["name"]}
            rows[pair["language"]][split].append(
                {
                    "id": pair["id"],
                    "language": pair["language"],
                    "prompt": prompt,
                    "target": pair["target"],
                    "meta": meta,
                    "check": None,
                }
            )
    return rows


def prepared_rows(directory: Path, languages: list[str]) -> dict[str, dict[str, list[dict]]]:
    """{language: {split: rows}} from `<directory>/<language>/{train,valid,test}.jsonl` with `prompt` and `target`."""
    rows: dict[str, dict[str, list[dict]]] = {}
    for language in languages:
        rows[language] = {split: [] for split in SPLITS}
        for split in SPLITS:
            path = directory / language / f"{split}.jsonl"
            for number, row in json_lines(path):
                for key in ("prompt", "target"):
                    if not isinstance(row.get(key), str) or not row[key].strip():
                        raise UserError(f"{path}, line {number}: {key!r} is missing or empty; it must be text.")
                meta = {"body": [0, len(row["prompt"])], **row.get("meta", {})}
                identity = str(row.get("id", f"{language}-{split}-{number}"))
                check = row.get("check")
                kept = {"prompt": row["prompt"], "target": row["target"], "meta": meta, "check": check}
                rows[language][split].append({"id": identity, "language": language, **kept})
    return rows


def sample(rows: list[dict], n: int, seed: int) -> list[dict]:
    """At most n rows, drawn without replacement, in their original order."""
    if len(rows) <= n:
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), n))]

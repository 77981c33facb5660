"""Rows of four tasks, and of plain code, from the built-in programs.

The programs of the validation and the test split are the same for all members of a study, which are languages, or tasks
in one language. Each member has training programs of its own, so that a low-resource member does not see its programs
through the others, nor through a base of the same seed, which reads programs that no member has (see `corpus`). Another
seed, or more than `corpus.ADAPTER_PROGRAMS` training rows in all, may draw a program that the base has read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

from studykit.data.checks import CipherCheck
from studykit.data.diffs import unified_diff
from studykit.data.polyglot import PolyglotProgram, programs
from studykit.data.polyglot.commits import commit
from studykit.data.polyglot.kin import Kin
from studykit.data.prompts import render_prompt
from studykit.data.rows import Row, Rows
from studykit.data.splits import SPLITS
from studykit.study.fields import POLYGLOT

Sizes = dict[str, dict[str, int]]  # member -> split -> rows


def rows_by_language(
    task: str, languages: list[str], sizes: Sizes, template: str, seed: int, made: Mapping[str, Kin] | None = None
) -> Rows:
    """Returns the rows of one task in several languages; `made` has those that are made from Lua, by name."""
    rows: Rows = {language: {} for language in languages}
    for split, index, language, chosen in _shares(languages, sizes, seed):
        row_seed = seed + index if split == "train" else seed
        rows[language][split] = _rows(task, chosen, language, languages, template, row_seed, split, made or {})
    return rows


def rows_by_task(tasks: list[str], language: str, sizes: Sizes, templates: dict[str, str], seed: int) -> Rows:
    """Returns the rows of several tasks, one of which may be plain code ("code"), in one language."""
    rows: Rows = {task: {} for task in tasks}
    for split, index, task, chosen in _shares(tasks, sizes, seed):
        rows[task][split] = _rows(task, chosen, language, list(POLYGLOT), templates[task], seed + index, split, {})
    return rows


def _shares(members: list[str], sizes: Sizes, seed: int) -> Iterator[tuple[str, int, str, list[PolyglotProgram]]]:
    """Each split, number of a member and member, with the programs that this split of the member is made of."""
    for split in SPLITS:
        counts = [sizes[member][split] for member in members]
        pool = programs(sum(counts) if split == "train" else max(counts), seed=seed, split=split)
        for index, member in enumerate(members):
            start = sum(counts[:index]) if split == "train" else 0
            yield split, index, member, pool[start : start + counts[index]]


def _rows(
    task: str,
    chosen: list[PolyglotProgram],
    language: str,
    languages: list[str],
    template: str,
    seed: int,
    split: str,
    made: Mapping[str, Kin],
) -> list[Row]:
    """A row per program; rows that are not trained on get a check where the target is code."""
    rows = [_row(task, program, language, languages, template, seed, made) for program in chosen]
    if split == "train" or task not in ("generation", "translation"):
        return rows
    checks = [program.check for program in chosen]
    if language in made:
        words = made[language].words
        return [replace(r, check=CipherCheck(c.function, c.tests, words)) for r, c in zip(rows, checks, strict=True)]
    return [replace(row, check=check) for row, check in zip(rows, checks, strict=True)]


def _row(
    task: str,
    program: PolyglotProgram,
    language: str,
    languages: list[str],
    template: str,
    seed: int,
    made: Mapping[str, Kin],
) -> Row:
    """One row of one task; its choices (source language, commit) follow from the program and the seed."""
    rng = random.Random(f"{program.key}-{program.description}-{language}-{seed}")
    fields, source_language = {"language": language}, None

    def code(of: PolyglotProgram, name: str = language) -> str:
        return made[name].code(of) if name in made else of.code(name)

    if task == "code":
        return Row(_id(program, rng), language, "", code(program), group=program.key).as_plain_code()
    if task == "generation":
        fields["description"], target = program.description, code(program)
    elif task == "translation":
        source_language = rng.choice([other for other in languages if other != language])
        fields |= {"source_language": source_language, "code": code(program, source_language)}
        target = code(program)
    elif task == "commit":
        change = commit(program, rng.randrange(2**31))
        before, after = f"{code(change.before)}\n", f"{code(change.after)}\n"
        fields["diff"] = unified_diff(before, after, f"a/{program.name}", f"b/{program.name}")
        target = change.message
    else:
        fields["code"], target = code(program), program.description
    prompt, body = render_prompt(task, template, fields)
    return Row(_id(program, rng), language, prompt, target, body, program.key, source_language=source_language)


def _id(program: PolyglotProgram, rng: random.Random) -> str:
    return f"{program.key}-{rng.getrandbits(32):08x}"

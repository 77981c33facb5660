"""Rows of the four tasks from the embedded generator of parallel programs.

All languages share the programs of the validation and the test split; each has training programs of its own, so that
a low-resource language does not see its programs through the others.
"""

from __future__ import annotations

import random
from dataclasses import replace

from studykit.data.checks import FunctionCheck
from studykit.data.polyglot import Program, commits, programs
from studykit.data.prompts import fill
from studykit.data.readers.commitpackft import unified_diff
from studykit.data.rows import Row, Rows
from studykit.study.parameters import POLYGLOT


def embedded_rows(
    task: str,
    languages: list[str],
    sizes: dict[str, dict[str, int]],
    template: str,
    level: int,
    seed: int,
    wording: str = "plain",
) -> Rows:
    """{language: {split: rows}} with `sizes[language][split]` rows each."""
    rows: Rows = {language: {} for language in languages}
    total = sum(sizes[language]["train"] for language in languages)
    pool = iter(programs(total, seed=seed, split="train", level=level))
    for index, language in enumerate(languages):
        own = [next(pool) for _ in range(sizes[language]["train"])]
        rows[language]["train"] = [row(task, p, language, languages, template, seed + index, wording) for p in own]
    for split in ("valid", "test"):
        shared = programs(max(sizes[language][split] for language in languages), seed=seed, split=split, level=level)
        for language in languages:
            chosen = shared[: sizes[language][split]]
            rows[language][split] = [
                replace(row(task, p, language, languages, template, seed, wording), check=check_of(task, p))
                for p in chosen
            ]
    return rows


def subject_rows(
    subjects: list[str],
    language: str,
    sizes: dict[str, dict[str, int]],
    templates: dict[str, str],
    level: int,
    seed: int,
    wording: str = "plain",
) -> Rows:
    """{subject: {split: rows}} of several tasks, or plain code, in one language; the programs are split as above."""
    rows: Rows = {subject: {} for subject in subjects}
    pool = iter(programs(sum(sizes[s]["train"] for s in subjects), seed=seed, split="train", level=level))
    for split in ("train", "valid", "test"):
        shared = (
            []
            if split == "train"
            else programs(max(sizes[s][split] for s in subjects), seed=seed, split=split, level=level)
        )
        for index, subject in enumerate(subjects):
            count = sizes[subject][split]
            own = [next(pool) for _ in range(count)] if split == "train" else shared[:count]
            items = [row(subject, p, language, list(POLYGLOT), templates[subject], seed + index, wording) for p in own]
            if split != "train":
                items = [replace(x, check=check_of(subject, p)) for x, p in zip(items, own, strict=True)]
            rows[subject][split] = items
    return rows


def check_of(task: str, program: Program) -> FunctionCheck | None:
    """How to test a target by running it, where the target is code. Training rows go without: tests are costly."""
    return program.check if task in ("generation", "translation") else None


def row(
    task: str, program: Program, language: str, languages: list[str], template: str, seed: int, wording: str = "plain"
) -> Row:
    """One row of one task; the choices (wording, source language, edit) follow from the program and the seed."""
    rng = random.Random(f"{program.key}-{program.description('plain')}-{language}-{seed}")
    fields, source = {"language": language}, None
    if task == "generation":
        fields["description"], target = program.description(wording, rng), program.code(language)
    elif task == "translation":
        source = rng.choice([other for other in languages if other != language])
        fields |= {"source_language": source, "code": program.code(source)}
        target = program.code(language)
    elif task == "commit":
        before, after, target = commits.edit(program, rng.randrange(2**31))
        names = (f"a/{program.function}", f"b/{program.function}")
        fields["diff"] = unified_diff(f"{before.code(language)}\n", f"{after.code(language)}\n", *names)
    elif task == "code":
        identity = f"{program.key}-{rng.getrandbits(32):08x}"
        return Row(identity, language, "", program.code(language), group=program.key).as_plain_code()
    else:
        fields["code"], target = program.code(language), program.description("plain")
    prompt, body = fill(task, template, fields)
    identity = f"{program.key}-{rng.getrandbits(32):08x}"
    return Row(identity, language, prompt, target, body, group=program.key, source_language=source)

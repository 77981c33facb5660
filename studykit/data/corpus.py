"""The text that a base model is trained on from scratch: the built-in programs, or source files of the user's.

The built-in corpus sets the stage of a low-resource study. The base reads much documented code of the source
languages, little code of the target and none that is described, and never sees the form in which the task asks: what it
lacks is what adapters have to add. Programs come from the training structures alone, and from behind those that
adapters read: a seed's first `ADAPTER_PROGRAMS` training programs are kept for the rows of a data run with this seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from studykit.data.jsonl import json_lines
from studykit.data.polyglot import PolyglotProgram, programs
from studykit.errors import UserError
from studykit.study.data_files import corpus_files
from studykit.study.languages import display_name

ADAPTER_PROGRAMS = 20_000  # of a seed's training programs, the first ones, which the base does not read


class Document(NamedTuple):
    """A piece of the corpus; a loss belongs on the text, not on the context before it."""

    context: str
    text: str
    language: str
    kind: str  # documented | code


def builtin_documents(
    languages: list[str], target: str, samples: int, target_share: float, seed: int
) -> Iterator[Document]:
    """Yields `samples` documents from as many programs.

    Shares: `target_share` target-language code alone, 5 % source-language code alone, the rest documented code of the
    source languages.
    """
    rng = random.Random(seed)
    sources = [language for language in languages if language != target]
    for program in programs(ADAPTER_PROGRAMS + samples, seed=seed, split="train")[ADAPTER_PROGRAMS:]:
        share, language = rng.random(), rng.choice(sources)
        if share < target_share:
            yield Document("", program.code(target), target, "code")
        elif share < target_share + 0.05:
            yield Document("", program.code(language), language, "code")
        else:
            context, code = documented(program, language)
            yield Document(context, code, language, "documented")


def documented(program: PolyglotProgram, language: str) -> tuple[str, str]:
    """Returns the description as a comment that names the language, and the code that follows it."""
    sign, comment_and_code = program.documented(language).split(" ", 1)
    comment, code = comment_and_code.split("\n", 1)
    return f"{sign} {display_name(language)}: {comment}\n", code


def file_documents(
    directory: Path, languages: list[str], target: str, target_share: float, seed: int
) -> list[Document]:
    """Reads the `content` of every line of `<directory>/<language>.jsonl`, shuffled; of the target, `target_share`.

    Raises: UserError, which names file and line, for a line without content.
    """
    documents: list[Document] = []
    names = sorted(file.name for file in directory.glob("*.jsonl"))
    for language, name in zip(languages, corpus_files(names, languages), strict=True):
        rows = list(json_lines(directory / name))
        if language == target:
            rows = rows[: max(1, round(target_share * len(rows))) if target_share else 0]
        for location, row in rows:
            if not isinstance(row.get("content"), str):
                raise UserError(f"{location}: 'content' is missing; it must be text.")
            documents.append(Document("", row["content"], language, "code"))
    random.Random(seed).shuffle(documents)
    return documents

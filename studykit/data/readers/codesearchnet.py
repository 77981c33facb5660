"""Code summarization and method naming: CodeSearchNet (arXiv 1909.09436) in its own rows and in those of CodeXGLUE.

Both tasks must not find their answer in the input. Summarization takes the docstring out of the code (in Python it
stands inside). Naming writes METHOD_NAME for the name wherever it stands as a word: in the definition, in calls of
itself, in the docstring; where it is part of another word (`get_user` in `test_get_user`) it stays, and such rows are
counted.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from typing import Any

from studykit.data.files import File, Source
from studykit.data.languages import canonical
from studykit.data.rejects import BadRow, NotForThis, Tally, text
from studykit.data.request import Asked, At, row
from studykit.data.splits import Example

CODEXGLUE_MARKS = frozenset({"func_name", "code", "docstring"})
CODESEARCHNET_MARKS = frozenset({"func_name", "func_code_string", "func_documentation_string"})
SPLIT_WORDS = {"train": "train", "test": "test"} | dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
PLACEHOLDER = "METHOD_NAME"


def link(source: Source, files: list[File], asked: Asked, tally: Tally) -> Tally:
    """Where a reader notes what it saw."""
    return tally


def rows(raw: dict, at: At, asked: Asked) -> Iterator[Example]:
    """One row per function."""
    published = "func_code_string" in raw
    language = asked.language(text(raw, "language"), at)
    code = text(raw, "func_code_string" if published else "code")
    docstring = text(raw, "func_documentation_string" if published else "docstring", empty=True).strip()
    name = re.split(r"[.:#]+", text(raw, "func_name", empty=True).strip())[-1]
    repository = text(raw, "repository_name" if published else "repo")
    if asked.task == "naming":
        code, target = without_name(code, name), name
        if leaks(code, name):
            asked.linked.add("noted", "the name is part of another word in the code", at.place)
    else:
        if not docstring:
            raise BadRow("the docstring is empty")
        code, target = without_docstring(code, docstring, canonical(language)), docstring
    split = at.split or SPLIT_WORDS.get(raw.get("split_name") or raw.get("partition") or "")
    prompt = asked.prompt(asked.task, {"code": code, "language": language})
    made = row(f"{at.file}:{at.number}", language, prompt, target)
    yield Example(made, at.place, split, (repository,))


def without_docstring(code: str, docstring: str, language: str) -> str:
    """The code without its docstring; raises NotForThis if that still stands in it."""
    if language == "python" and (span := docstring_span(code)):
        lines_before, rest = code[: span[0]].rstrip(" \t"), code[span[1] :]
        code = lines_before + rest.lstrip(" \t;").removeprefix("\r").removeprefix("\n")
    if not code.strip():
        raise BadRow("the code is nothing but a docstring")
    if docstring in code:
        raise NotForThis("the docstring stands in the code")
    return code


def docstring_span(code: str) -> tuple[int, int] | None:
    """Where the docstring of a Python function stands (characters); Python 2 is read as well as tokens allow."""
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    depth, defined, opened = 0, False, False
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.NAME and token.string == "def" and not defined:
                defined = True
            elif token.type == tokenize.OP and defined and not opened:
                depth += (token.string in "([{") - (token.string in ")]}")
                opened = depth == 0 and token.string == ":"
            elif opened and token.type == tokenize.STRING:
                return tuple(starts[line - 1] + column for line, column in (token.start, token.end))
            elif opened and token.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.COMMENT):
                return None
    except (tokenize.TokenError, SyntaxError):  # what follows the docstring may be unfinished; what precedes may not
        return None
    return None


def without_name(code: str, name: str) -> str:
    """The code with METHOD_NAME for every `name` that stands as a word."""
    if not name:
        raise NotForThis("the function has no name")
    if not (found := re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", PLACEHOLDER, code))[1]:
        raise NotForThis("the name does not stand in the code")
    return found[0]


def leaks(code: str, name: str) -> bool:
    """Whether a name of four letters or more is still to be read in the code, in any case and spelling."""

    def letters(text: str) -> str:
        return re.sub(r"_", "", text).lower()

    wanted: Any = letters(name)
    return len(wanted) >= 4 and wanted in letters(code.replace(PLACEHOLDER, " "))

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

from studykit.data.files import Source, SourceFile
from studykit.data.rejects import BadRow, NotRequested, Rejects, text
from studykit.data.request import Example, Location, ReadRequest
from studykit.data.rows import Row
from studykit.study.data_files import SPLIT_WORDS
from studykit.study.languages import canonical

CODEXGLUE_MARKS = frozenset({"func_name", "code", "docstring"})
CODESEARCHNET_MARKS = frozenset({"func_name", "func_code_string", "func_documentation_string"})
PLACEHOLDER = "METHOD_NAME"


def link(source: Source, files: list[SourceFile], request: ReadRequest, rejects: Rejects) -> Rejects:
    """Returns the rejects, where the reader notes rows that it has doubts about."""
    return rejects


def rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a function."""
    published = "func_code_string" in raw
    language = request.language(text(raw, "language"), location)
    code = text(raw, "func_code_string" if published else "code")
    docstring = text(raw, "func_documentation_string" if published else "docstring", empty=True).strip()
    name = re.split(r"[.:#]+", text(raw, "func_name", empty=True).strip())[-1]
    repository = text(raw, "repository_name" if published else "repo")
    if request.task == "naming":
        code, target = without_name(code, name), name
        if leaks(code, name):
            request.linked.add("noted", "the name is part of another word in the code", location.line)
    else:
        if not docstring:
            raise BadRow("the docstring is empty")
        code, target = without_docstring(code, docstring, canonical(language)), docstring
    split = location.split or SPLIT_WORDS.get(raw.get("split_name") or raw.get("partition") or "")
    prompt = request.prompt(request.task, {"code": code, "language": language})
    row = Row(f"{location.file}:{location.number}", language, prompt.text, target, prompt.body)
    yield Example(row, location.line, split, (repository,))


def without_docstring(code: str, docstring: str, language: str) -> str:
    """Returns the code without its docstring. Raises: NotRequested if the docstring still stands in it."""
    if language == "python" and (span := docstring_span(code)):
        lines_before, rest = code[: span[0]].rstrip(" \t"), code[span[1] :]
        code = lines_before + rest.lstrip(" \t;").removeprefix("\r").removeprefix("\n")
    if not code.strip():
        raise BadRow("the code is nothing but a docstring")
    if docstring in code:
        raise NotRequested("the docstring stands in the code")
    return code


def docstring_span(code: str) -> tuple[int, int] | None:
    """Returns where the docstring of a Python function begins and ends, as far as Python 2 has the same tokens."""
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
                first, end = (starts[line - 1] + column for line, column in (token.start, token.end))
                return first, end
            elif opened and token.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.COMMENT):
                return None
    except (tokenize.TokenError, SyntaxError):  # what follows the docstring may be unfinished; what precedes may not
        return None
    return None


def without_name(code: str, name: str) -> str:
    """Returns the code with METHOD_NAME for every `name` that stands as a word.

    Raises: NotRequested if there is none.
    """
    if not name:
        raise NotRequested("the function has no name")
    hidden, count = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", PLACEHOLDER, code)
    if not count:
        raise NotRequested("the name does not stand in the code")
    return hidden


def leaks(code: str, name: str) -> bool:
    """Returns whether a name of four letters or more can still be read in the code, in any case and spelling."""

    def letters(text: str) -> str:
        return re.sub(r"_", "", text).lower()

    return len(letters(name)) >= 4 and letters(name) in letters(code.replace(PLACEHOLDER, " "))

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
WORD = re.compile(r"\w+")
LEAK_WORDS = 3  # a docstring of so many words stands in the code if they do, whatever stands between them
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT)


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
        code = without_docstring(code, docstring, canonical(language))
        target, other = reference(raw, docstring, request.reference)
        if other:
            request.linked.add(
                "noted", f"the reference is not {other}, which data.reference can ask for", location.line
            )
    split = location.split or SPLIT_WORDS.get(raw.get("split_name") or raw.get("partition") or "")
    prompt = request.prompt(request.task, {"code": code, "language": language})
    row = Row(f"{location.file}:{location.number}", language, prompt.text, target, prompt.body)
    yield Example(row, location.line, split, (repository,))


def reference(raw: dict, docstring: str, choice: str) -> tuple[str, str]:
    """Returns the reference of a summary, and the name of the other one of a CodeXGLUE row, "" for other rows.

    CodeXGLUE (arXiv 2102.04664) compares with the tokens of the docstring's first paragraph and spaces between them.
    """
    is_codexglue = "func_code_string" not in raw
    if choice == "docstring" or (choice == "auto" and not is_codexglue):
        return docstring, "docstring_tokens" if is_codexglue else ""
    key = "docstring_tokens" if is_codexglue else "func_documentation_tokens"
    tokens = raw.get(key)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise BadRow(f"the field {key!r} is missing or not a list of texts")
    if not (target := " ".join(" ".join(tokens).split())):
        raise BadRow(f"the field {key!r} is empty")
    return target, "docstring" if is_codexglue else ""


def without_docstring(code: str, docstring: str, language: str) -> str:
    """Returns the code without its docstring. Raises: NotRequested if it still stands in the code, in any layout."""
    if language == "python" and (span := docstring_span(code)):
        before, after = code[: span[0]], re.sub(r"^[ \t]*(;[ \t]*)?", "", code[span[1] :])
        if end := re.match(r"\r\n|[\r\n]|\Z", after):  # nothing follows on its last line, which goes as a whole
            before, after = before.rstrip(" \t"), after[end.end() :]
        code = before + after
    if not code.strip():
        raise BadRow("the code is nothing but a docstring")
    words = WORD.findall(docstring)
    if docstring in code or (
        len(words) >= LEAK_WORDS and f" {' '.join(words)} " in f" {' '.join(WORD.findall(code))} "
    ):
        raise NotRequested("the code still contains the docstring")
    return code


def docstring_span(code: str) -> tuple[int, int] | None:
    """Returns where the docstring of a Python function begins and ends, as far as Python 2 has the same tokens.

    The docstring is a first statement of nothing but texts, which Python joins, and parentheses. Lines end where
    Python's do: not at form feeds, nor at the separators of Unicode.
    """
    code = re.sub(r"\r(?!\n)", "\n", code)
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    statement: list[tokenize.TokenInfo] = []
    try:
        _pass_signature(tokens)
        for token in tokens:
            if token.type in LAYOUT or (token.type == tokenize.NEWLINE and not statement):
                continue
            if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) or token.string == ";":
                break
            if not re.match(r"[()]|[uUrR]*['\"]", token.string):
                return None
            statement.append(token)
    except (tokenize.TokenError, SyntaxError):  # what follows the docstring may be unfinished; what precedes may not
        return None
    if not any(token.type == tokenize.STRING for token in statement):
        return None
    starts = [0, *(match.end() for match in re.finditer("\n", code))]  # of lines
    (line, column), (last_line, last_column) = statement[0].start, statement[-1].end
    return starts[line - 1] + column, starts[last_line - 1] + last_column


def _pass_signature(tokens: Iterator[tokenize.TokenInfo]) -> None:
    """Reads on to the colon behind the signature of the first function."""
    depth, defined = 0, False
    for token in tokens:
        if token.type == tokenize.NAME and token.string == "def":
            defined = True
        elif token.type == tokenize.OP and defined:
            depth += (token.string in "([{") - (token.string in ")]}")
            if depth == 0 and token.string == ":":
                return


def without_name(code: str, name: str) -> str:
    """Returns the code with METHOD_NAME for every `name` that stands as a word.

    Raises: NotRequested if there is none.
    """
    if not name:
        raise NotRequested("the function has no name")
    hidden, count = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", PLACEHOLDER, code)
    if not count:
        raise NotRequested("the code does not contain the name")
    return hidden


def leaks(code: str, name: str) -> bool:
    """Returns whether a name of four letters or more can still be read in the code, in any case and spelling."""

    def letters(text: str) -> str:
        return re.sub(r"_", "", text).lower()

    return len(letters(name)) >= 4 and letters(name) in letters(code.replace(PLACEHOLDER, " "))

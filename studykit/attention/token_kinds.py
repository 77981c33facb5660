"""Kinds of tokens: keyword, identifier, literal, comment, punctuation or other, by the lexers of Pygments.

Of a commit, the lines of the diff are of three kinds of their own: added, removed and context. What the lexer finds in
them says little of a change. The first word of the message is its verb ("Rename x to y"); its other words are read as
all text is.

The tokens of a model are pieces that do not follow a language's grammar: "solve(" may be two of them or one. So the
pieces are joined to their text, the text is lexed, and a piece has the kind of most of its visible characters, the
first in `KINDS` on a tie. White space is "other".

    token_kinds(["local", " n", " =", " 1", " --", " one"], "lua")  # array([0, 1, 4, 2, 3, 3], dtype=uint8)

Pygments expects whole programs, but a text may be prose and may be cut off anywhere. So before lexing

- a quote that follows a letter, digit or closing bracket and opens a string is hidden, unless it follows a prefix such
  as the f of f"": it is an apostrophe ("doesn't") or ends a string whose start is cut off;
- the fences of code in prose (```) are hidden;
- a string without an end gets one at the end of its line, and a comment or long string at the end of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Literal, Name, Operator, Punctuation
from pygments.util import ClassNotFound

from studykit.study.languages import canonical

# At most ten, since the explorer's payload has a digit for each.
KINDS = (
    "keyword", "identifier", "literal", "comment", "punctuation", "other", "added", "removed", "context", "verb",
)  # fmt: skip
OTHER = KINDS.index("other")
# The kind of a Pygments type is that of its nearest ancestor here. A type without one is plain text or an error.
KIND_OF_TYPE = {
    Keyword: "keyword",
    Operator.Word: "keyword",
    Comment.Preproc: "keyword",  # directives of C
    Comment.PreprocFile: "literal",
    Comment: "comment",
    Literal: "literal",
    Name: "identifier",
    Operator: "punctuation",
    Punctuation: "punctuation",
}
DIFF = re.compile(r"^--- .*\n\+\+\+ .*\n(?=@@ )", re.MULTILINE)  # the head of a unified diff of one file
KIND_OF_LINE = {"+": "added", "-": "removed", " ": "context", "@": "other", "\\": "other"}  # by its first character
PLAIN_TEXT = re.compile(r"(?P<literal>\d[\w.]*)|(?P<identifier>\w+)")
SINGLE_QUOTED = {"python", "javascript", "typescript", "lua", "ruby", "php", "perl", "bash"}  # have strings like 'this'
STRING_QUOTES = re.compile(r'"""|\'\'\'|```|\\.|["\'\n]', re.DOTALL)
# Where ' encloses one character, another ' is none: a lifetime ('a) or a symbol.
CHARACTER_QUOTES = re.compile(
    r"(?<![\w)\]}])(?i:[blu]|u8)?'(?:\\.[^'\n]*|[^'\\\n])'|" + STRING_QUOTES.pattern, re.DOTALL
)
STRING_PREFIX = re.compile(r"(?<!\w)(?i:[bcflrstuv]{1,2}|u8)$")  # f"" of Python, L"" of C, s"" of Scala
ENDS = '\n`"""\n=end\n*/ ]] ]=] ]==]'  # of raw strings, comments and long strings that Pygments does not end itself


def token_kinds(tokens: Sequence[str], language: str) -> np.ndarray:
    """Returns the kind of each token of a text in a language, as an index into `KINDS`: (T,) uint8.

    A language without a lexer is read as C.
    """
    return _of_tokens(tokens, character_kinds("".join(tokens), canonical(language)))


def has_diff(text: str) -> bool:
    """Returns whether a text holds a unified diff, as the prompt for a commit message does."""
    return DIFF.search(text) is not None


def diff_kinds(tokens: Sequence[str], language: str) -> np.ndarray:
    """Returns the kind of each token of a text with a unified diff, whose lines have kinds of their own: (T,) uint8.

    The diff ends before the first line that can be none of its lines; outside of it the text is read as code.
    """
    text = "".join(tokens)
    kinds = character_kinds(text, canonical(language))
    if head := DIFF.search(text):
        kinds[slice(*head.span())] = OTHER
        start = head.end()
        for line in text[start:].split("\n"):
            if line[:1] not in KIND_OF_LINE:
                break
            kinds[start : start + len(line)] = KINDS.index(KIND_OF_LINE[line[:1]])
            start += len(line) + 1
    return _of_tokens(tokens, kinds)


def message_kinds(tokens: Sequence[str], language: str) -> np.ndarray:
    """Returns the kind of each token of a commit message, whose first word is its verb: (T,) uint8."""
    text = "".join(tokens)
    kinds = character_kinds(text, canonical(language))
    if verb := re.match(r"\s*(\w+)", text):
        kinds[slice(*verb.span(1))] = KINDS.index("verb")
    return _of_tokens(tokens, kinds)


def _of_tokens(tokens: Sequence[str], of_character: np.ndarray) -> np.ndarray:
    """Returns the kind of most visible characters of each token, from those of the characters of their text."""
    kinds, start = np.full(len(tokens), OTHER, dtype=np.uint8), 0
    for i, token in enumerate(tokens):
        visible = [start + offset for offset, sign in enumerate(token) if not sign.isspace()]
        if visible:
            kinds[i] = np.bincount(of_character[visible]).argmax()
        start += len(token)
    return kinds


def character_kinds(text: str, language: str) -> np.ndarray:
    """Returns the kind of each character of a text, as an index into `KINDS`: (len(text),) uint8."""
    program, inserted = _prepared(text, language)
    kinds = np.full(len(program), OTHER, dtype=np.uint8)
    for start, token_type, piece in _lexer(language).get_tokens_unprocessed(program + ENDS):
        if start >= len(program):
            break
        kind, end = _kind_of_type(token_type), min(start + len(piece), len(program))
        if kind in ("keyword", "identifier") and not re.search(r"\w", piece):
            kind = "punctuation"  # Pygments calls some signs keywords, as & of Rust
        if kind:
            kinds[start:end] = KINDS.index(kind)
        else:
            for match in PLAIN_TEXT.finditer(program, start, end):
                kinds[match.start() : match.end()] = KINDS.index(match.lastgroup)
    kinds = np.delete(kinds, inserted)
    visible = np.array([not sign.isspace() for sign in text], dtype=bool)
    kinds[visible & (kinds == OTHER)] = KINDS.index("punctuation")
    return kinds


def _prepared(text: str, language: str) -> tuple[str, list[int]]:
    """Returns the text as Pygments can read it, and the indices of the characters in it that were inserted.

    Hidden quotes become another sign of the same length: _ within a word, else a space.
    """
    single_quoted = language in SINGLE_QUOTED
    pieces, inserted, start, length, open_quote = [], [], 0, 0, ""

    def add(piece: str) -> None:
        nonlocal length
        pieces.append(piece)
        length += len(piece)

    for match in (STRING_QUOTES if single_quoted else CHARACTER_QUOTES).finditer(text + "\n"):
        quote, at = match[0], match.start()
        add(text[start:at])
        start = match.end()
        if quote == "\n":
            if open_quote:
                inserted.append(length)
                add(open_quote)
            open_quote = ""
        elif quote == "```":
            quote = "   "
        elif quote == open_quote:
            open_quote = ""
        elif quote in ('"', "'") and not open_quote:
            before, after = text[at - 1 : at], text[at + 1 : at + 2]
            prefix = STRING_PREFIX.search(text[max(0, at - 3) : at])
            prose = quote == "'" and re.match(r"s\b(?!')", text[at + 1 : at + 4])  # zero or more b's
            if (before.isalnum() or before in tuple("_)]}")) and (not prefix or prose):
                quote = "_" if after.isalnum() else " "
            elif quote == '"' or single_quoted:
                open_quote = quote
        add(quote)
    return "".join(pieces)[:-1], inserted


def _kind_of_type(token_type: Any) -> str | None:
    while token_type is not None and token_type not in KIND_OF_TYPE:
        token_type = token_type.parent
    return KIND_OF_TYPE.get(token_type)


@cache
def _lexer(language: str) -> Lexer:
    try:
        return get_lexer_by_name(language, startinline=True)  # an option of PHP's lexer: no <?php is needed
    except ClassNotFound:
        return get_lexer_by_name("c")

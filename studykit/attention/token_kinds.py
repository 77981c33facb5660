"""What kind of token a token is - keyword, identifier, literal, comment, punctuation - by regular expressions.

The tokens of a model are pieces that know nothing of a language's grammar: "solve(" may be two of them or one. So the
pieces are joined to their text, the text is lexed by the signs and words of its language, and a piece is of the kind
that most of its visible characters are of, the first named on a tie. Pieces of white space, and those that no rule
knows, are "other". A prompt of prose is read as if it were code: its words are identifiers, or keywords where the
language has the word; but a quote after a letter or digit opens nothing, for it is an apostrophe ("doesn't"), a
transpose or the end of a string whose start is not in the text.

A text may be cut anywhere, so what it leaves open runs on: a quote to the end of its line, what may span lines to the
end of the text. So no rule reads far and then gives up, and the time of lexing grows as the text does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from studykit.data.languages import canonical

KINDS = ("keyword", "identifier", "literal", "comment", "punctuation", "other")
OTHER = KINDS.index("other")

C = """break case char const continue default do double else enum extern float for goto if int long return short static
    struct switch void volatile while"""
OBJECTS = """abstract boolean catch class extends false final finally import implements instanceof interface new null
    package private protected public super this throw throws true try"""
KEYWORDS = {
    "python": "False None True and as assert async await break class continue def del elif else except finally for "
              "from global if import in is lambda nonlocal not or pass raise return try while with yield",
    "ruby": "BEGIN END alias and begin break case class def do else elsif end ensure false for if in module next nil "
            "not or redo rescue retry return self super then true undef unless until when while yield",
    "lua": "and break do else elseif end false for function goto if in local nil not or repeat return then true until "
           "while",
    "julia": "baremodule begin break catch const continue do else elseif end export false finally for function global "
             "if import in let local macro module mutable quote return struct true try using where while",
    "javascript": f"{C} {OBJECTS} async await debugger delete export function in let of typeof undefined var with "
                  "yield",
    "go": "break case chan const continue default defer else fallthrough false for func go goto if import interface "
          "map nil package range return select struct switch true type var",
    "java": f"{C} {OBJECTS} assert byte native strictfp synchronized transient var",
    "c": f"{C} auto inline register restrict signed sizeof typedef union unsigned",
    "c++": f"{C} {OBJECTS} auto bool constexpr delete explicit friend inline namespace noexcept nullptr operator "
           "register signed sizeof template typedef typename union unsigned using virtual",
    "c#": f"{C} {OBJECTS} as base bool byte decimal delegate event foreach in internal is namespace object out "
              "override readonly ref sealed string using var virtual yield",
    "php": f"{C} {OBJECTS} and array as echo elseif endif foreach fn function global isset match namespace or print "
           "require trait unset use var xor yield",
    "rust": "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod "
            "move mut pub ref return self static struct super trait true type unsafe use where while",
    "scala": f"{OBJECTS} case def do else for given if lazy match object override return sealed then trait type val "
             "var while with yield",
    "swift": "as break case catch class continue default defer do else enum extension false fileprivate for func guard "
             "if import in init inout internal is let nil private protocol public repeat return self static struct "
             "super switch throw throws true try var where while",
}  # fmt: skip
NEAREST = {"typescript": "javascript", "kotlin": "java"}  # where a language has no words of its own here


def _span(opening: str, closing: str, within: str = "(?!)") -> str:
    """From an opening to the first closing that is not `within` something, or else to the end of the text."""
    return rf"{opening}(?:{within}|(?!{closing})(?s:.))*(?:{closing})?"


def _nest(opening: str, closing: str) -> str:
    """A span that may hold spans of its kind, which may hold some in turn."""
    return _span(opening, closing, _span(opening, closing, _span(opening, closing)))


HASH, SLASHES = r"#[^\n]*", r"//[^\n]*|" + _span(r"/\*", r"\*/")
COMMENTS = {
    "python": HASH,
    "ruby": HASH + "|" + _span(r"(?m:^)=begin\b", r"(?m:^)=end\b[^\n]*"),
    "julia": _nest("#=", "=#") + "|" + HASH,
    "lua": _span(r"--\[(?P<dashed>=*)\[", r"\](?P=dashed)\]") + r"|--[^\n]*",
    "php": f"{HASH}|{SLASHES}",
    "perl": rf"(?<!\S){HASH}",  # within a word # is no comment: $#list, ${#name}
    "bash": rf"(?<!\S){HASH}",
    "haskell": _nest(r"\{-", r"-\}") + r"|--[^\n]*",
    "ocaml": _nest(r"\(\*", r"\*\)"),
    "racket": _nest(r"#\|", r"\|#") + r"|;[^\n]*",
}
ESCAPE = r"\\(?s:.)"
DOUBLE, SINGLE = rf'"(?:{ESCAPE}|[^"\\\n])*"?', rf"'(?:{ESCAPE}|[^'\\\n])*'?"
# Letters before a quote are of the string: f"" of Python, L"" of C, s"" of Scala; but "zero or more b's" is prose.
STRING = r"(?<!\w)(?i:[bcflrstuv]{1,2}|u8|raw)?(?:" + _span('"""', '"""', ESCAPE) + f"|{DOUBLE})"
PYTHON = r"(?<!\w)(?:(?i:[bfrtu]{1,2})(?!'s\b))?(?:" + _span("'''", "'''", ESCAPE) + f"|{SINGLE})"
QUOTED = rf"(?<!\w){SINGLE}"
CHARACTER = r"(?<![\w)\]}'])b?'(?:\\.[^'\n]*|[^'\\\n])'"  # where 'a is a lifetime, a type or a symbol, x' a name
BACKQUOTE = r"(?<!`)`(?!``)"  # three are the fence of code in prose
COMMAND = QUOTED + "|" + _span(BACKQUOTE, "`", ESCAPE)
LITERALS = {
    "python": PYTHON,
    "lua": QUOTED + "|" + _span(r"\[(?P<level>=*)\[", r"\](?P=level)\]"),
    "go": QUOTED + "|" + _span(BACKQUOTE, "`"),
    "racket": r"#\\.\w*",
    **dict.fromkeys(["javascript", "ruby", "php", "perl", "bash"], COMMAND),
    **dict.fromkeys(["rust", "julia", "scala", "haskell", "ocaml"], CHARACTER),
}
NUMBER = r"\b\d[\w.]*"
WORD = r"[^\W\d]\w*(?:[!?](?!=))?"


def token_kinds(tokens: Sequence[str], language: str) -> np.ndarray:
    """The kind of each token of a text in a language, as an index into `KINDS`: (T,) uint8.

    An unknown language has the comments and strings of C; one without keywords here has those of all.
    """
    text = "".join(tokens)
    lexer, words = _lexer(canonical(language))
    of_character = np.full(len(text), OTHER, dtype=np.uint8)
    for found in lexer.finditer(text):
        kind = found.lastgroup
        if kind == "identifier" and found[0] in words:
            kind = "keyword"
        of_character[found.start() : found.end()] = KINDS.index(kind)
    kinds, start = np.full(len(tokens), OTHER, dtype=np.uint8), 0
    for i, token in enumerate(tokens):
        visible = [start + at for at, sign in enumerate(token) if not sign.isspace()]
        if visible:
            kinds[i] = np.bincount(of_character[visible]).argmax()
        start += len(token)
    return kinds


@cache
def _lexer(language: str) -> tuple[re.Pattern[str], frozenset[str]]:
    name = NEAREST.get(language, language)
    words = KEYWORDS[name] if name in KEYWORDS else " ".join(KEYWORDS.values())
    rules = {
        "comment": COMMENTS.get(name, SLASHES),
        "literal": f"{STRING}|{LITERALS.get(name, QUOTED)}|{NUMBER}",
        "identifier": WORD,
        "punctuation": r"[^\w\s]",
    }
    return re.compile("|".join(f"(?P<{kind}>{rule})" for kind, rule in rules.items())), frozenset(words.split())

"""Tests of a benchmark and the completion that they test, as one program.

HumanEval (arXiv:2107.03374), HumanEval-X (arXiv:2303.17568) and MultiPL-E (arXiv:2208.08227) bring their tests as text
of the language: assertions that call the completion, so that both share a process. Each function of
`interpreted` and `compiled` makes a program
of `before`, completion and `after`, whose last act, after every test ran and passed, is to print the token that it
reads from descriptor 3. What keeps a completion from passing without being right:

- no file and no constant holds the token;
- what the end of the program needs (reading, writing, raising, comparing) is taken before the completion runs, under
  names that it cannot know, or in languages and scopes that let nobody replace it;
- what the completion replaced of the tests' tools (assertions, macros, built-in functions, equality of built-in types)
  is put back before the tests, or the token is not printed; so it is for results that equal everything.

A program that knows this file can still read descriptor 3 by itself, and in Java, Go and Rust a completion can declare
types by which its results equal everything.

What the benchmarks take from packages (Go's testify, luaunit) is here in the small; imports of other packages are
dropped, so that only programs which need them fail.
"""

from __future__ import annotations

import hashlib
import re

FORGED = "the completion changed what its tests are made of"


def hidden_name(*texts: str) -> str:
    """Returns a name that no text can contain which it is made from."""
    return "studykit_" + hashlib.sha256("".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def at_the_end_of_function(after: str) -> tuple[str, str]:
    """Splits MultiPL-E's tests behind the brace with which they end the completion's function."""
    brace = re.match(r"\s*\}[ \t]*;?[ \t]*\n", after)
    return (brace[0], after[brace.end() :]) if brace else ("", after)


def fill(template: str, **parts: str) -> str:
    """Returns a template with each @name replaced by its part."""
    return re.sub(r"@(" + "|".join(parts) + r")\b", lambda match: parts[match[1]], template)

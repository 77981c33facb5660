"""Tests of a benchmark and the completion that they test, as one program.

HumanEval (arXiv:2107.03374), HumanEval-X (arXiv:2303.17568) and MultiPL-E (arXiv:2208.08227) bring their tests as text
of the language: assertions that call the completion. Each function of `interpreted` and `compiled` makes a program of
`before`, completion and `after`, whose last act, after every test ran and passed, is to print a token. What keeps a
completion from passing without being right:

- Python and Ruby run the tests in a process of their own, which asks the completion's process for results and compares
  them as values of built-in types. The completion never has the token.
- In the other languages tests and completion share a process. The token comes from descriptor 3, which gives it once,
  to a part of the program that runs before the completion does and keeps it under a name that no text can contain.
- Assertions of the tests are functions of ours under such names, or those of the standard library under their full
  names. Lua and JavaScript compile what is whole by itself, so that it cannot end the function around it.
- Results equal what they are: Java's are copied to the language's own classes, C++ looks for `==` outside the
  completion's namespace, and Go and Rust refuse completions that declare names of the language.

A program that knows this file and searches its own memory, or reads its own source text while it runs, can still pass.

What the benchmarks take from packages (Go's testify, luaunit) is here in the small; imports of other packages are
dropped, so that only programs which need them fail.
"""

from __future__ import annotations

import hashlib
import re

FORGED = "the completion changed functions that its tests use"


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

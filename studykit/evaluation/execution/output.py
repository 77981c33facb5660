"""The comparison of two outputs, by the rule of ExecEval, the judge of xCodeEval.

Outputs are equal if their lines are, apart from the space around them; else if their tokens are, where numbers may
differ by 1e-12 and yes, no, true and false may be written in any case.
"""

from __future__ import annotations

import decimal

TOLERANCE = decimal.Decimal("1e-12")  # absolute
WORDS = ("yes", "no", "true", "false")
EXACT = decimal.Context(traps=[])  # integers of any length differ if they do; what is too large is infinite


def same_output(got: str, expected: str) -> bool:
    """Says whether an output is the expected one.

    >>> same_output("YES 0.50", "yes .5")
    True
    """
    if _lines(got) == _lines(expected):
        return True
    left, right = got.split(), expected.split()
    return len(left) == len(right) and all(map(_same_token, left, right))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_token(got: str, expected: str) -> bool:
    if got == expected or got.lower() == expected.lower() in WORDS:
        return True
    a, b = _number(got), _number(expected)
    return a is not None and b is not None and abs(EXACT.subtract(a, b)) <= TOLERANCE


def _number(token: str) -> decimal.Decimal | None:
    """The number that a token is; None for what is no finite number."""
    number = EXACT.create_decimal("nan") if "_" in token else decimal.Decimal(token, EXACT)
    return number if number.is_finite() else None

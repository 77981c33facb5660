"""Rows that are not used, by reason, each reason with the location of its first row: nothing is dropped silently.

Every row that was read is refused, skipped or used. A **refused** row is bad: the data is not what it should be, and
`data.bad_rows` says how many such rows are tolerated. A **skipped** row is good, but not for this study. A row that is
made of a used one may still be **dropped**, as a duplicate or because fewer were requested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from studykit.errors import UserError


class BadRow(Exception):
    """What is wrong with a row: `reason`, by which such rows are counted, and `detail`, true of this row alone."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason + detail)
        self.reason, self.detail = reason, detail

    def at(self, line: str) -> UserError:
        """Returns the error that names the row's file and line."""
        return UserError(f"{line}: {self.reason}{self.detail}.")


class NotRequested(Exception):
    """The reason why a study has no use for a good row."""


Refuse = Callable[[str, BadRow], None]  # is called with "file, line N" and what is wrong there


def refuse_all(line: str, bad: BadRow) -> None:
    """Tolerates no bad row at all."""
    raise bad.at(line) from None


class Rejects:
    """Counts of rows by kind and reason."""

    KINDS = ("refused", "skipped", "dropped", "noted")  # noted: rows that are used in spite of a doubt

    def __init__(self, tolerated: int = 0):
        """`tolerated`: how many bad rows may be refused."""
        self.tolerated = tolerated
        self._counts: dict[str, Counter[str]] = {kind: Counter() for kind in self.KINDS}
        self._lines: dict[tuple[str, str], str] = {}

    def add(self, kind: str, reason: str, line: str, rows: int = 1) -> None:
        """Counts rows; `line` is the location of the first of them."""
        if rows:
            self._counts[kind][reason] += rows
            self._lines.setdefault((kind, reason), line)

    def refuse(self, line: str, bad: BadRow) -> None:
        """Counts a bad row. Raises: UserError, which names its file and line, if there are more than are tolerated."""
        self.add("refused", bad.reason, line)
        if (refused := self.total("refused")) > self.tolerated:
            count = f" This is bad row {refused}; data.bad_rows tolerates {self.tolerated}." if self.tolerated else ""
            raise UserError(f"{bad.at(line)}{count}") from None

    def total(self, kind: str) -> int:
        """Returns the number of rows of a kind."""
        return self._counts[kind].total()

    def reasons(self, kind: str) -> list[dict[str, Any]]:
        """Returns the reasons of a kind, most frequent first; keys: reason, rows, "for example" (a location)."""
        return [
            {"reason": reason, "rows": rows, "for example": self._lines[kind, reason]}
            for reason, rows in self._counts[kind].most_common()
        ]


def text(raw: dict, key: str, *, empty: bool = False) -> str:
    """Returns the text in a field. Raises: BadRow where there is none, or only space, unless `empty` is allowed."""
    value = raw.get(key)
    if not isinstance(value, str):
        detail = f" (it is {type(value).__name__})" if key in raw else ""
        raise BadRow(f"the field {key!r} is missing or not text", detail)
    if not value.strip() and not empty:
        raise BadRow(f"the field {key!r} is empty")
    return value

"""The count of what happened to the rows of a data run: nothing is dropped that does not stand here, with a place.

Every row that was read is refused, passed over or used. A **refused** row is bad: the data is not what it should be,
and `data.bad_rows` says how many are borne. A row that is **passed over** is good, but not for this study. An example
made of a used row may still be **left out**, as a duplicate or because fewer were asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from studykit.errors import UserError


class BadRow(Exception):
    """What is wrong with a row: `reason`, by which such rows are counted, and `detail`, true of this row alone."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason + detail)
        self.reason, self.detail = reason, detail

    def at(self, place: str) -> UserError:
        return UserError(f"{place}: {self.reason}{self.detail}.")


class NotForThis(Exception):
    """A good row that the study does not ask for; says why."""


Refuse = Callable[[str, BadRow], None]


def stop(place: str, bad: BadRow) -> None:
    """Bears no bad row at all."""
    raise bad.at(place) from None


class Tally:
    """Counts by kind and reason, each with the place of its first row."""

    KINDS = ("refused", "passed over", "left out", "noted")

    def __init__(self, bad_rows: int = 0):
        self.bad_rows = bad_rows
        self.made = 0
        self.licences: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {kind: Counter() for kind in self.KINDS}
        self._places: dict[tuple[str, str], str] = {}

    def add(self, kind: str, reason: str, place: str, rows: int = 1) -> None:
        if rows:
            self._counts[kind][reason] += rows
            self._places.setdefault((kind, reason), place)

    def refuse(self, place: str, bad: BadRow) -> None:
        """Count a bad row; raises UserError, which names its file and line, if there are more than are borne."""
        self.add("refused", bad.reason, place)
        if (refused := self.total("refused")) > self.bad_rows:
            borne = f" This is bad row {refused}; data.bad_rows bears {self.bad_rows}." if self.bad_rows else ""
            raise UserError(f"{bad.at(place)}{borne}") from None

    def total(self, kind: str) -> int:
        return self._counts[kind].total()

    def table(self, kind: str) -> list[dict]:
        """[{"reason", "rows", "for example"}], the most frequent first."""
        return [{"reason": reason, "rows": n, "for example": self._places[kind, reason]}
                for reason, n in self._counts[kind].most_common()]  # fmt: skip


def text(row: dict, key: str, *, empty: bool = False) -> str:
    """The text in a field; raises BadRow where there is none, or only space, unless `empty` is allowed."""
    value = row.get(key)
    if not isinstance(value, str):
        detail = f" (it is {type(value).__name__})" if key in row else ""
        raise BadRow(f"the field {key!r} is missing or no text", detail)
    if not value.strip() and not empty:
        raise BadRow(f"the field {key!r} is empty")
    return value

"""What a study asks of the rows of a data set, and where a row stands: what every format's reader is told.

A reader of a format is a function `(raw, at, asked) -> Iterator[Example]`: from one row as it is published to any
number of rows of ours. It raises `BadRow` for a row that is not as published, and `NotForThis` for one that the study
does not ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from studykit.data.languages import canonical
from studykit.data.prompts import render_prompt
from studykit.data.rejects import BadRow, NotForThis
from studykit.data.rows import Row
from studykit.study.templates import check_template


class At(NamedTuple):
    """Where a row was read, and what the name of its file says of it."""

    file: str
    place: str  # "file, line N", for people
    language: str | None  # as the study names it
    split: str | None

    @property
    def number(self) -> str:
        return self.place.rsplit(" ", 1)[1]


@dataclass(frozen=True)
class Asked:
    """The parameters that a reader needs."""

    task: str
    languages: tuple[str, ...]
    template: str | None = None
    diff_context: int = 3
    split_by: str = "repository"
    linked: Any = None  # what a format keeps in other files, see `formats`

    def name(self, word: str | None) -> str | None:
        """The study's name for a language of the data, None if it is none of the study's."""
        return next((x for x in self.languages if word is not None and canonical(x) == canonical(word)), None)

    def language(self, word: str, at: At) -> str:
        """The study's name for the language of a row; a file that is named after one holds no other."""
        if at.language is not None and canonical(word) != canonical(at.language):
            raise BadRow(f"a row of another language in a file of {at.language}", f" ({word})")
        if (name := self.name(word)) is None:
            raise NotForThis("another language")
        return name

    def prompt(
        self, kind: str, fields: dict[str, str], *, cut: tuple[int, int] | None = None, after: str = ""
    ) -> tuple[str, tuple[int, int]]:
        """The prompt and its body's span.

        Args:
            cut: the part of the body that may be cut, in characters from its start; None: all of it.
            after: what stands behind the template, such as the declaration of what is to be written.
        """
        text, (start, end) = render_prompt(kind, check_template(kind, self.template), fields)
        if cut is not None:
            start, end = start + cut[0], start + cut[1]
        return text + after, (start, end)


def row(id: str, language: str, prompt: tuple[str, tuple[int, int]], target: str, **fields) -> Row:
    """A row of ours; `prompt` as `Asked.prompt` gives it."""
    text, body = prompt
    return Row(id, language, text, target, body, **fields)

"""What a study requests of a data set, and what a reader of a data set returns.

A reader is a function `(raw, location, request) -> Iterator[Example]`: from one row as it is published to any number of
rows of ours. It raises `BadRow` for a row that is not as published, and `NotRequested` for one that a study has no use
for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from studykit.data.prompts import Prompt, render_prompt
from studykit.data.rejects import BadRow, NotRequested
from studykit.data.rows import Row
from studykit.study.languages import canonical


class Location(NamedTuple):
    """Where a row was read, and what the name of its file says of it."""

    file: str  # its name relative to the source
    line: str  # "file, line N", for people
    language: str | None  # as the study names it
    split: str | None  # train, valid, test

    @property
    def number(self) -> str:
        """Returns the number of the line in its file."""
        return self.line.rsplit(" ", 1)[1]


class Example(NamedTuple):
    """A row on its way through the ingestion."""

    row: Row
    line: str  # where it was read: "file, line N"
    split: str | None  # train, valid, test; "fit": to be divided into train and valid; None: into all three
    units: tuple[str, ...]  # what must stay in one split; none where it has a split and nothing is known of it


@dataclass(frozen=True)
class ReadRequest:
    """The parameters of a data run that readers need."""

    task: str
    languages: tuple[str, ...]  # of the study
    template: str  # of the prompts
    diff_context: int = 3  # lines around each change of a commit
    split_by: str = "repository"  # what the division of commits keeps whole
    reference: str = "auto"  # of a summary: auto, docstring or docstring_tokens
    linked: Any = None  # what the rows refer to in other files, see `Format.link`

    def known_language(self, word: str | None) -> str | None:
        """Returns the study's name for a language of the data; None if it is none of the study's."""
        return next((x for x in self.languages if word is not None and canonical(x) == canonical(word)), None)

    def language(self, word: str, location: Location) -> str:
        """Returns the study's name for the language of a row.

        Raises: BadRow if the row's file is named after another language, NotRequested if the study's languages lack it.
        """
        if location.language is not None and canonical(word) != canonical(location.language):
            raise BadRow(f"a row of another language in a file of {location.language}", f" ({word})")
        if (name := self.known_language(word)) is None:
            raise NotRequested("another language")
        return name

    def prompt(
        self, kind: str, fields: dict[str, str], *, cut: tuple[int, int] | None = None, after: str = ""
    ) -> Prompt:
        """Renders the prompt of a row.

        Args:
            kind: an entry of `templates.yaml`.
            cut: the part of the body that may be cut, in characters from its start; None: all of it.
            after: text behind the template, such as the declaration of what is to be written.
        """
        text, (start, end) = render_prompt(kind, self.template, fields)
        if cut is not None:
            start, end = start + cut[0], start + cut[1]
        return Prompt(text + after, (start, end))

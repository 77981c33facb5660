"""Errors that the user reads as one sentence, and values as the user would write them."""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    """Returns a text in one line that no terminal obeys.

    Control characters, line ends, marks of writing direction and halves of characters are written as in Python's
    strings. They come from foreign data: ids of rows, names of files, messages of programs.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class UserError(ValueError):
    """A mistake of the user's: one printable sentence that names the value, its place and what is accepted."""

    def __init__(self, sentence: str):
        super().__init__(printable(sentence))

    def _render_traceback_(self) -> list[str]:  # IPython asks for this: a notebook then shows only the sentence
        return [f"UserError: {self}"]


class Interrupted(KeyboardInterrupt):
    """An interruption by the user of work that can be continued: one sentence that says how."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def show(value: Any) -> str:
    """Returns a value as the user would write it, with YAML's words for constants, at most 60 characters."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

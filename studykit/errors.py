"""Errors that the user reads as one sentence, and values as the user would write them."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A mistake of the user's: one sentence that names the value, its place and what is accepted."""

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

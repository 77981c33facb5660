"""Errors of the reader's, in one sentence each, and values as their writer would know them."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A mistake of the reader's: one sentence that names the value, its place and what is accepted."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this: a notebook then shows the sentence alone
        return [f"UserError: {self}"]


def show(value: Any) -> str:
    """A value as its writer would know it, YAML's words for constants, at most 60 characters."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Differences between two versions of a file, as text."""

from __future__ import annotations

import difflib


def unified_diff(before: str, after: str, old: str, new: str, context: int = 3) -> str:
    """Returns a unified diff as git writes it, with `context` lines around each change, without trailing newline."""
    return "\n".join(difflib.unified_diff(_lines(before), _lines(after), old, new, n=context, lineterm=""))


def _lines(text: str) -> list[str]:
    """Lines that end at "\\n" alone; a last one without it says so, since that may be all that a commit changes."""
    *lines, last = text.split("\n")
    return [*lines, f"{last}\n\\ No newline at end of file"] if last else lines

"""Programming languages by their many names: what a study, a data set, a folder and a prompt call them.

The names are in `languages.yaml`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

_TABLES = yaml.safe_load(Path(__file__).with_name("languages.yaml").read_text(encoding="utf-8"))
LANGUAGE_NAMES: dict[str, str] = _TABLES["names"]
ALIASES: dict[str, str] = _TABLES["aliases"]
QUALIFIERS: list[str] = _TABLES["qualifiers"]


def canonical(word: str) -> str:
    """Returns the lower-case name of a language: "Python", "py" and "python3" are python."""
    word = word.strip().lower()
    return ALIASES.get(word, word)


def display_name(language: str) -> str:
    """Returns the name of a language in a prompt; a language without an entry is written as the study names it."""
    return LANGUAGE_NAMES.get(canonical(language), language)

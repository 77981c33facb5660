"""The rating page: one HTML file in which a person compares two completions at a time and saves the answers.

It is sealed (see `sealed`), and holds no name of a method, of a study or of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studykit.attention.token_kinds import KINDS, character_kinds
from studykit.evaluation.pairing import Shown
from studykit.evaluation.ratings import FORMAT, PageKey
from studykit.report.sealed import sealed_page
from studykit.study.fields import Task
from studykit.study.languages import canonical, display_name

QUESTIONS: dict[Task, str] = {
    "generation": "Which program does better what the task asks for?",
    "translation": "Which program is the better translation?",
    "commit": "Which message describes the change better?",
    "summarization": "Which summary describes the code better?",
    "naming": "Which name says better what the code does?",
}
WRITES_CODE = ("generation", "translation")
COLOURED = ("keyword", "literal", "comment")  # kinds of characters that the style tells apart
Piece = tuple[str, str]  # a kind of COLOURED, or "", and a text


def rating_page(key: PageKey, texts: Mapping[str, Shown], task: Task, language: str) -> str:
    """Returns the whole HTML document of a page.

    Args:
        texts: by the id of each shown pair.
        task: that the completions solve.
        language: of the target, in which programs are coloured.
    """
    folder = Path(__file__).parent
    style = (folder / "rating.css").read_text(encoding="utf-8")
    script = (folder / "js/rating.js").read_text(encoding="utf-8")
    written_in = language if task in WRITES_CODE else None
    data = {
        "format": FORMAT,
        "page": key.page,
        "question": QUESTIONS[task],
        "pairs": [_pair(pair.id, texts[pair.id], written_in) for pair in key.pairs],
        "repeats": key.repeats,
    }
    title = f"Compare {display_name(language) + ' programs' if written_in else 'texts'}"
    content = "<noscript>This page needs JavaScript.</noscript>"
    return sealed_page("rating", title, content, style, script, data)


def _pair(id: str, shown: Shown, language: str | None) -> dict[str, Any]:
    reference, first, second = (pieces(text, language) for text in (shown.reference, shown.first, shown.second))
    return {"id": id, "prompt": shown.prompt, "reference": reference, "first": first, "second": second}


def pieces(text: str, language: str | None) -> list[Piece]:
    """Returns a text in pieces of one colour each; in one piece if it is in no programming language."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be written to a file
    if language is None or not text:
        return [("", text)] if text else []
    found: list[Piece] = []
    for character, number in zip(text, character_kinds(text, canonical(language)), strict=True):
        kind = KINDS[number] if KINDS[number] in COLOURED else ""
        if found and (found[-1][0] == kind or character.isspace()):
            found[-1] = (found[-1][0], found[-1][1] + character)
        else:
            found.append((kind, character))
    return found

"""Prompts: templates whose holes are filled.

A template is text with named holes. Some holes, together the body, may be long: when a prompt must be shortened, the
end of the body is cut, never the markers around it (`encoding`). The defaults stand in `study/templates.yaml`, each
with its source; `data.template` replaces the one that a study uses.
"""

from __future__ import annotations

from string import Formatter
from typing import NamedTuple

from studykit.study.languages import display_name
from studykit.study.templates import BODIES


class Prompt(NamedTuple):
    """A prompt and its body."""

    text: str
    body: tuple[int, int]  # first and last + 1 character of what may be cut


def render_prompt(kind: str, template: str, fields: dict[str, str]) -> Prompt:
    """Fills the holes of a template. The body reaches from its first hole to its last.

    Args:
        kind: an entry of `templates.yaml`, which says what holes belong to the body.
        fields: the text of each hole; languages by the names of the study.
    """
    text, spans = "", []
    for literal, hole, _, _ in Formatter().parse(template):
        text += literal
        if hole is None:
            continue
        start = len(text)
        text += display_name(fields[hole]) if hole in ("language", "source_language") else fields[hole]
        if hole in BODIES[kind]:
            spans.append((start, len(text)))
    return Prompt(text, (spans[0][0], spans[-1][1]))

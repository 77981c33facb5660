"""Prompt templates: the defaults in `templates.yaml`, each with its source, and the check of a study's own."""

from __future__ import annotations

from pathlib import Path
from string import Formatter

import yaml

from studykit.errors import UserError

_DEFAULTS = yaml.safe_load(Path(__file__).with_name("templates.yaml").read_text(encoding="utf-8"))
TEMPLATES: dict[str, str] = {kind: entry["text"] for kind, entry in _DEFAULTS.items()}
BODIES: dict[str, list[str]] = {kind: entry["body"] for kind, entry in _DEFAULTS.items()}  # the first must be given
PLACEHOLDERS: dict[str, list[str]] = {kind: entry["body"] + entry["others"] for kind, entry in _DEFAULTS.items()}


def check_template(kind: str, template: str | None) -> str:
    """Returns the template for a kind of prompt. Raises UserError if its placeholders are not those of the kind."""
    if template is None:
        return TEMPLATES[kind]
    body, allowed = BODIES[kind][0], sorted(PLACEHOLDERS[kind])
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"template={template!r} is unusable ({error}); other braces must be doubled.") from None
    # A conversion or a format ("!r", ":>9") is part of a placeholder here, and so makes it an unknown one.
    placeholders = [name + (how or "") + (spec or "") for _, name, spec, how in parts if name is not None]
    if unknown := [name for name in placeholders if name not in allowed]:
        raise UserError(f"template={template!r} has the placeholder {{{unknown[0]}}}; accepted are {allowed}.")
    bare = TEMPLATES[kind] == f"{{{body}}}"  # the prompt of a benchmark, which needs no text of ours
    if placeholders.count(body) != 1 or not (bare or any(text.strip() for text, _, _, _ in parts)):
        raise UserError(f"template={template!r} needs the placeholder {{{body}}} once, and some text around it.")
    return template

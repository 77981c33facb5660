"""Prompt templates, and the encoding of a row as token ids.

A template is text with named holes. Some holes, together the body, may be long: when a prompt must be shortened, the
end of the body is cut, never the markers around it. The defaults stand in `templates.yaml`, each with its source;
`data.template` replaces the one that a study uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import NamedTuple

from studykit.data.rows import Row
from studykit.errors import UserError
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


def encode_prompt(row: Row, tokenizer, max_prompt_tokens: int) -> tuple[list[int], bool]:
    """Encodes a row's prompt and returns its token ids, and whether its body had to be cut.

    Raises: UserError if the template alone is longer than `max_prompt_tokens`.
    """
    ids = tokenizer(row.prompt)["input_ids"]
    if len(ids) <= max_prompt_tokens:
        return ids, False
    start, end = row.body or (0, len(row.prompt))

    def cut(length: int) -> list[int]:
        return tokenizer(row.prompt[: start + length] + row.prompt[end:])["input_ids"]

    low, high = 0, end - start  # invariant: low fits, high does not
    if len(cut(0)) > max_prompt_tokens:
        raise UserError(
            f"max_prompt_tokens={max_prompt_tokens} is too small: the template alone of row {row.id!r} takes "
            f"{len(cut(0))} tokens."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(cut(middle)) <= max_prompt_tokens else (low, middle)
    return cut(low), True


@dataclass(frozen=True)
class EncodedRow:
    """A row as a model sees it in training."""

    input_ids: list[int]  # (T,): the prompt, then the target
    labels: list[int]  # (T,): the same, but -100 over the prompt
    prompt_length: int  # tokens
    prompt_cut: bool
    target_cut: bool


def encode_row(row: Row, tokenizer, max_prompt_tokens: int, max_target_tokens: int) -> EncodedRow:
    """Encodes a row for training.

    Prompt and target are tokenized separately, as in generation, where the prompt comes alone. A whole target ends with
    the end-of-text token; a truncated one does not, which would teach the model to stop early.

    Raises: UserError if the template alone is longer than `max_prompt_tokens`.
    """
    prompt, prompt_cut = encode_prompt(row, tokenizer, max_prompt_tokens)
    target = tokenizer(row.target, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    target_cut = len(target) > max_target_tokens
    target = target[:max_target_tokens]
    return EncodedRow(prompt + target, [-100] * len(prompt) + target, len(prompt), prompt_cut, target_cut)

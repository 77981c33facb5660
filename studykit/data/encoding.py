"""Rows as token ids, and ids as text, in the same way for every family of tokenizers.

SentencePiece-like tokenizers put a space before a text when they encode it and take one away when they decode it, so a
text that follows another one is encoded and decoded behind something. Text that looks like a control token, such as
`<|endoftext|>` in a program, is text: only the frame of a prompt holds control tokens. When a prompt must be shortened,
the end of its body is cut, never the markers around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studykit.data.rows import Row
from studykit.errors import UserError

CONTEXT = 32  # tokens before a continuation that its decoding takes into account
ANCHORS = ("\n", "a", ";")  # texts behind which a continuation is encoded, in the order in which they are tried


def encode_prompt(row: Row, tokenizer, max_prompt_tokens: int) -> tuple[list[int], bool]:
    """Encodes a row's prompt and returns its token ids, and whether its body had to be cut.

    They begin with the tokenizer's start tokens, if it has any, and never end with an end token.

    Raises: UserError if the template alone is longer than `max_prompt_tokens`.
    """
    first = start_tokens(tokenizer)
    ids = first + encode_text(tokenizer, row.prompt)
    if len(ids) <= max_prompt_tokens:
        return ids, False
    start, end = row.body or (0, len(row.prompt))

    def cut(length: int) -> list[int]:
        return first + encode_text(tokenizer, row.prompt[: start + length] + row.prompt[end:])

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
    the end-of-text token; a truncated one does not, which would teach the model to stop early, unless the row asks for
    it (`end_if_cut`).

    Raises: UserError if the template alone is longer than `max_prompt_tokens`.
    """
    prompt, prompt_cut = encode_prompt(row, tokenizer, max_prompt_tokens)
    target = [*encode_continuation(tokenizer, row.target), tokenizer.eos_token_id]
    target_cut = len(target) > max_target_tokens
    target = target[:max_target_tokens]
    if target_cut and row.end_if_cut:
        target[-1] = tokenizer.eos_token_id
    return EncodedRow(prompt + target, [-100] * len(prompt) + target, len(prompt), prompt_cut, target_cut)


def encode_text(tokenizer, text: str) -> list[int]:
    """Returns the ids of a text alone, without the tokenizer's frame; no control token is among them.

    A Unigram model has its control tokens among its entries and finds them in a text, so their names are cut in two.
    """
    ids = list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    if set(ids).isdisjoint(tokenizer.all_special_ids):
        return ids
    cuts = [text.find(name) + 1 for name in tokenizer.all_special_tokens if len(name) > 1 and name in text]
    if not cuts:  # a character that the tokenizer does not know
        return ids
    return encode_text(tokenizer, text[: min(cuts)]) + encode_continuation(tokenizer, text[min(cuts) :])


def start_tokens(tokenizer) -> list[int]:
    """Returns the control tokens that a tokenizer puts before every text, such as `<s>`.

    Those that it would append, such as an end token, are left out: a model is to continue the text.
    """
    bare = encode_text(tokenizer, "a")
    framed = list(tokenizer("a", split_special_tokens=True)["input_ids"])
    starts = range(len(framed) - len(bare) + 1)
    return framed[: next((start for start in starts if framed[start : start + len(bare)] == bare), 0)]


def encode_continuation(tokenizer, text: str) -> list[int]:
    """Returns the ids of a text that follows another one, such as a target: no space is put before it."""
    ids = encode_text(tokenizer, text)
    for anchor in ANCHORS:
        before = encode_text(tokenizer, anchor)
        if decode_continuation(tokenizer, before, ids) == text:
            return ids
        whole = encode_text(tokenizer, anchor + text)
        behind = whole[len(before) :]
        if whole[: len(before)] == before and decode_continuation(tokenizer, before, behind) == text:
            return behind
    return ids  # the tokenizer changes the text, for instance by Unicode's normal form


def decode_continuation(tokenizer, context: Sequence[int], ids: Sequence[int]) -> str:
    """Returns the text of tokens that follow others, without control tokens.

    Both are decoded together and the context's text is cut off, since a decoder may take a space from the first token.

    Args:
        context: the tokens before, such as a prompt's; the last 32 of them are looked at.
    """
    context = list(context)[-CONTEXT:]
    before = tokenizer.decode(context, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    whole = tokenizer.decode([*context, *ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if whole.startswith(before):
        return whole[len(before) :]
    # Bytes that form no character, and in one run with bytes of the context: such tokens have no space to lose.
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

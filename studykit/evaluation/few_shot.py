"""Few-shot prompts: solved training rows of the target before each prompt, for a pretrained base without any training.

The examples are the same for every test row, as many as fit before it, and stand in the order of the training rows. A
line of hyphens ends each, and ends the completion too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from studykit.data.encoding import decode_continuation, encode_prompt, encode_text, start_tokens
from studykit.data.rows import Row

END = "\n-----\n"  # after every example


def room_for_prompt(config, max_new_tokens: int) -> int:
    """Returns the number of tokens that a prompt may have, so that a completion still fits the base's positions."""
    return config.get_text_config().max_position_embeddings - max_new_tokens


def with_examples(
    rows: Sequence[Row], examples: Sequence[Row], tokenizer, *, shots: int, max_prompt_tokens: int, room: int
) -> tuple[list[Row], list[int]]:
    """Returns the rows with examples before their prompts, and the number of examples of each.

    Args:
        examples: training rows; at most the first `shots` of them are shown.
        max_prompt_tokens: a row's own prompt is cut to this length, as for every other method.
        room: tokens that examples and prompt may have together.
    """
    texts = [example.prompt + example.target + END for example in examples[:shots]]
    lengths = [len(encode_text(tokenizer, text)) for text in texts]
    first, prompted, counts = len(start_tokens(tokenizer)), [], []
    for row in rows:
        ids, is_cut = encode_prompt(row, tokenizer, max_prompt_tokens)
        prompt = decode_continuation(tokenizer, [], ids[first:]) if is_cut else row.prompt
        count = next((n for n in range(len(texts), 0, -1) if sum(lengths[:n]) + len(ids) <= room), 0)
        before = "".join(texts[:count])
        body = (len(before), len(before) + len(prompt))
        prompted.append(replace(row, prompt=before + prompt, body=body, stop=(*row.stop, END)))
        counts.append(count)
    return prompted, counts

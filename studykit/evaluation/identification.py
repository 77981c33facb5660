"""Identification: whether a message tells its own diff from others, by the base's own likelihood.

The frozen base, without any adapter, reads the message as the completion of its own prompt and of the prompts of other
rows, and the prompts are ranked by the message's likelihood. The score is the mean reciprocal rank of the own prompt,
times 100. No reference is read: a message that would fit any change ("fix bug") ranks its diff anywhere, and scores
what chance gives, (1 + 1/2 + ... + 1/m) / m among m diffs. The base is the same for all methods, so no method is judged
by itself; but a base that cannot read diffs identifies little, which the calibration shows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from studykit.data.encoding import encode_continuation, encode_prompt
from studykit.data.rows import Row
from studykit.evaluation.losses import sequence_losses
from studykit.evaluation.scores import Score
from studykit.training.batches import TokenSequence


def chance(diffs: int) -> float:
    """Returns the mean reciprocal rank, times 100, of a rank that is drawn among so many."""
    return 100 * sum(1 / rank for rank in range(1, diffs + 1)) / diffs


def candidates(rows: Sequence[Row], others: int) -> list[list[int]]:
    """Returns for each row the indices of the rows that its message is tried on: itself first, then up to `others`.

    They follow from the row's id, and are of other groups and have other bodies, so that none of them is right too.
    """
    chosen = []
    for index, row in enumerate(rows):
        apart = [
            i
            for i, other in enumerate(rows)
            if other.body_text != row.body_text and (row.group is None or other.group != row.group)
        ]
        drawn = random.Random(f"identification {row.id}").sample(apart, min(others, len(apart)))
        chosen.append([index, *drawn])
    return chosen


def identification_score(
    base: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    texts: Sequence[str],
    *,
    others: int,
    limits: tuple[int, int],
    batch_size: int,
    name: str,
    samples: int = 1,
) -> Score | None:
    """Returns the mean reciprocal rank of the own prompt, times 100; None where no row has another one beside it.

    Equal likelihoods share the middle of their ranks. It costs 1 + `others` forward passes per message.

    texts: `samples` messages per row. limits: tokens of a prompt and of a message, as in training. name: of the base.
    """
    tried = candidates(rows, others)
    if not all(len(indices) > 1 for indices in tried):
        return None
    prompts = [encode_prompt(row, tokenizer, limits[0])[0] for row in rows]
    targets = {
        text: [*encode_continuation(tokenizer, text), tokenizer.eos_token_id][: limits[1]] for text in set(texts)
    }
    pairs = sorted({(i, text) for number, text in enumerate(texts) for i in tried[number // samples]})
    examples: list[TokenSequence] = [
        {"input_ids": prompts[i] + targets[text], "labels": [-100] * len(prompts[i]) + targets[text]}
        for i, text in pairs
    ]
    losses = sequence_losses(base, tokenizer, examples, batch_size)
    nats = {pair: loss.nats for pair, loss in zip(pairs, losses, strict=True)}
    values = []
    for number, text in enumerate(texts):
        own, *rest = (nats[i, text] for i in tried[number // samples])
        rank = 1 + sum(other < own for other in rest) + sum(other == own for other in rest) / 2
        values.append(100 / rank)
    among = max(map(len, tried))
    return Score(
        label="Identification (MRR)",
        value=float(np.mean(values)),
        signature=f"identification|tok:base|level:sentence|among:{among}|chance:{chance(among):.1f}|base:{name}|"
        f"version:1|n:{len(values)}",
        per_example=values,
        n=len(values),
        empty=sum(not text.strip() for text in texts),
    )

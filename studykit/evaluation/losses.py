"""The losses of texts under their prompts, one number per text: of references, and of messages under other diffs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from studykit.data.rows import Row
from studykit.evaluation.samples import ReferenceLoss
from studykit.training.batches import Collator, TokenSequence, encode_rows, token_losses


def reference_losses(
    model: Any, tokenizer: Any, rows: Sequence[Row], limits: tuple[int, int], batch_size: int
) -> list[ReferenceLoss]:
    """Returns the loss of each row's target under its prompt, row by row.

    sum(nats) / sum(tokens) is the validation loss of training. limits: max_prompt_tokens and max_target_tokens of the
    data; longer texts are cut, as in training.
    """
    return sequence_losses(model, tokenizer, encode_rows(rows, tokenizer, *limits), batch_size)


@torch.inference_mode()
def sequence_losses(
    model: Any, tokenizer: Any, examples: Sequence[TokenSequence], batch_size: int
) -> list[ReferenceLoss]:
    """Returns the loss of each example over its labels; batches hold examples of similar length, the longest first."""
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    collate, device = Collator(tokenizer.pad_token_id), model.get_input_embeddings().weight.device
    losses: dict[int, ReferenceLoss] = {}
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = collate([examples[i] for i in indices])
        batch = {name: value.to(device) for name, value in batch.items()}
        nats = token_losses(model, batch, batch["labels"]).double().sum(1).tolist()  # (B, T-1) -> (B,)
        tokens = (batch["labels"][:, 1:] != -100).sum(1).tolist()  # (B,)
        losses |= dict(zip(indices, map(ReferenceLoss, nats, tokens), strict=True))
    return [losses[i] for i in range(len(examples))]

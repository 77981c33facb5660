
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput

from studykit.data.prompts import encode_row
from studykit.data.rows import Row


def encode_rows(rows: Sequence[Row], tokenizer, max_prompt_tokens: int, max_target_tokens: int) -> list[dict]:
    """Rows as examples for `train`: input_ids and labels."""
    encoded = [encode_row(row, tokenizer, max_prompt_tokens, max_target_tokens) for row in rows]
    return [{"input_ids": e.input_ids, "labels": e.labels} for e in encoded]


class Collator:
    """Right-padded batches with two sets of labels: `labels` of the completion, `sequence_labels` of everything.

    `loss_on` decides which of them Trainer counts as the items of a batch and trains on; both are (B, T).

    With `packing` the examples of a batch share rows as long as its longest example. None sees another: positions
    start anew and the attention mask is block-diagonal, so loss and gradients are those of the padded batch.
    """

    def __init__(self, pad_token_id: int, loss_on: str = "completion", packing: bool = False):
        self.pad_token_id, self.loss_on, self.packing = pad_token_id, loss_on, packing

    def __call__(self, examples: list[dict]) -> dict[str, Tensor]:
        rows = pack(examples) if self.packing else [[example] for example in examples]
        length = max(sum(len(e["input_ids"]) for e in row) for row in rows)

        def lay(piece: Callable[[dict], list[int]], value: int) -> Tensor:
            joined = [[x for example in row for x in piece(example)] for row in rows]
            return torch.tensor([row + [value] * (length - len(row)) for row in joined])

        completion = lay(lambda e: [-100, *e["labels"][1:]], -100)  # nothing predicts a first token
        sequence = lay(lambda e: [-100, *e["input_ids"][1:]], -100)
        batch = {
            "input_ids": lay(lambda e: e["input_ids"], self.pad_token_id),
            "attention_mask": lay(lambda e: [1] * len(e["input_ids"]), 0),
            "labels": completion if self.loss_on == "completion" else sequence,
            "completion_labels": completion,
            "sequence_labels": sequence,
        }
        if self.packing:
            number = [[[at] * len(e["input_ids"]) for at, e in enumerate(row)] for row in rows]
            of = torch.tensor([(flat := sum(row, [])) + [-1] * (length - len(flat)) for row in number])  # (B, T)
            batch["attention_mask"] = torch.tril(of[:, None, :, None] == of[:, None, None, :])  # (B, 1, T, T)
            batch["position_ids"] = lay(lambda e: list(range(len(e["input_ids"]))), 0)
        return batch


def pack(examples: list[dict]) -> list[list[dict]]:
    """The examples in rows, none longer than the longest example: first fit, the longest first (Johnson 1973)."""
    ordered = sorted(examples, key=lambda e: -len(e["input_ids"]))
    capacity, rows, room = len(ordered[0]["input_ids"]), [], []
    for example in ordered:
        need = len(example["input_ids"])
        at = next((i for i, left in enumerate(room) if left >= need), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(capacity)
        rows[at].append(example)
        room[at] -= need
    return rows


def forward(model, batch: dict[str, Tensor]) -> ModelOutput:
    """The model on a batch of `Collator`, without a cache."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    return model(**inputs, use_cache=False)


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the next token, (B, T-1), 0 where the label is -100. logits (B, T, V), labels (B, T)."""
    labels = labels[:, 1:].to(logits.device)
    logits = logits[:, :-1].float().flatten(0, 1)
    losses = F.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="none")
    return losses.view(labels.shape)

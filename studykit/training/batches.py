"""Rows as sequences of token ids, padded or packed into batches, and the loss of each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput

from studykit.data.encoding import encode_row
from studykit.data.rows import Row
from studykit.errors import UserError

# Kinds of layers that read the attention mask of packed rows; the last two are equal to the first within a window.
ATTENTION_KINDS = ("full_attention", "sliding_attention", "chunked_attention")


class TokenSequence(TypedDict):
    """One sequence to train on; the lists have its length."""

    input_ids: list[int]
    labels: list[int]  # token ids, or -100 where no loss is counted
    fold: NotRequired[int]  # of cross-fitting, from 1; 0: of none. All examples have it, or none has


def encode_rows(rows: Sequence[Row], tokenizer, max_prompt_tokens: int, max_target_tokens: int) -> list[TokenSequence]:
    """Returns rows as examples for `train`, cut to these numbers of tokens."""
    encoded = [encode_row(row, tokenizer, max_prompt_tokens, max_target_tokens) for row in rows]
    return [{"input_ids": e.input_ids, "labels": e.labels} for e in encoded]


def pad(sequences: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Returns sequences of token ids, labels or flags as one tensor (B, T), filled up with `value` to the longest."""
    length = max(map(len, sequences))
    fill = [[value] * (length - len(sequence)) for sequence in sequences]
    pairs = zip(sequences, fill, strict=True)
    return torch.tensor([[*more, *sequence] if left else [*sequence, *more] for sequence, more in pairs])


class Collator:
    """Right-padded batches with two sets of labels: `labels` of the completion, `sequence_labels` of everything.

    `loss_on` decides which of them Trainer counts as the items of a batch and trains on; both are (B, T).

    With `packing` the examples of a batch share rows as long as its longest example. No example sees another: positions
    start again at 0 and the attention mask is block-diagonal, so loss and gradients are those of the padded batch.
    """

    def __init__(self, pad_token_id: int, loss_on: str = "completion", packing: bool = False):
        self.pad_token_id, self.loss_on, self.packing = pad_token_id, loss_on, packing

    def __call__(self, examples: list[TokenSequence]) -> dict[str, Tensor]:
        """Returns the batch of a list of examples."""
        rows = pack(examples) if self.packing else [[example] for example in examples]

        def joined(part: Callable[[TokenSequence], list[int]], fill: int) -> Tensor:  # (B, T)
            return pad([[x for example in row for x in part(example)] for row in rows], fill)

        completion = joined(lambda e: [-100, *e["labels"][1:]], -100)  # nothing predicts a first token
        sequence = joined(lambda e: [-100, *e["input_ids"][1:]], -100)
        batch = {
            "input_ids": joined(lambda e: e["input_ids"], self.pad_token_id),
            "attention_mask": joined(lambda e: [1] * len(e["input_ids"]), 0),
            "labels": completion if self.loss_on == "completion" else sequence,
            "completion_labels": completion,
            "sequence_labels": sequence,
        }
        if "fold" in examples[0]:
            batch["fold"] = torch.tensor([example["fold"] for example in examples])  # (B,)
        if self.packing:
            numbers = [[n for n, e in enumerate(row) for _ in e["input_ids"]] for row in rows]
            number = pad(numbers, -1)  # (B, T): which example of its row a token belongs to
            batch["attention_mask"] = torch.tril(number[:, None, :, None] == number[:, None, None, :])  # (B, 1, T, T)
            batch["position_ids"] = joined(lambda e: list(range(len(e["input_ids"]))), 0)
        return batch


def pack(examples: list[TokenSequence]) -> list[list[TokenSequence]]:
    """Returns the examples in rows, none longer than the longest example.

    Each example, the longest first, goes into the first row that has room (first-fit decreasing, Johnson 1973).
    """
    ordered = sorted(examples, key=lambda e: -len(e["input_ids"]))
    capacity = len(ordered[0]["input_ids"])
    rows: list[list[TokenSequence]] = []
    room: list[int] = []  # free tokens of each row
    for example in ordered:
        need = len(example["input_ids"])
        at = next((i for i, left in enumerate(room) if left >= need), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(capacity)
        rows[at].append(example)
        room[at] -= need
    return rows


def require_steady_positions(model, longest: int) -> None:
    """Raises UserError if a row of `longest` tokens would change what a model computes of the rows beside it.

    Rotary positions of the kinds `dynamic` and `longrope` are stretched for the whole batch once one of its rows is
    longer than those that the model was pretrained on.
    """
    config = model.config.get_text_config()
    given = getattr(config, "rope_parameters", None) or {}
    for rope in [given, *(value for value in given.values() if isinstance(value, dict))]:
        if rope.get("rope_type") in ("dynamic", "longrope"):
            limit = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            if longest > limit:
                raise UserError(
                    f"the longest example has {longest} tokens, but this {config.model_type} stretches its positions "
                    f"({rope['rope_type']}) beyond {limit} tokens, which would change all rows of a batch; "
                    f"data.max_prompt_tokens and data.max_target_tokens of {limit} together are accepted."
                )


def require_packable(model, longest: int) -> None:
    """Raises UserError if packing would change a model's loss on examples of up to `longest` tokens.

    Packed rows have an attention mask of their own, which takes the place of a sliding window and of attention in
    chunks, and which layers without attention do not read.
    """
    attention, config = model.config._attn_implementation, model.config.get_text_config()
    if attention != "sdpa":
        raise UserError(f"packing is true, but the model's attention is {attention!r}; packed rows need 'sdpa'.")
    kinds = set(getattr(config, "layer_types", None) or ()) - set(ATTENTION_KINDS)
    if kinds:
        raise UserError(
            f"packing is true, but this {config.model_type} has layers of {sorted(kinds)}, in which packed examples "
            "would see each other; packing: false is accepted."
        )
    windows = [getattr(config, "attention_chunk_size", None)]
    if getattr(config, "use_sliding_window", None) is not False:
        windows.append(getattr(config, "sliding_window", None))
    window = min((size for size in windows if size), default=longest)
    if window < longest:
        raise UserError(
            f"packing is true, but this {config.model_type} looks back {window} tokens only and the longest example "
            f"has {longest}; packing: false, or examples of at most {window} tokens, are accepted."
        )


def forward(model, batch: dict[str, Tensor]) -> ModelOutput:
    """Runs the model on a batch of `Collator`, without a cache."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    return model(**inputs, use_cache=False)


def token_losses(model, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Runs the model on a batch of `Collator` and returns the loss of each next token, (B, T-1); see `LabelLogits`."""
    return label_logits(model, batch, labels).losses()


class LabelLogits(NamedTuple):
    """What a model predicts at the N positions of a batch (B, T) behind which a label counts."""

    logits: Tensor  # (N, V)
    at: Tensor  # (N,): the positions as indices into the flattened batch
    labels: Tensor  # (N,): the token ids that follow
    shape: torch.Size  # (B, T)

    def losses(self) -> Tensor:
        """Returns the cross entropy of each next token in nats, in fp32; it is 0 where no label counts. (B, T-1)"""
        return self._spread(F.cross_entropy(self.logits.float(), self.labels, reduction="none"))

    def hits(self) -> Tensor:
        """Returns whether each next token is the likeliest one; False where no label counts. (B, T-1)"""
        return self._spread(self.logits.argmax(-1) == self.labels)

    def _spread(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.shape.numel()).index_put((self.at,), values).view(self.shape)[:, :-1]


def label_logits(model, batch: dict[str, Tensor], labels: Tensor) -> LabelLogits:
    """Runs the model on a batch of `Collator` and returns its logits where labels (B, T) are not -100."""
    following = F.pad(labels[:, 1:], (0, 1), value=-100).flatten()  # (B*T,): the label behind each token
    at = (following != -100).nonzero().squeeze(1)
    logits = logits_at(model, batch, at)
    return LabelLogits(logits, at.to(logits.device), following[at].to(logits.device), labels.shape)


def logits_at(model, batch: dict[str, Tensor], at: Tensor) -> Tensor:
    """Runs the model on a batch and returns the logits (N, V) at N of its B*T positions.

    The output embedding, as wide as the vocabulary, is applied at these positions alone. What a model does to logits
    behind it, such as a scale or a cap, it does to each position by itself. A model that does not call its output
    embedding on the states (B, T, d) of all tokens computes all logits, and those of the positions are taken.

    Args:
        at: (N,), indices into the flattened batch.
    """
    head, is_cut = getattr(model, "module", model).get_output_embeddings(), False  # `module`: of a distributed model

    def cut(_, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal is_cut
        states = inputs[0]
        if states.shape[:-1] != batch["input_ids"].shape:
            return inputs
        is_cut = True
        return states.flatten(0, 1)[at.to(states.device)][None], *inputs[1:]  # (1, N, d)

    with head.register_forward_pre_hook(cut) if head is not None else nullcontext():
        output: Any = forward(model, batch)
    return output.logits[0] if is_cut else output.logits.flatten(0, 1)[at.to(output.logits.device)]

"""Capture: one pass of a model over samples that records the weights of its fusion (see `record.FusionRecord`).

It needs memory for one batch of weights and for the samples that are kept in full, however many samples there are:
everything else is added to sums batch by batch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from studykit.attention.record import PHASES, FusionRecord, Origin, RecordedSample, norm_shares, token_marks
from studykit.attention.token_kinds import OTHER, diff_kinds, has_diff, message_kinds, token_kinds
from studykit.data.encoding import EncodedRow, encode_row
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.training.batches import pad, token_losses
from studykit.tuners import fusion_layers, record_fusion
from studykit.tuners.layer import PassWeights
from studykit.tuners.placement import Site


def capture(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    target: str,
    phase: str,
    limits: tuple[int, int],
    batch_size: int = 16,
    keep: int | Collection[str] = 8,
    origin: Origin = Origin(),  # noqa: B008 - it is frozen
    progress: bool = True,
) -> FusionRecord:
    """Records the fusion weights of `model` on `rows` in one pass, in eval mode and without gradients.

    Rows are tokenized as in training. Members are masked if they are masked in the model at this moment.

    Args:
        target: the member whose language is the target.
        phase: one of `record.PHASES`.
        limits: maximum number of prompt tokens and of target tokens of a row.
        keep: samples that are kept in full: the first so many rows, or the rows with these ids.
        origin: written into the record.

    Raises UserError for no rows, an unknown phase, an id in `keep` that no row has, a target that is no member, or a
    model without a fusion.
    """
    if not rows:
        raise UserError("no samples to record fusion weights on; give at least one row")
    if phase not in PHASES:
        raise UserError(f"phase {phase!r} is unknown; accepted are {', '.join(PHASES)}")
    if not (layers := fusion_layers(model)):
        raise UserError(
            f"checkpoint {origin.checkpoint or '(unnamed)'} holds no fusion; give a run of the fusion stage"
        )
    kept_ids = {row.id for row in rows[:keep]} if isinstance(keep, int) else set(map(str, keep))
    if unknown := sorted(kept_ids - {row.id for row in rows}):
        raise UserError(f"keep names the sample {unknown[0]!r}, which is not among the {len(rows)} rows")
    encoded = [encode_row(row, tokenizer, *limits) for row in rows]
    lengths = [len(item.input_ids) for item in encoded]
    by_length = sorted(range(len(rows)), key=lengths.__getitem__)  # little padding; results keep the order of the rows
    record: FusionRecord | None = None
    kept: dict[int, RecordedSample] = {}
    strings: dict[int, str] = {}
    was_training = model.training
    model.eval()
    try:
        # no_grad, not inference_mode: the model caches its members' stack, which training must be able to use later
        with torch.no_grad(), tqdm(total=len(rows), desc=f"fusion weights, {phase}", disable=not progress) as bar:
            for start in range(0, len(rows), batch_size):
                batch = by_length[start : start + batch_size]
                in_full = [rows[i].id in kept_ids for i in batch]
                sequences = [encoded[i].input_ids for i in batch]
                last_pass, losses = _forward(model, sequences, in_full, tokenizer.pad_token_id or 0)
                if record is None:
                    ids = [row.id for row in rows]
                    record = FusionRecord.empty(last_pass.members, target, phase, _layer_labels(last_pass.weights), ids)
                weights, norms = _stack(last_pass.weights), _stack(last_pass.norms)  # (L, B, T, A)
                for b, i in enumerate(batch):
                    w, n = weights[:, b, : lengths[i]], norms[:, b, : lengths[i]]  # (L, T, A), padding cut off
                    marks, shares = token_marks(encoded[i].prompt_length, lengths[i]), norm_shares(w, n)
                    tokens = token_strings(tokenizer, encoded[i].input_ids, strings)
                    kinds = row_kinds(tokenizer, rows[i], encoded[i], tokens)
                    record.add(i, w, shares, marks, kinds)
                    if in_full[b]:
                        halves = (one.astype(np.float16) for one in (w, shares, losses[b, : lengths[i]]))
                        kept[i] = RecordedSample(rows[i].id, tokens, marks, kinds, *halves)
                bar.update(len(batch))
    finally:
        model.train(was_training)
    assert record is not None  # as there are rows
    record.samples = [kept[i] for i in sorted(kept)]
    for name, value in asdict(origin).items():
        setattr(record, name, value)
    fusion = next(name for name in layers[0].active_adapters if name in layers[0].fusions)
    masked, mode = layers[0].masked.get(fusion, ((), "none"))
    record.placement = layers[0].placements[fusion]
    record.mask, record.masked = mode if masked else "none", [record.members[n] for n in masked]
    return record


def _forward(
    model: Any, sequences: list[list[int]], with_losses: list[bool], pad_token_id: int
) -> tuple[PassWeights, np.ndarray]:
    """Returns the fusion weights of one batch, padded on the right as in training, and the loss behind each token.

    Losses are (B, T), 0 in sequences without losses: their logits are not computed, as a vocabulary of 150k would make
    them gigabytes.
    """
    device = next(model.parameters()).device
    ids = pad(sequences, pad_token_id).to(device)  # (B, T)
    attended = pad([[1] * len(sequence) for sequence in sequences], 0).to(device)  # (B, T)
    labelled = attended.bool() & torch.tensor(with_losses, device=device)[:, None]
    with record_fusion(model) as last_pass:
        losses = token_losses(model, {"input_ids": ids, "attention_mask": attended}, ids.where(labelled, -100))
    return last_pass, F.pad(losses, (0, 1)).float().cpu().numpy()


def _stack(by_site: dict[Site, torch.Tensor]) -> np.ndarray:
    """(B, T, A) tensors by site -> (L, B, T, A) float32, in the order of the layers."""
    return np.stack([by_site[site].float().cpu().numpy() for site in sorted(by_site)])


def _layer_labels(by_site: dict[Site, torch.Tensor]) -> list[str]:
    several = len({site for _, site in by_site}) > 1
    return [f"L{layer + 1} {site}" if several else f"L{layer + 1}" for layer, site in sorted(by_site)]


def row_kinds(tokenizer: Any, row: Row, encoded: EncodedRow, tokens: list[str]) -> np.ndarray:
    """Returns the kinds of a row's tokens, (T,).

    A prompt that holds code of a source language is read in that language, one that holds a diff, and the message that
    follows it, as a commit; special tokens are "other".
    """
    split = encoded.prompt_length
    special = np.isin(encoded.input_ids, tokenizer.all_special_ids)
    text = ["" if is_special else token for token, is_special in zip(tokens, special, strict=True)]
    asks, answers = (diff_kinds, message_kinds) if has_diff(row.prompt) else (token_kinds, token_kinds)
    prompt = asks(text[:split], row.source_language or row.language)
    kinds = np.concatenate([prompt, answers(text[split:], row.language)])
    kinds[special] = OTHER
    return kinds


def token_strings(tokenizer: Any, ids: Sequence[int], known: dict[int, str] | None = None) -> list[str]:
    """Returns token strings as a reader would write them: leading spaces stay, and half of a UTF-8 character is given
    as the tokenizer's own piece.

    known: the strings of ids that were decoded before; new ones are added to it.
    """
    known = {} if known is None else known
    for i in set(ids) - known.keys():
        piece, text = tokenizer.convert_ids_to_tokens(i), tokenizer.decode([i])
        known[i] = " " + piece[1:] if piece.startswith("\u2581") else piece if "\ufffd" in text else text
    return [known[i] for i in ids]

"""Capture: one pass of a model over samples that records where its fusion looks (see `attention.FusionRecord`).

Memory is one batch of weights and the samples that are kept in full, however many samples there are: everything else
is added to sums as it comes.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from studykit.attention.record import PHASES, FusionRecord, Sample, norm_shares, token_marks
from studykit.attention.token_kinds import OTHER, token_kinds
from studykit.data.prompts import EncodedRow, encode_row
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.training.batches import pad
from studykit.tuners import fusion_layers, record_fusion


def capture(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    target: str,
    phase: str,
    max_prompt_tokens: int,
    max_target_tokens: int,
    batch_size: int = 16,
    keep: int | Collection[str] = 8,
    method: str = "",
    checkpoint: str = "",
    base: str = "",
    seed: int | None = None,
    progress: bool = True,
) -> FusionRecord:
    """Record the fusion weights of `model` on `rows` in one pass.

    Eval mode, no gradients, the tokenization of training; the mask is the model's own at this moment.

    Args:
        keep: which samples are kept in full: the first so many rows, or the rows with these ids.
        method: what composes the members; with checkpoint and base, the runs that trained the fusion and the base
            under it, it is written into the record.

    Raises UserError for no rows, an unknown phase, an id to keep that no row has, a target that is no member, or a
    model without a fusion.
    """
    if not rows:
        raise UserError("no samples to record fusion weights on; give at least one row")
    if phase not in PHASES:
        raise UserError(f"phase {phase!r} is unknown; accepted are {', '.join(PHASES)}")
    if not (layers := fusion_layers(model)):
        raise UserError(f"checkpoint {checkpoint or '(unnamed)'} holds no fusion; give a run of the fusion stage")
    chosen_ids = {row.id for row in rows[:keep]} if isinstance(keep, int) else set(map(str, keep))
    if unknown := sorted(chosen_ids - {row.id for row in rows}):
        raise UserError(f"keep names the sample {unknown[0]!r}, which is not among the {len(rows)} rows")
    encoded = [encode_row(row, tokenizer, max_prompt_tokens, max_target_tokens) for row in rows]
    lengths = [len(item.input_ids) for item in encoded]
    by_length = sorted(range(len(rows)), key=lengths.__getitem__)  # little padding; results keep the order of the rows
    record, kept, texts, was_training, device = None, {}, {}, model.training, next(model.parameters()).device
    model.eval()
    try:
        # no_grad, not inference_mode: the model caches its members' stack, and training must be able to use that later
        with torch.no_grad(), tqdm(total=len(rows), desc=f"fusion weights, {phase}", disable=not progress) as bar:
            for start in range(0, len(rows), batch_size):
                chosen = by_length[start : start + batch_size]
                ids = [encoded[i].input_ids for i in chosen]
                batch = {
                    "input_ids": pad(ids, tokenizer.pad_token_id or 0),
                    "attention_mask": pad([[1] * len(row) for row in ids], 0),
                }
                with record_fusion(model) as seen:
                    model(**{name: tensor.to(device) for name, tensor in batch.items()}, **_cheap(model))
                if record is None:
                    ids = [row.id for row in rows]
                    record = FusionRecord.empty(seen.members, target, phase, _labels(seen), ids)
                weights, norms = (_stack(seen, part) for part in (seen.weights, seen.norms))  # (L, B, T, A)
                for b, i in enumerate(chosen):
                    w, n = weights[:, b, : lengths[i]], norms[:, b, : lengths[i]]  # (L, T, A), padding cut off
                    marks, shares = token_marks(encoded[i].prompt_length, lengths[i]), norm_shares(w, n)
                    tokens = readable(tokenizer, encoded[i].input_ids, texts)
                    kinds = _kinds(tokenizer, rows[i], encoded[i], tokens)
                    record.add(i, w, shares, marks, kinds)
                    if record.ids[i] in chosen_ids:
                        halves = w.astype(np.float16), shares.astype(np.float16)
                        kept[i] = Sample(record.ids[i], tokens, marks, kinds, *halves)
                bar.update(len(chosen))
    finally:
        model.train(was_training)
    record.samples = [kept[i] for i in sorted(kept)]
    record.method, record.checkpoint, record.base, record.seed = method, checkpoint, base, seed
    fusion = next(name for name in layers[0].active_adapters if name in layers[0].fusions)
    masked, mode = layers[0].masked.get(fusion, ((), "none"))
    record.place = layers[0].placements[fusion]
    record.mask, record.masked = mode if masked else "none", [record.members[n] for n in masked]
    return record


def _cheap(model: Any) -> dict[str, Any]:
    """Arguments that spare the cache and all logits but the last: at a vocabulary of 150k they would need gigabytes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    cheap = {"use_cache": False, "logits_to_keep": 1}
    return {name: cheap[name] for name in cheap.keys() & inspect.signature(base.forward).parameters.keys()}


def _stack(seen: Any, parts: dict[tuple[int, str], Any]) -> np.ndarray:
    """A (B, T, A) tensor per site -> (L, B, T, A) float32, in the order of the layers."""
    return np.stack([parts[at].float().cpu().numpy() for at in sorted(seen.weights)])


def _labels(seen: Any) -> list[str]:
    several = len({site for _, site in seen.weights}) > 1
    return [f"L{layer + 1} {site}" if several else f"L{layer + 1}" for layer, site in sorted(seen.weights)]


def _kinds(tokenizer: Any, row: Row, encoded: EncodedRow, tokens: list[str]) -> np.ndarray:
    """Kinds of a row's tokens (T,): the prompt in the language of its code, if it has one, special tokens "other"."""
    split = encoded.prompt_length
    special = np.isin(encoded.input_ids, tokenizer.all_special_ids)
    text = ["" if is_special else token for token, is_special in zip(tokens, special, strict=True)]
    prompt = token_kinds(text[:split], row.source_language or row.language)
    kinds = np.concatenate([prompt, token_kinds(text[split:], row.language)])
    kinds[special] = OTHER
    return kinds


def readable(tokenizer: Any, ids: Sequence[int], known: dict[int, str] | None = None) -> list[str]:
    """Token strings as a reader would write them: leading spaces kept, half of a UTF-8 character as the raw piece.

    known: strings of ids that were met before; it is added to.
    """
    known = {} if known is None else known
    for i in set(ids) - known.keys():
        piece, text = tokenizer.convert_ids_to_tokens(i), tokenizer.decode([i])
        known[i] = " " + piece[1:] if piece.startswith("\u2581") else piece if "\ufffd" in text else text
    return [known[i] for i in ids]

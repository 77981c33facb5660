"""MutedLosses: the completion losses of a fusion with all of its members, and with each one muted in turn.

Attention shows what a fusion reads. What a member is worth to the result is another question, and muting it answers
that: the same finished fusion is read again on the same rows without the member. Two ways are measured, as masks of
training are: `exclude` takes the member out of the softmax, so that the others share its weight; `zero` leaves its slot
and takes its output away, so that its weight is lost. Nothing is trained again: a fusion that was never given the
member might do without it (the method word `~<member>` trains that one).

A loss belongs to the position that predicts a token, as a weight does, and has the kind of the token at that position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studykit.attention.capture import row_kinds, token_strings
from studykit.attention.record import COMPLETION, FusionRecord
from studykit.attention.token_kinds import KINDS, OTHER
from studykit.data.encoding import encode_row
from studykit.data.rows import Row
from studykit.runs.files import atomic_write
from studykit.runs.manifest import finished_run
from studykit.runs.store import OpenRun
from studykit.study.fusion_parameters import FusionParams
from studykit.training.batches import Collator, TokenSequence, pad, token_losses
from studykit.training.fusions import load_trained
from studykit.training.generate import complete
from studykit.training.phases import training_phases
from studykit.tuners.model import active_fusions, fusion_members

MODES = ("exclude", "zero")


@dataclass(frozen=True)
class MutedLosses:
    """Losses of one fusion summed over the completion tokens of each of S rows, by K kinds of token."""

    members: list[str]  # A names
    tokens: np.ndarray  # (S, K) int64, numbers of tokens
    nats: np.ndarray  # (S, K), with all members
    muted: dict[str, np.ndarray]  # mode -> (A, S, K), with each member muted in all layers; NaN where nothing is left
    by_layer: np.ndarray  # (L, A, S, K), with a member excluded in one layer; L = 0: not measured

    def save(self, path: str | Path) -> None:
        """Writes one compressed .npz, whole or not at all."""
        with atomic_write(Path(path).absolute()) as file:
            losses: dict[str, Any] = {"nats": self.nats, **self.muted, "by_layer": self.by_layer}
            np.savez_compressed(file, members=np.array(self.members), tokens=self.tokens, **losses)


def mute_run(
    base: Any,
    tokenizer: Any,
    fusion_run: str | Path,
    rows: Sequence[Row],
    limits: tuple[int, int],
    *,
    batch_size: int = 16,
    by_layer: bool = False,
) -> dict[str, MutedLosses]:
    """Returns the losses of a finished fusion run by the keys of its phases, each with every member restored.

    Args:
        base: a model without adapters; it has none afterwards.
        limits: maximum number of prompt tokens and of target tokens of a row.
        by_layer: mute each member in one layer at a time, too.
    """
    p, losses = FusionParams.model_validate(finished_run(fusion_run).params), {}
    for trained in training_phases(p):
        model: Any = load_trained(base, fusion_run, trained.phase.key)
        losses[trained.phase.key] = mute(model, tokenizer, rows, limits, batch_size=batch_size, by_layer=by_layer)
        model.unload()
    return losses


def muted_case(base: Any, tokenizer: Any, fusion_run: str | Path, row: Row, limits: tuple[int, int]) -> dict[str, str]:
    """Returns what a finished fusion writes after the prompt of one row, by the member that is excluded.

    The completion of the fusion with all of its members is under ""; it is the only one of a fusion of one member.

    Args:
        base: a model without adapters; it has none afterwards.
        limits: maximum number of prompt tokens and of target tokens of a row.
    """
    p = FusionParams.model_validate(finished_run(fusion_run).params)
    model: Any = load_trained(base, fusion_run, training_phases(p)[-1].phase.key)
    members = fusion_members(model)
    written = {}
    for muted in ("", *(members if len(members) > 1 else ())):
        fusion_members(model, [muted] if muted else [], "exclude")
        written[muted] = complete(model, tokenizer, [row], limits)[0]
    model.unload()
    return written


def stacked(losses: Sequence[MutedLosses], records: Sequence[FusionRecord]) -> dict[str, Any]:
    """Returns the measurements of one state over its R seeds as arrays, for `evaluation.worth.MutedState`.

    records: of the same state and rows, seed by seed: they hold the weights by kind of token.
    """

    def by_kind(sums: str) -> np.ndarray:  # (R, K, L, A), means at completion tokens
        counts = [record.kind_counts[COMPLETION][:, None, None] for record in records]
        with np.errstate(invalid="ignore"):  # a kind without tokens has no mean
            return np.stack([getattr(r, sums)[COMPLETION] / n for r, n in zip(records, counts, strict=True)])

    return {
        "members": losses[0].members,
        "tokens": losses[0].tokens,
        "nats": np.stack([one.nats for one in losses]),
        "muted": {mode: np.stack([one.muted[mode] for one in losses]) for mode in MODES},
        "by_layer": np.stack([one.by_layer for one in losses]),
        "weights": by_kind("kind_weight_sums"),
        "shares": by_kind("kind_share_sums"),
    }


def by_state(
    losses: Sequence[Mapping[str, MutedLosses]], records: Mapping[str, Sequence[FusionRecord]]
) -> dict[str, dict[str, Any]]:
    """Returns the measurements (see `stacked`) of the states in which every member takes part, by their titles.

    Args:
        losses: what `mute_run` returned, seed by seed.
        records: records by the title of the state, seed by seed.
    """
    unmasked = [title for title, of_seeds in records.items() if not of_seeds[0].masked]
    titles = unmasked[-len(losses[0]) :]  # the initialisation comes first and is not muted
    return {
        title: stacked([of_seed[key] for of_seed in losses], records[title])
        for title, key in zip(titles, losses[0], strict=True)
    }


def save_losses(losses: Sequence[Mapping[str, MutedLosses]], seeds: Sequence[int], run: OpenRun) -> None:
    """Writes `muted/s<seed>-<key>.npz` for each seed's losses by key."""
    for seed, of_seed in zip(seeds, losses, strict=True):
        for key, one in of_seed.items():
            one.save(run.path("muted", f"s{seed}-{key}.npz"))


@torch.no_grad()
def mute(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    limits: tuple[int, int],
    *,
    batch_size: int = 16,
    by_layer: bool = False,
) -> MutedLosses:
    """Returns the losses of a model with a fusion on rows; afterwards no member is masked.

    It takes 1 + 2 A passes, and L A more with `by_layer`, for A members and L layers.
    """
    layers = active_fusions(model)
    members = layers[0][0].members[layers[0][1]]
    muted = [(mode, n, list(range(len(layers)))) for mode in MODES for n in range(len(members))]
    muted += [("exclude", n, [at]) for at in range(len(layers) if by_layer else 0) for n in range(len(members))]
    nats = np.full((1 + len(muted), len(rows), len(KINDS)), np.nan)
    tokens = np.zeros((len(rows), len(KINDS)), np.int64)
    model.eval()
    try:
        for at, batch, kinds in _batches(tokenizer, rows, limits, batch_size):
            batch = {name: value.to(next(model.parameters()).device) for name, value in batch.items()}
            counted = batch["labels"][:, 1:].cpu() != -100  # (B, T - 1)
            here = np.stack([(counted & (kinds[:, :-1] == kind)).numpy() for kind in range(len(KINDS))], -1)
            tokens[at] = here.sum(1)
            for i, state in enumerate([None, *muted]):
                _set_mask(layers, state)
                if state is None or state[0] == "zero" or len(members) > 1:
                    losses = token_losses(model, batch, batch["labels"]).double().cpu().numpy()
                    nats[i, at] = (losses[..., None] * here).sum(1)
    finally:
        _set_mask(layers, None)
    rest = nats[1 + 2 * len(members) :].reshape(-1, len(members), *tokens.shape)
    whole = nats[1 : 1 + 2 * len(members)].reshape(2, len(members), *tokens.shape)
    return MutedLosses(list(members), tokens, nats[0], dict(zip(MODES, whole, strict=True)), rest)


def _set_mask(layers: Sequence[tuple[Any, str]], state: tuple[str, int, Sequence[int]] | None) -> None:
    """Masks one member in some of the layers and none in the others; None masks nothing."""
    for at, (layer, fusion) in enumerate(layers):
        mode, n, masked = state or ("zero", -1, ())
        layer.masked[fusion] = ((n,) if at in masked else (), mode)


def _batches(
    tokenizer: Any, rows: Sequence[Row], limits: tuple[int, int], batch_size: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor], torch.Tensor]]:
    """Yields the indices of rows, their batch as in training, and the kinds of their tokens (B, T)."""
    encoded = [encode_row(row, tokenizer, *limits) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i].input_ids))
    collate = Collator(tokenizer.pad_token_id or 0)
    for start in range(0, len(order), batch_size):
        at = order[start : start + batch_size]
        sequences: list[TokenSequence] = [{"input_ids": encoded[i].input_ids, "labels": encoded[i].labels} for i in at]
        strings = [token_strings(tokenizer, encoded[i].input_ids) for i in at]
        kinds = [row_kinds(tokenizer, rows[i], encoded[i], texts) for i, texts in zip(at, strings, strict=True)]
        yield at, collate(sequences), pad([of_row.tolist() for of_row in kinds], OTHER)

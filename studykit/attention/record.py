"""FusionRecord: the fusion weights of a set of samples, saved without pickle and summarised (`capture` makes one).

In every layer the fusion gives each token a softmax over the members, alpha (L, T, A). A record keeps these weights in
three grains:

- for *every* sample the sums over its prompt tokens and over its completion tokens, so means are exact and intervals
  can resample samples;
- over all samples the same sums by kind of token (`token_kinds`: keyword, identifier, ...);
- for chosen samples the weights of every token (float16), and the loss of the token that it predicts.

Besides the raw weight a record holds the **norm-weighted share**, alpha_n ||W_v u_n|| normalised over the members of a
token: the weight alone overstates a member whose output is tiny. In AdvFusion's phase 1 the zeroed slot holds softmax
mass but adds nothing, so its share is 0.

The weight at position t belongs to input token t, and the state that is fused there predicts token t + 1. With a prompt
of p tokens in a sequence of T,

    positions   0 .. p-2     are "prompt": they predict prompt tokens;
                p-1 .. T-2   are "completion": they predict it (from the last prompt token to the last token but one);
                T-1          predicts nothing: it is in the token view and in no mean.

The kind of position t is that of the token at this position. Padding is counted nowhere.

    record = FusionRecord.load("runs/fusion/lua-advfusion_zero-s0-.../attention/phase2.npz")
    assert check_record(record).ok
    mean_weights(record)                                  # (L, A), over all completion tokens
    mean_weights(record, weighted=True, kinds=["keyword"])  # norm-weighted shares, at keywords alone

Sources: Pfeiffer et al. 2021 (AdapterFusion, arXiv 2005.00247), Kobayashi et al. 2020 (norm-weighted attention, arXiv
2004.10102). This module needs numpy but no torch, so that reports can read records without it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from studykit.attention.token_kinds import KINDS
from studykit.errors import UserError
from studykit.runs.files import atomic_write
from studykit.study import methods
from studykit.study.methods import BEFORE_TRAINING

FORMAT = 7  # of the file: 5 saturation and kinds of prose, 6 losses of tokens, 7 kinds of commits
PROMPT, COMPLETION, LAST = 0, 1, 2
POOLS = {"prompt": [PROMPT], "completion": [COMPLETION], "both": [PROMPT, COMPLETION]}
PHASES = tuple(dict.fromkeys(p.recorded_as for p in (BEFORE_TRAINING, *chain(*methods.PHASES.values()))))
SATURATED = 0.99  # a token with a weight above it is decided: next to no gradient reaches the scores through it
SUM_TOLERANCE = 1e-3  # accepted |sum of a token's weights - 1|; bf16 models come near it


@dataclass(frozen=True)
class RecordedSample:
    """One sample in full: the weights of every token in every layer, without padding."""

    id: str
    tokens: list[str]  # T readable token strings; untrusted text, escape before showing
    marks: np.ndarray  # (T,) uint8: PROMPT, COMPLETION or LAST
    kinds: np.ndarray  # (T,) uint8: index into token_kinds.KINDS
    weights: np.ndarray  # (L, T, A) float16, softmax weights
    shares: np.ndarray  # (L, T, A) float16, norm-weighted shares
    losses: np.ndarray  # (T,) float16, loss in nats of the next token, which each token predicts; 0 at the last


@dataclass(frozen=True)
class Origin:
    """The runs that a record's weights come from."""

    method: str = ""  # composition of the members, as "advfusion", "average", "adapterfusion-lowrank"
    checkpoint: str = ""  # name of the fusion run
    base: str = ""  # name of the run of the base model under it
    seed: int | None = None  # seed of the fusion run


@dataclass
class FusionRecord:
    """The fusion weights of S samples in L layers over A members."""

    members: list[str]  # A names, in the order of the last axis
    target: str  # the member whose language is the target
    phase: str  # one of PHASES
    layers: list[str]  # L labels, the one nearest the embeddings first
    ids: list[str]  # S sample ids, in the order of the rows
    counts: np.ndarray  # (S, 2) int64: prompt and completion tokens
    weight_sums: np.ndarray  # (S, 2, L, A) float64: weights summed over the tokens
    share_sums: np.ndarray  # (S, 2, L, A) float64: norm-weighted shares, likewise
    entropy_sums: np.ndarray  # (S, 2, L) float64: entropy of a token's weights in bits, likewise
    saturated_sums: np.ndarray  # (S, 2, L) float64: number of tokens with one weight above SATURATED
    kind_counts: np.ndarray  # (2, K) int64: prompt and completion tokens of each of the K kinds
    kind_weight_sums: np.ndarray  # (2, K, L, A) float64: weights summed over the tokens of a kind in all samples
    kind_share_sums: np.ndarray  # (2, K, L, A) float64: norm-weighted shares, likewise
    kind_entropy_sums: np.ndarray  # (2, K, L) float64: entropies, likewise
    kind_saturated_sums: np.ndarray  # (2, K, L) float64: numbers of saturated tokens, likewise
    samples: list[RecordedSample] = field(default_factory=list)
    method: str = ""  # these four as in Origin
    checkpoint: str = ""
    base: str = ""
    seed: int | None = None
    placement: str = "output"  # where in the layer the fusion sits; "output" is after the whole layer (Pfeiffer's)
    mask: str = "none"  # "none", "zero" (slot stays in the softmax) or "exclude" (slot leaves it)
    masked: list[str] = field(default_factory=list)  # members masked during the capture
    sum_error: float = 0.0  # largest |sum of a token's weights - 1| over all tokens, in the model's own precision

    @classmethod
    def empty(
        cls, members: Sequence[str], target: str, phase: str, layers: Sequence[str], ids: Sequence[str]
    ) -> FusionRecord:
        """Returns a record of these samples with all counts at 0."""
        arrays: list[Any] = []
        for first_axes in ((len(ids), 2), (2, len(KINDS))):
            shape = (*first_axes, len(layers))
            sums = [np.zeros((*shape, len(members))) for _ in range(2)]
            arrays += [np.zeros(first_axes, np.int64), *sums, np.zeros(shape), np.zeros(shape)]
        return cls(list(members), target, phase, list(layers), list(ids), *arrays)

    def add(self, i: int, weights: np.ndarray, shares: np.ndarray, marks: np.ndarray, kinds: np.ndarray) -> None:
        """Adds the tokens of sample i to the sums; to be called once per sample.

        Args:
            weights, shares: (L, T, A).
            marks, kinds: (T,).
        """
        error = np.abs(weights.sum(-1, dtype=np.float64) - 1).max()
        self.sum_error = float(np.maximum(self.sum_error, error))  # unlike max(), np.maximum lets a NaN through
        entropies, saturated = entropy_in_bits(weights), weights.max(-1) > SATURATED  # (L, T)
        for pool in (PROMPT, COMPLETION):
            for kind in np.unique(kinds[marks == pool]):
                here = (marks == pool) & (kinds == kind)
                sums = {
                    "counts": here.sum(),
                    "weight_sums": weights[:, here].sum(1, dtype=float),
                    "share_sums": shares[:, here].sum(1, dtype=float),
                    "entropy_sums": entropies[:, here].sum(1),
                    "saturated_sums": saturated[:, here].sum(1),
                }
                for name, value in sums.items():
                    getattr(self, name)[i, pool] += value
                    getattr(self, f"kind_{name}")[pool, kind] += value

    @property
    def title(self) -> str:
        """Returns the phase in a reader's words; the only phase of a method has the method's name."""
        if self.phase == BEFORE_TRAINING.recorded_as:
            return BEFORE_TRAINING.title
        return self.method or self.phase if self.phase == "adapterfusion" else self.phase

    @property
    def target_index(self) -> int | None:
        """Returns the column of the target in the last axis; None for a fusion of the sources alone."""
        return self.members.index(self.target) if self.target in self.members else None

    @property
    def active_member_count(self) -> int:
        """Returns the number of members that the softmax is over: all except the excluded ones."""
        return len(self.members) - (len(self.masked) if self.mask == "exclude" else 0)

    def save(self, path: str | Path) -> Path:
        """Writes one compressed .npz, whole or not at all: arrays, and all the rest as JSON bytes inside."""
        meta = {name: getattr(self, name) for name in _META} | {"format": FORMAT}
        meta["samples"] = [{"id": sample.id, "tokens": sample.tokens} for sample in self.samples]
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        if self.samples:  # token axes are joined, so that the file holds five more arrays however many samples are kept
            arrays["kept_marks"] = np.concatenate([sample.marks for sample in self.samples])
            arrays["kept_kinds"] = np.concatenate([sample.kinds for sample in self.samples])
            arrays["kept_losses"] = np.concatenate([sample.losses for sample in self.samples])
            arrays["kept_weights"] = np.concatenate([sample.weights for sample in self.samples], axis=1)
            arrays["kept_shares"] = np.concatenate([sample.shares for sample in self.samples], axis=1)
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        with atomic_write(Path(path).absolute()) as file:
            np.savez_compressed(file, **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> FusionRecord:
        """Reads a file of `save`, without torch and pickle; raises UserError if it is missing or not such a file."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(arrays.pop("meta").tobytes())
        except FileNotFoundError:
            raise UserError(f"no fusion record at {path}; expected an .npz written by FusionRecord.save") from None
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a fusion record ({error}); expected an .npz by FusionRecord.save") from None
        if meta.get("format") != FORMAT:
            raise UserError(
                f"{path} has record format {meta.get('format')!r}, but this version reads format {FORMAT}; make the "
                f"run that wrote it again"
            )
        samples, start = [], 0
        for kept in meta["samples"]:
            span = slice(start, start + len(kept["tokens"]))
            start = span.stop
            marks, kinds = arrays["kept_marks"][span], arrays["kept_kinds"][span]
            weights, shares = arrays["kept_weights"][:, span], arrays["kept_shares"][:, span]
            losses = arrays["kept_losses"][span]
            samples.append(RecordedSample(kept["id"], kept["tokens"], marks, kinds, weights, shares, losses))
        return cls(**{name: meta[name] for name in _META}, **{name: arrays[name] for name in _ARRAYS}, samples=samples)


_SUMS = ("counts", "weight_sums", "share_sums", "entropy_sums", "saturated_sums")
_ARRAYS = (*_SUMS, *(f"kind_{name}" for name in _SUMS))
_META = (
    *("members", "target", "phase", "layers", "ids", "method", "checkpoint", "base", "seed"),
    *("placement", "mask", "masked", "sum_error"),
)


@dataclass(frozen=True)
class RecordCheck:
    """The facts that decide whether the weights of a record can be believed."""

    samples: int
    prompt_tokens: int
    completion_tokens: int
    sum_error: float  # largest |sum of a token's weights - 1|
    finite: bool  # whether all sums are finite
    excluded_is_zero: bool | None  # whether excluded members have exactly weight 0; None: no member is excluded

    @property
    def ok(self) -> bool:
        """Returns whether all weights are finite and sum to 1, and excluded members have none."""
        return self.sum_error <= SUM_TOLERANCE and self.finite and self.excluded_is_zero is not False


def check_record(record: FusionRecord) -> RecordCheck:
    """Returns the checks of a record, of all its tokens; look at them before believing a figure."""
    masked = record.weight_sums[..., [record.members.index(name) for name in record.masked]]  # (S, 2, L, masked)
    return RecordCheck(
        samples=len(record.ids),
        prompt_tokens=int(record.counts[:, PROMPT].sum()),
        completion_tokens=int(record.counts[:, COMPLETION].sum()),
        sum_error=record.sum_error,
        finite=bool(np.isfinite(record.weight_sums).all() and np.isfinite(record.share_sums).all()),
        excluded_is_zero=not masked.any() if record.mask == "exclude" else None,
    )


def token_marks(prompt_length: int, length: int) -> np.ndarray:
    """Returns what each position predicts, (length,) uint8: PROMPT, then COMPLETION, and LAST at the end."""
    marks = np.full(length, PROMPT, dtype=np.uint8)
    marks[max(prompt_length - 1, 0) :] = COMPLETION
    marks[-1] = LAST
    return marks


def norm_shares(weights: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Returns alpha_n ||W_v u_n|| normalised over the members, (..., A); 0 where every contribution is 0."""
    parts = weights * norms
    total = parts.sum(-1, keepdims=True)
    return np.divide(parts, total, out=np.zeros_like(parts), where=total != 0)


def entropy_in_bits(weights: np.ndarray) -> np.ndarray:
    """Returns the entropy of the last axis in bits, with 0 log 0 = 0."""
    logs = np.log2(weights, out=np.zeros(weights.shape, dtype=np.float64), where=weights > 0)
    return -(weights * logs).sum(-1)


def mean_weights(
    record: FusionRecord, tokens: str = "completion", weighted: bool = False, kinds: Sequence[str] | None = None
) -> np.ndarray:
    """Returns the mean weight per layer and member over all tokens of all samples, (L, A).

    It is exact, and does not depend on the samples that are kept in full.

    Args:
        tokens: "completion", "prompt" or "both" (see the module's text).
        weighted: take the norm-weighted share instead of the raw weight.
        kinds: take only tokens of these of `token_kinds.KINDS`; the mean over no token is NaN.

    Raises UserError for an unknown word in `tokens` or `kinds`.
    """
    if kinds is not None:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise UserError(f"kinds of tokens are {', '.join(KINDS)}; {unknown[0]!r} is none of them")
        _pools_and_counts(record, tokens)
        chosen = np.ix_(POOLS[tokens], [KINDS.index(kind) for kind in kinds])
        sums = (record.kind_share_sums if weighted else record.kind_weight_sums)[chosen].sum((0, 1))
        count = record.kind_counts[chosen].sum()
        return sums / count if count else np.full_like(sums, np.nan)
    pools, counts = _pools_and_counts(record, tokens)
    sums = record.share_sums if weighted else record.weight_sums
    return sums[:, pools].sum((0, 1)) / counts.sum()


def target_weights(record: FusionRecord, tokens: str = "completion", weighted: bool = False) -> np.ndarray:
    """Returns the mean weight of the target's own adapter per layer, (L,), or with `weighted` its share.

    It is 0 where that adapter is not among the members. The `.mean()` of it is the weight over all layers, in which
    every layer counts alike.
    """
    weights, column = mean_weights(record, tokens, weighted), record.target_index
    return np.zeros(len(weights)) if column is None else weights[:, column]


def entropy(record: FusionRecord, tokens: str = "completion", of: str = "tokens", normalised=False) -> np.ndarray:
    """Returns the entropy of the weights per layer, (L,), in bits.

    Args:
        tokens: as for `mean_weights`.
        of: "tokens" for the mean entropy of a token's weights (is each token decided?), "mean" for the entropy of the
            mean weights (are all members used?); the first never exceeds the second.
        normalised: divide by log2 of the number of members that take part: 1 is uniform, 0 is one member only.
    """
    if of not in ("tokens", "mean"):
        raise UserError(f'entropy of {of!r} is unknown; accepted are "tokens" and "mean"')
    pools, counts = _pools_and_counts(record, tokens)
    if of == "mean":
        value = entropy_in_bits(mean_weights(record, tokens))
    else:
        value = record.entropy_sums[:, pools].sum((0, 1)) / counts.sum()
    return value / max(np.log2(record.active_member_count), 1.0) if normalised else value


def saturation(record: FusionRecord, tokens: str = "completion") -> np.ndarray:
    """Returns the share of tokens with one weight above SATURATED per layer, (L,)."""
    pools, counts = _pools_and_counts(record, tokens)
    return record.saturated_sums[:, pools].sum((0, 1)) / counts.sum()


def sample_sums(record: FusionRecord, tokens: str = "completion") -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights summed over the tokens of each sample, (S, L, A), and the numbers of tokens, (S,)."""
    pools, counts = _pools_and_counts(record, tokens)
    return record.weight_sums[:, pools].sum(1), counts


def require_comparable(*records: FusionRecord) -> None:
    """Raises UserError unless all records have the same samples, token counts, members, layers and target."""
    if not records:
        raise UserError("no fusion records given; give at least one")
    for name in ("members", "target", "layers", "ids", "counts"):
        for record in records[1:]:
            if not np.array_equal(getattr(record, name), getattr(records[0], name)):
                pair = " and ".join(one.checkpoint or one.phase for one in (records[0], record))
                raise UserError(f"fusion records of {pair} differ in {name}; record both with the same {name}")


def _pools_and_counts(record: FusionRecord, tokens: str) -> tuple[list[int], np.ndarray]:
    """Returns the sums to use (indices of the axis of 2) and the number of such tokens of each sample, (S,)."""
    if tokens not in POOLS:
        raise UserError(f"tokens={tokens!r} is unknown; accepted are {', '.join(POOLS)}")
    counts = record.counts[:, POOLS[tokens]].sum(1)
    if not counts.sum():
        raise UserError(f"the fusion record of {record.checkpoint or record.phase} has no {tokens} tokens")
    return POOLS[tokens], counts

"""FusionRecord: the fusion weights of a set of samples - saved without pickle, summarised (`capture` makes one).

In every layer the fusion gives each token a softmax over the members, alpha (L, T, A). A record keeps them in three
grains: for *every* sample the sums over its prompt and over its completion tokens (so means are exact and intervals can
resample samples), over all samples the same sums by kind of token (`token_kinds`: keyword, identifier, ...), and for
chosen samples every token's weights (float16). Beside the raw weight stands the **norm-weighted share**,
alpha_n ||W_v u_n|| normalised over the members of a token: attention alone overstates a member whose output is tiny.
The zeroed slot of AdvFusion's phase 1 holds softmax mass but adds nothing: its share is 0.

Which token counts as what: the weight at position t belongs to input token t, and the state fused there predicts token
t + 1. With a prompt of p tokens in a sequence of T,

    positions   0 .. p-2     are "prompt": they predict prompt tokens;
                p-1 .. T-2   are "completion": they predict it (from the last prompt token to the last token but one);
                T-1          predicts nothing: kept in the token view, in no mean.

The kind of position t is that of the token read there. Padding is in nothing at all. Sources: Pfeiffer et al. 2021
(AdapterFusion, arXiv 2005.00247), Kobayashi et al. 2020 (norm-weighted attention, arXiv 2004.10102). No torch here:
numpy alone reads and summarises a record.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from studykit.attention.token_kinds import KINDS
from studykit.errors import UserError
from studykit.study import methods
from studykit.study.methods import BEFORE_TRAINING

FORMAT = 3  # 1 had no kinds of tokens and no base, 2 no method
PROMPT, COMPLETION, LAST = 0, 1, 2
POOLS = {"prompt": [PROMPT], "completion": [COMPLETION], "both": [PROMPT, COMPLETION]}
PHASES = tuple(dict.fromkeys(p.recorded_as for p in (BEFORE_TRAINING, *chain(*methods.PHASES.values()))))
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Sample:
    """One sample in full: every token's weights in every layer, without padding."""

    id: str
    tokens: list[str]  # T readable token strings; untrusted text, escape before showing
    marks: np.ndarray  # (T,) uint8: PROMPT, COMPLETION or LAST
    kinds: np.ndarray  # (T,) uint8: index into token_kinds.KINDS
    weights: np.ndarray  # (L, T, A) float16, softmax weights
    shares: np.ndarray  # (L, T, A) float16, norm-weighted shares


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
    kind_counts: np.ndarray  # (2, K) int64: prompt and completion tokens of each of the K kinds
    kind_weight_sums: np.ndarray  # (2, K, L, A) float64: weights summed over the tokens of a kind in all samples
    kind_share_sums: np.ndarray  # (2, K, L, A) float64: norm-weighted shares, likewise
    kind_entropy_sums: np.ndarray  # (2, K, L) float64: entropies, likewise
    samples: list[Sample] = field(default_factory=list)
    method: str = ""  # what composes the members, as "advfusion", "average", "adapterfusion-lowrank"
    place: str = "output"  # where in the layer the fusion sits; after the whole layer (Pfeiffer's place)
    checkpoint: str = ""  # key of the run whose weights these are
    base: str = ""  # key of the run of the base model under them
    seed: int | None = None
    mask: str = "none"  # "none", "zero" (slot stays in the softmax) or "exclude" (slot leaves it)
    masked: list[str] = field(default_factory=list)  # members masked during the capture
    sum_error: float = 0.0  # largest |sum of a token's weights - 1| over all tokens, in the model's own precision

    @classmethod
    def empty(
        cls, members: Sequence[str], target: str, phase: str, layers: Sequence[str], ids: Sequence[str]
    ) -> FusionRecord:
        """A record of these samples in which nothing is counted yet; UserError for a target that is no member."""
        if target not in members:
            raise UserError(f"target {target!r} is not a member of the fusion; its members are {', '.join(members)}")
        arrays = []
        for first in ((len(ids), 2), (2, len(KINDS))):
            shape = (*first, len(layers))
            sums = [np.zeros((*shape, len(members))) for _ in range(2)]
            arrays += [np.zeros(first, np.int64), *sums, np.zeros(shape)]
        return cls(list(members), target, phase, list(layers), list(ids), *arrays)

    def add(self, i: int, weights: np.ndarray, shares: np.ndarray, marks: np.ndarray, kinds: np.ndarray) -> None:
        """Count sample i: weights and shares (L, T, A), marks and kinds (T,); once per sample."""
        error = np.abs(weights.sum(-1, dtype=np.float64) - 1).max()
        self.sum_error = float(np.maximum(self.sum_error, error))  # unlike max(), lets a NaN through
        entropies = bits(weights)  # (L, T)
        for pool in (PROMPT, COMPLETION):
            for kind in np.unique(kinds[marks == pool]):
                here = (marks == pool) & (kinds == kind)
                sums = here.sum(), weights[:, here].sum(1, dtype=float), shares[:, here].sum(1, dtype=float)
                for name, value in zip(_SUMS, (*sums, entropies[:, here].sum(1)), strict=True):
                    getattr(self, name)[i, pool] += value
                    getattr(self, f"kind_{name}")[pool, kind] += value

    @property
    def moment(self) -> str:
        """The phase in a reader's words: a method of one phase is its own."""
        return self.method or self.phase if self.phase == "adapterfusion" else self.phase

    @property
    def target_index(self) -> int:
        """Column of the target in the last axis."""
        return self.members.index(self.target)

    @property
    def taking_part(self) -> int:
        """How many members the softmax is over: all but the excluded."""
        return len(self.members) - (len(self.masked) if self.mask == "exclude" else 0)

    def save(self, path: str | Path) -> Path:
        """Write one compressed .npz (arrays, and the rest as JSON bytes inside); whole or not at all."""
        meta = {name: getattr(self, name) for name in _META} | {"format": FORMAT}
        meta["samples"] = [{"id": sample.id, "tokens": sample.tokens} for sample in self.samples]
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        if self.samples:  # token axes are joined, so that the file holds five arrays however many samples are kept
            arrays["kept_marks"] = np.concatenate([sample.marks for sample in self.samples])
            arrays["kept_kinds"] = np.concatenate([sample.kinds for sample in self.samples])
            arrays["kept_weights"] = np.concatenate([sample.weights for sample in self.samples], axis=1)
            arrays["kept_shares"] = np.concatenate([sample.shares for sample in self.samples], axis=1)
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> FusionRecord:
        """Read what `save` wrote, without torch and pickle. Raises UserError if it is missing or foreign."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(arrays.pop("meta").tobytes())
        except FileNotFoundError:
            raise UserError(f"no fusion record at {path}; expected an .npz written by FusionRecord.save") from None
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a fusion record ({error}); expected an .npz by FusionRecord.save") from None
        if meta.get("format") != FORMAT:
            raise UserError(f"{path} has record format {meta.get('format')!r}; this version reads format {FORMAT}, so "
                            f"the run that wrote it must be made again")  # fmt: skip
        samples, start = [], 0
        for kept in meta["samples"]:
            span = slice(start, start + len(kept["tokens"]))
            start = span.stop
            marks, kinds = arrays["kept_marks"][span], arrays["kept_kinds"][span]
            weights, shares = arrays["kept_weights"][:, span], arrays["kept_shares"][:, span]
            samples.append(Sample(kept["id"], kept["tokens"], marks, kinds, weights, shares))
        return cls(**{name: meta[name] for name in _META}, **{name: arrays[name] for name in _ARRAYS}, samples=samples)


_SUMS = ("counts", "weight_sums", "share_sums", "entropy_sums")
_ARRAYS = (*_SUMS, *(f"kind_{name}" for name in _SUMS))
_META = ("members", "target", "phase", "layers", "ids", "method", "place", "checkpoint", "base", "seed", "mask",
         "masked", "sum_error")  # fmt: skip


def token_marks(prompt_length: int, length: int) -> np.ndarray:
    """What each position predicts: (length,) uint8 of PROMPT, COMPLETION, and LAST at the end."""
    marks = np.full(length, PROMPT, dtype=np.uint8)
    marks[max(prompt_length - 1, 0) :] = COMPLETION
    marks[-1] = LAST
    return marks


def norm_shares(weights: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """alpha_n ||W_v u_n||, normalised over the members (..., A); zeros where every contribution is zero."""
    parts = weights * norms
    total = parts.sum(-1, keepdims=True)
    return np.divide(parts, total, out=np.zeros_like(parts), where=total != 0)


def bits(weights: np.ndarray) -> np.ndarray:
    """Entropy of the last axis in bits, with 0 log 0 = 0."""
    logs = np.log2(weights, out=np.zeros(weights.shape, dtype=np.float64), where=weights > 0)
    return -(weights * logs).sum(-1)


def mean(
    record: FusionRecord, tokens: str = "completion", weighted: bool = False, kinds: Sequence[str] | None = None
) -> np.ndarray:
    """Mean weight per layer and member over all tokens of all samples, (L, A); exact, not from the kept samples.

    Args:
        tokens: "completion", "prompt" or "both" (see the module's text).
        weighted: the norm-weighted share instead of the raw weight.
        kinds: only tokens of these of `token_kinds.KINDS`; NaN where there are none.
    """
    if kinds is not None:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise UserError(f"kinds of tokens are {', '.join(KINDS)}; {unknown[0]!r} is none of them")
        _pools(record, tokens)
        chosen = np.ix_(POOLS[tokens], [KINDS.index(kind) for kind in kinds])
        sums = (record.kind_share_sums if weighted else record.kind_weight_sums)[chosen].sum((0, 1))
        count = record.kind_counts[chosen].sum()
        return sums / count if count else np.full_like(sums, np.nan)
    pools, count = _pools(record, tokens)
    sums = record.share_sums if weighted else record.weight_sums
    return sums[:, pools].sum((0, 1)) / count.sum()


def sample_means(record: FusionRecord, tokens: str = "completion", weighted: bool = False) -> np.ndarray:
    """The same mean of each sample alone, (S, L, A), for intervals over samples; NaN where it has none."""
    pools, count = _pools(record, tokens)
    sums = (record.share_sums if weighted else record.weight_sums)[:, pools].sum(1)
    return np.where(count[:, None, None] > 0, sums / np.maximum(count, 1)[:, None, None], np.nan)


def target_share(record: FusionRecord, tokens: str = "completion", weighted: bool = False) -> np.ndarray:
    """Share of the target's own adapter per layer, (L,); its `.mean()` is the share overall, layers counting alike."""
    return mean(record, tokens, weighted)[:, record.target_index]


def entropy(record: FusionRecord, tokens: str = "completion", of: str = "tokens", normalised=False) -> np.ndarray:
    """Entropy of the weights per layer, (L,), in bits.

    `of="tokens"` is the mean entropy of a token's weights (is each token decided?), `of="mean"` the entropy of the
    mean weights (are all members used?); the first never exceeds the second. `normalised` divides by log2 of the number
    of members that take part (all but the excluded): 1 is uniform, 0 is one member only.
    """
    if of not in ("tokens", "mean"):
        raise UserError(f'entropy of {of!r} is unknown; accepted are "tokens" and "mean"')
    pools, count = _pools(record, tokens)
    value = bits(mean(record, tokens)) if of == "mean" else record.entropy_sums[:, pools].sum((0, 1)) / count.sum()
    return value / max(np.log2(record.taking_part), 1.0) if normalised else value


def checks(record: FusionRecord) -> dict[str, Any]:
    """What to see before believing a figure: `ok` if all weights sum to 1 and an excluded member has exactly 0.

    `masked_share` is the mean softmax mass of the masked members (in a zero mask a no-op that shrinks the others).
    """
    masked = record.weight_sums[..., [record.members.index(name) for name in record.masked]]  # (S, 2, L, masked)
    found = {
        "samples": len(record.ids),
        "prompt_tokens": int(record.counts[:, PROMPT].sum()),
        "completion_tokens": int(record.counts[:, COMPLETION].sum()),
        "sum_error": record.sum_error,
        "sums_to_one": record.sum_error <= SUM_TOLERANCE,
        "finite": bool(np.isfinite(record.weight_sums).all() and np.isfinite(record.share_sums).all()),
        "masked_share": float(masked.sum() / record.counts.sum() / len(record.layers)),
        "excluded_is_zero": not masked.any() if record.mask == "exclude" else None,
    }
    return found | {"ok": found["sums_to_one"] and found["finite"] and found["excluded_is_zero"] is not False}


def across(records: Sequence[FusionRecord], quantity: Callable = mean) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd (n - 1) of a quantity over records that differ in the seed only; the sd of one record is NaN.

    Raises UserError unless the records share phase, members, target and samples.
    """
    require_comparable(*records)
    if len(phases := sorted({record.phase for record in records})) > 1:
        raise UserError(f"records of the phases {', '.join(phases)} given; a mean over seeds needs one phase")
    values = np.stack([quantity(record) for record in records])
    spread = values.std(0, ddof=1) if len(records) > 1 else np.full(values.shape[1:], np.nan)
    return values.mean(0), spread


def require_comparable(*records: FusionRecord) -> None:
    """Raise UserError unless all records stand on the same samples, tokens, members, layers and target."""
    if not records:
        raise UserError("no fusion records given; give at least one")
    for name in ("members", "target", "layers", "ids", "counts"):
        for record in records[1:]:
            if not np.array_equal(getattr(record, name), getattr(records[0], name)):
                pair = " and ".join(one.checkpoint or one.phase for one in (records[0], record))
                raise UserError(f"fusion records of {pair} differ in {name}; record both with the same {name}")


def _pools(record: FusionRecord, tokens: str) -> tuple[list[int], np.ndarray]:
    """Which of the two sums to use, and how many tokens each sample has in them, (S,)."""
    if tokens not in POOLS:
        raise UserError(f"tokens={tokens!r} is unknown; accepted are {', '.join(POOLS)}")
    count = record.counts[:, POOLS[tokens]].sum(1)
    if not count.sum():
        raise UserError(f"the fusion record of {record.checkpoint or record.phase} has no {tokens} tokens")
    return POOLS[tokens], count

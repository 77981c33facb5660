"""The data of an explorer's page: records as series over seeds, sums and tokens' weights packed into few bytes.

A series is what is compared with another: a phase of a run, a method, a target. Its records differ in the seed only.
Means are exact: the page gets the record's sums (float32) by prompt or completion and by kind of token. The weights of
single tokens are rounded to 1/255 so that they still add up to what they added up to, hence a fault stays a fault.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from studykit.attention import record as attention_record
from studykit.attention.record import FusionRecord
from studykit.attention.token_kinds import KINDS
from studykit.errors import UserError
from studykit.report.figures import style

STEPS = 255  # of a token's weight
PARTS = ("weights", "shares")  # of a sample, in the order in which the page holds them
RAMP = np.linspace(0, 1, 33)  # where the colour scales of the static figures are sampled


@dataclass
class Series:
    """Records under one label, one per seed."""

    label: str
    records: list[FusionRecord]


def series_of(what: Any) -> list[Series]:
    """What can be explored, as series: a record, the path of one or of a run, a list or a mapping of these.

    The keys of mappings become labels; records of one label are its seeds. Records that cannot be seeds of one series
    (they differ in members, target, samples or layers, or their seed repeats) are told apart by their checkpoints, or
    numbered.
    Raises UserError for anything else, and for a run that holds no records.
    """
    by_label: dict[str, list[FusionRecord]] = {}
    for label, record in _labelled(what, ()):
        by_label.setdefault(label, []).append(record)
    if not by_label:
        raise UserError("there is no fusion record to explore; give a record, or a run that holds some")
    found = []
    for label, records in by_label.items():
        if _are_seeds(records):
            found.append(Series(label, records))
        else:
            runs = [record.checkpoint for record in records]
            own = runs if all(runs) and len(set(runs)) == len(runs) else [f"record {i + 1}" for i in range(len(runs))]
            found += [Series(f"{label} · {name}", [r]) for name, r in zip(own, records, strict=True)]
    return found


def _labelled(what: Any, names: tuple[str, ...]) -> Iterator[tuple[str, FusionRecord]]:
    if isinstance(what, FusionRecord):
        masked = f", {' and '.join(what.masked)} masked ({what.mask})" if what.masked else ""
        yield " · ".join(names) or what.title + masked, what
    elif isinstance(what, Mapping):
        for name, inside in what.items():
            yield from _labelled(inside, (*names, str(name)))
    elif isinstance(what, str | Path):
        stored = _stored(Path(what))
        alone = names and isinstance(stored, dict) and len(stored) == 1  # then its own name says no more
        yield from _labelled(next(iter(stored.values())) if alone else stored, names)
    elif isinstance(what, Sequence):
        for inside in what:
            yield from _labelled(inside, names)
    else:
        raise UserError(f"cannot explore {type(what).__name__}; give a FusionRecord, a run's path, or a list of these")


def _stored(path: Path) -> FusionRecord | dict[str, list[FusionRecord]]:
    """The records of a file, of a fusion_attention run (phase -> seeds) or of a fusion run (snapshot -> record)."""
    if path.suffix == ".npz":
        return FusionRecord.load(path)
    found: dict[str, list[FusionRecord]] = {}
    for file in sorted([*path.glob("records/*.npz"), *path.glob("attention/*.npz")]):
        record = FusionRecord.load(file)
        is_snapshot = file.parent.name == "attention"
        name = file.stem if is_snapshot else record.title + f", masked ({record.mask})" * bool(record.masked)
        found.setdefault(name, []).append(record)
    if not found:
        raise UserError(f"{path} holds no fusion records; expected a run of fusion or fusion_attention, or an .npz")
    return found


def _are_seeds(records: Sequence[FusionRecord]) -> bool:
    seeds = [record.seed for record in records]
    try:
        attention_record.require_comparable(*records)
    except UserError:
        return False
    alike = {(r.phase, r.mask, r.method, r.placement, r.base, *r.masked) for r in records}
    return len(set(seeds)) == len(seeds) and len(alike) == 1


def payload(series: Sequence[Series], *, title: str, tokens: str, budget: int) -> dict[str, Any]:
    """Everything that the page's script reads, ready for JSON.

    Args:
        tokens: the pool that is shown first, "completion", "prompt" or "both".
        budget: bytes that single tokens and their weights may take, compressed. What does not fit is left out, the
            last in this order first: all samples' weights of the first seed, their norm-weighted shares, then the
            same of the other seeds. A sample is there for all series or for none, so that differences are of the
            same; the first sample always is. Means stay exact.
    """
    if tokens not in attention_record.POOLS:
        raise UserError(f"tokens={tokens!r} is unknown; accepted are {', '.join(attention_record.POOLS)}")
    packed, texts = _Packed(), _Texts()
    told = [_series(one, packed) for one in series]
    left = budget
    for always, part, group in _by_importance(series):
        (_, _, sample), places = group[0], [told[at]["records"][order]["samples"] for at, order, _ in group]
        if not always and (left <= 0 or part and any(texts.index(sample) not in held for held in places)):
            continue  # norm-weighted shares never stand without the weights
        arrays = [quantised(getattr(sample, PARTS[part])) for _, _, sample in group]
        size = sum(len(zlib.compress(array.tobytes(), 1)) for array in arrays) + texts.size_of_new(sample)
        if not always and size > left:
            continue
        left -= size
        for held, array in zip(places, arrays, strict=True):
            held.setdefault(texts.add(sample), [None] * len(PARTS))[part] = packed.add_bytes(array)
    scales = {"sequential": style.SEQUENTIAL, "diverging": style.DIVERGING}
    colours = {name: [mpl.colors.to_hex(scale(at)) for at in RAMP] for name, scale in scales.items()}
    return {
        "title": title, "tokens": tokens, "kinds": list(KINDS), "pools": attention_record.POOLS, "series": told,
        "texts": texts.known, "colours": colours | {"members": style.COLOURS}, "tolerance": attention_record.SUM_TOLERANCE,
        "floats": packed.float_count, "blob": packed.blob(),
    }  # fmt: skip


def _series(series: Series, packed: _Packed) -> dict[str, Any]:
    first = series.records[0]
    about = ("members", "target", "phase", "method", "layers", "mask", "masked", "placement")
    told = {name: getattr(first, name) for name in about}
    stands_on = json.dumps([first.ids, first.counts.tolist()]).encode()
    records = []
    for record in series.records:
        own = {name: getattr(record, name) for name in ("seed", "checkpoint", "base")}
        kinds = {name: getattr(record, f"kind_{name}_sums") for name in ("weight", "share", "entropy")}
        sums = {name: packed.add_floats(array) for name, array in kinds.items()}
        sound = np.isfinite(record.sum_error) and all(np.isfinite(array).all() for array in kinds.values())
        error = record.sum_error if sound else 1e9  # JSON has no NaN; either is a fault
        records.append(own | sums | {"error": error, "counts": record.kind_counts.tolist(), "samples": {}})
    return told | {"label": series.label, "n": len(first.ids), "records": records,
                   "same": hashlib.sha256(stands_on).hexdigest()[:16]}  # fmt: skip


def _by_importance(
    series: Sequence[Series],
) -> Iterator[tuple[bool, int, list[tuple[int, int, attention_record.Sample]]]]:
    """What is kept first: whether always, the place in PARTS, and every series' copy of a sample of one seed, each
    with the places of its series and record."""
    copies: dict[tuple, list] = {}  # (seed, sample) -> copies
    rank: dict[tuple, tuple[int, int]] = {}  # the first seeds of all series before their second ones, and so on
    first = set()  # a series' first sample is always kept
    for at, one in enumerate(series):
        kept = [(order, n, r.seed, s) for order, r in enumerate(one.records) for n, s in enumerate(r.samples)]
        for order, n, seed, sample in kept:
            key = seed, _Texts.key(sample)
            copies.setdefault(key, []).append((at, order, sample))
            rank[key] = min(rank.get(key, (order, n)), (order, n))
        first.update((seed, _Texts.key(sample)) for _, _, seed, sample in kept[:1])
    turns = [(order, part, n, key) for key, (order, n) in rank.items() for part in range(len(PARTS))]
    for _, part, _, key in sorted(turns, key=lambda turn: turn[:3]):
        yield key in first, part, copies[key]


def quantised(weights: np.ndarray) -> np.ndarray:
    """Weights (..., A) in 1/255 as uint8. Running sums are rounded, so a row adds up to the sum of its weights."""
    running = np.rint(np.cumsum(np.nan_to_num(weights.astype(np.float64), nan=0.0), axis=-1) * STEPS)
    return np.clip(np.diff(running, axis=-1, prepend=0), 0, STEPS).astype(np.uint8)


class _Texts:
    """Samples' tokens, each once however many records hold it."""

    def __init__(self) -> None:
        self.known: list[dict[str, Any]] = []
        self.places: dict[tuple, int] = {}

    @staticmethod
    def key(sample: attention_record.Sample) -> tuple:
        return (sample.id, *sample.tokens)

    def index(self, sample: attention_record.Sample) -> int | None:
        return self.places.get(self.key(sample))

    def size_of_new(self, sample: attention_record.Sample) -> int:
        """Bytes that its tokens add to a page; in a frame's `srcdoc` each quote is six."""
        if self.index(sample) is not None:
            return 0
        return len(html.escape(json.dumps(sample.tokens))) + 2 * len(sample.tokens)

    def add(self, sample: attention_record.Sample) -> int:
        if (key := self.key(sample)) not in self.places:
            self.places[key] = len(self.known)
            marks, kinds = ("".join(map(str, part.tolist())) for part in (sample.marks, sample.kinds))
            self.known.append({"id": sample.id, "tokens": sample.tokens, "marks": marks, "kinds": kinds})
        return self.places[key]


class _Packed:
    """Arrays in one deflated run of bytes: first all float32, then all uint8."""

    def __init__(self) -> None:
        self.float_parts: list[np.ndarray] = []
        self.byte_parts: list[np.ndarray] = []
        self.float_count = self.bytes = 0

    def add_floats(self, array: np.ndarray) -> int:
        """Where the array begins, counted in floats."""
        self.float_parts.append(np.ascontiguousarray(array, dtype="<f4").ravel())
        self.float_count += array.size
        return self.float_count - array.size

    def add_bytes(self, array: np.ndarray) -> int:
        """Where the array begins, counted in bytes behind the floats."""
        self.byte_parts.append(array.ravel())
        self.bytes += array.size
        return self.bytes - array.size

    def blob(self) -> str:
        raw = b"".join(part.tobytes() for part in (*self.float_parts, *self.byte_parts))
        deflate = zlib.compressobj(6, wbits=-15)
        return base64.b64encode(deflate.compress(raw) + deflate.flush()).decode()

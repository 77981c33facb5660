"""The data of an explorer's page: records as series over seeds, sums and tokens' weights packed into few bytes.

Series are compared with each other: phases of a run, methods, or targets. The records of a series differ in the seed
only. Means are exact: the page gets the record's sums (float32) by prompt or completion and by kind of token. The
weights of single tokens are rounded to 1/255 in such a way that their sum is kept, so a fault stays visible; losses of
single tokens are rounded on the scale of their square root.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from studykit.attention import record as attention_record
from studykit.attention.record import FusionRecord
from studykit.attention.token_kinds import KINDS
from studykit.errors import UserError
from studykit.evaluation.student import student_t
from studykit.report.figures import style
from studykit.study.methods import BEFORE_TRAINING, PHASE_1, titled

STEPS = 255  # into which a token's weight is rounded
PARTS = ("weights", "shares")  # arrays of a sample, in the order in which the page holds them; its losses follow
MOST_NATS = 16.0  # loss of a token that is the last of STEPS; larger ones are shown as this
RAMP = np.linspace(0, 1, 33)  # points at which the colour scales of the static figures are sampled


@dataclass
class Series:
    """Records under one label, one per seed."""

    label: str
    records: list[FusionRecord]


def series_of(what: Any) -> list[Series]:
    """Returns the series of a record, of the path of a record or a run, or of a list or a mapping of these.

    The keys of mappings become labels; records of one label are its seeds. Records that cannot be seeds of one series
    (they differ in members, target, samples or layers, or their seed repeats) get the name of their checkpoint or a
    number in their label.

    Raises UserError for anything else, and for a run that holds no records.
    """
    by_label: dict[str, list[FusionRecord]] = {}
    for label, record in _labelled(what, ()):
        by_label.setdefault(label, []).append(record)
    if not by_label:
        raise UserError("there is no fusion record to explore; give a record, or a run that holds some")
    series = []
    for label, records in by_label.items():
        if _are_seeds(records):
            series.append(Series(label, records))
        else:
            runs = [record.checkpoint for record in records]
            distinct = all(runs) and len(set(runs)) == len(runs)
            names = runs if distinct else [f"record {i + 1}" for i in range(len(runs))]
            series += [Series(f"{label} · {name}", [record]) for name, record in zip(names, records, strict=True)]
    return series


def _labelled(what: Any, names: tuple[str, ...]) -> Iterator[tuple[str, FusionRecord]]:
    if isinstance(what, FusionRecord):
        masked = f", {' and '.join(what.masked)} masked ({what.mask})" if what.masked else ""
        yield " · ".join(names) or what.title + masked, what
    elif isinstance(what, Mapping):
        for name, inside in what.items():
            yield from _labelled(inside, (*names, str(name)))
    elif isinstance(what, str | Path):
        stored: Any = _stored(Path(what))
        if names and isinstance(stored, dict) and len(stored) == 1:  # its own name adds nothing
            stored = next(iter(stored.values()))
        yield from _labelled(stored, names)
    elif isinstance(what, Sequence):
        for inside in what:
            yield from _labelled(inside, names)
    else:
        raise UserError(f"cannot explore {type(what).__name__}; give a FusionRecord, a run's path, or a list of these")


def source_of(what: Any) -> Any:
    """Returns what `series_of` has read as texts, lists and dictionaries of texts; None if it is not all in files.

    Paths inside of the working directory, which is the project's in a notebook, are relative to it.
    """
    if isinstance(what, str | Path):
        path = Path(what).absolute()
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    if isinstance(what, Mapping):
        named = {str(name): source_of(inside) for name, inside in what.items()}
        return None if None in named.values() else named
    if isinstance(what, Sequence):
        listed = [source_of(inside) for inside in what]
        return None if None in listed else listed
    return None


def _stored(path: Path) -> FusionRecord | dict[str, list[FusionRecord]]:
    """Returns the record of a file, or the records of a run by phase (fusion_attention) or by snapshot (fusion)."""
    if path.suffix == ".npz":
        return FusionRecord.load(path)
    by_name: dict[str, list[FusionRecord]] = {}
    found = [*path.glob("records/*.npz"), *path.glob("attention/*.npz")]
    for file in sorted(found, key=_by_state):
        record = FusionRecord.load(file)
        restored = file.with_name(f"{file.stem}-masked.npz") in found
        state = f", masked ({record.mask})" if record.masked else ", restored" * restored
        by_name.setdefault(record.title + state, []).append(record)
    if not by_name:
        raise UserError(f"{path} holds no fusion records; expected a run of fusion or fusion_attention, or an .npz")
    return by_name


def _by_state(file: Path) -> tuple[bool, str]:
    """Returns a sort key of records: the initialisation first, a masked state before the restored one."""
    return not file.stem.endswith(BEFORE_TRAINING.key), file.stem + "~"  # "-masked" sorts before "~"


def _are_seeds(records: Sequence[FusionRecord]) -> bool:
    seeds = [record.seed for record in records]
    try:
        attention_record.require_comparable(*records)
    except UserError:
        return False
    alike = {(r.phase, r.mask, r.method, r.placement, r.base, *r.masked) for r in records}
    return len(set(seeds)) == len(seeds) and len(alike) == 1


def payload(
    series: Sequence[Series], *, title: str, tokens: str, budget: int, looks: Mapping[str, style.Look] | None = None
) -> dict[str, Any]:
    """Returns all that the page's script reads, ready for JSON.

    Args:
        tokens: the pool that is shown first, "completion", "prompt" or "both".
        budget: compressed bytes that single tokens and their weights may take. Samples are added in this order until it
            is spent: the weights of all samples of the first seed, their norm-weighted shares, then the same of the
            other seeds. A sample is there for all series or for none, so that differences are of the same samples; the
            first sample is always there. Means stay exact.
        looks: colours and markers by method, which begin the labels of the series; None: by the order of the methods,
            and grey, which is no method's, if all series are states of one.
    """
    if tokens not in attention_record.POOLS:
        raise UserError(f"tokens={tokens!r} is unknown; accepted are {', '.join(attention_record.POOLS)}")
    packed, texts = _Packed(), _Texts()
    own = _looks(series, looks)
    described = [_described(one, packed) | asdict(look) for one, look in zip(series, own, strict=True)]
    left = budget
    for batch in _by_importance(series):
        sample, part = batch.copies[0].sample, PARTS[batch.part]
        held_by_copy = [described[copy.series]["records"][copy.record]["samples"] for copy in batch.copies]
        without_weights = batch.part and any(texts.index(sample) not in held for held in held_by_copy)
        if not batch.required and (left <= 0 or without_weights):
            continue  # norm-weighted shares are never there without the weights
        arrays = [quantised(getattr(copy.sample, part)) for copy in batch.copies]
        size = sum(len(zlib.compress(array.tobytes(), 1)) for array in arrays) + texts.size_of_new(sample)
        if not batch.required and size > left:
            continue
        left -= size
        for held, array in zip(held_by_copy, arrays, strict=True):
            held.setdefault(texts.add(sample), [None] * len(PARTS))[batch.part] = packed.add_bytes(array)
        if not batch.part:
            for held, copy in zip(held_by_copy, batch.copies, strict=True):
                held[texts.add(sample)].append(packed.add_bytes(quantised_losses(copy.sample.losses)))
    scales = {"sequential": style.SEQUENTIAL, "diverging": style.DIVERGING}
    colours = {name: [mpl.colors.to_hex(scale(at)) for at in RAMP] for name, scale in scales.items()}
    return {
        "title": title,
        "tokens": tokens,
        "kinds": list(KINDS),
        "pools": attention_record.POOLS,
        "series": described,
        "texts": texts.known,
        "colours": colours | {"members": style.COLOURS},
        "tolerance": attention_record.SUM_TOLERANCE,
        "nats": MOST_NATS,
        "student": _quantiles(record["seed"] for one in described for record in one["records"]),
        "floats": packed.float_count,
        "blob": packed.blob(),
    }


def _quantiles(seeds: Iterable[int | None]) -> list[float]:
    """Returns Student's t at 97.5 % by degrees of freedom, from 1 on, for intervals over seeds."""
    return [student_t(0.975, df) for df in range(1, len(set(seeds)))]


def _looks(series: Sequence[Series], looks: Mapping[str, style.Look] | None) -> list[style.Look]:
    """Returns the colour and the marker of each series: the states of a method have its colour."""
    if looks:
        return [style.look_of(one.label, looks) for one in series]
    methods = [one.label.rpartition(" · ")[0] or one.records[0].checkpoint or one.label for one in series]
    own = style.method_looks(dict.fromkeys(methods))
    if len(own) == 1:
        return [
            style.Look(style.GREY, style.MARKERS[i % len(style.MARKERS)], _is_filled(one))
            for i, one in enumerate(series)
        ]
    return [replace(own[method], filled=_is_filled(one)) for method, one in zip(methods, series, strict=True)]


def _is_filled(series: Series) -> bool:
    return series.records[0].phase != PHASE_1.recorded_as


def recoloured(data: dict[str, Any], looks: Mapping[str, style.Look]) -> dict[str, Any]:
    """Returns the data of a stored page with these looks of the methods that begin the labels of its series.

    A run does not know the study that shows it, nor the colours of that study's methods. Pages of earlier versions lack
    the quantiles that today's script reads.
    """
    methods = [one["label"].partition(" · ")[0] for one in data["series"]]
    series = [
        one | (asdict(style.look_of(one["label"], looks)) if method in looks else {})
        for method, one in zip(methods, data["series"], strict=True)
    ]
    student = _quantiles(record["seed"] for one in series for record in one["records"])
    return data | {"series": series, "student": student}


def _described(series: Series, packed: _Packed) -> dict[str, Any]:
    """Returns a series with the sums of its records, but without samples."""
    first = series.records[0]
    shared = ("members", "target", "phase", "method", "layers", "mask", "masked", "placement")
    same_samples = json.dumps([first.ids, first.counts.tolist()]).encode()
    records = []
    for record in series.records:
        about = {name: getattr(record, name) for name in ("seed", "checkpoint", "base")}
        kinds = {name: getattr(record, f"kind_{name}_sums") for name in ("weight", "share", "entropy")}
        sums = {name: packed.add_floats(array) for name, array in kinds.items()}
        sound = np.isfinite(record.sum_error) and all(np.isfinite(array).all() for array in kinds.values())
        error = record.sum_error if sound else 1e9  # JSON has no NaN, and either is a fault
        records.append(about | sums | {"error": error, "counts": record.kind_counts.tolist(), "samples": {}})
    return {name: getattr(first, name) for name in shared} | {
        "label": series.label,
        "title": titled(series.label.partition(" · ")[0]),
        "n": len(first.ids),
        "records": records,
        "same": hashlib.sha256(same_samples).hexdigest()[:16],  # equal for series on the same samples
    }


@dataclass(frozen=True)
class _Copy:
    """One series' copy of a sample of one seed."""

    series: int  # index of the series
    record: int  # index of the record in it
    sample: attention_record.RecordedSample


@dataclass(frozen=True)
class _Batch:
    """The copies of a sample that a page gets together or not at all."""

    required: bool  # whether a page gets it beyond the budget too
    part: int  # index into PARTS
    copies: list[_Copy]


def _by_importance(series: Sequence[Series]) -> Iterator[_Batch]:
    """Yields what a page may hold of single tokens, the most important first."""
    copies: dict[tuple, list[_Copy]] = {}  # by seed and sample
    rank: dict[tuple, tuple[int, int]] = {}  # the first seeds of all series before their second ones, and so on
    required: set[tuple] = set()
    for at, one in enumerate(series):
        every = [(order, n, r.seed, s) for order, r in enumerate(one.records) for n, s in enumerate(r.samples)]
        for order, n, seed, sample in every:
            key = seed, _Texts.key(sample)
            copies.setdefault(key, []).append(_Copy(at, order, sample))
            rank[key] = min(rank.get(key, (order, n)), (order, n))
        required.update((seed, _Texts.key(sample)) for _, _, seed, sample in every[:1])
    turns = [(order, part, n, key) for key, (order, n) in rank.items() for part in range(len(PARTS))]
    for _, part, _, key in sorted(turns, key=lambda turn: turn[:3]):
        yield _Batch(key in required, part, copies[key])


def quantised(weights: np.ndarray) -> np.ndarray:
    """Returns weights (..., A) in 1/255 as uint8; running sums are rounded, so a row keeps the sum of its weights."""
    running = np.rint(np.cumsum(np.nan_to_num(weights.astype(np.float64), nan=0.0), axis=-1) * STEPS)
    return np.clip(np.diff(running, axis=-1, prepend=0), 0, STEPS).astype(np.uint8)


def quantised_losses(losses: np.ndarray) -> np.ndarray:
    """Returns losses in nats, (T,), as uint8: b stands for MOST_NATS (b / STEPS)^2, so small losses differ, too."""
    share = np.clip(np.nan_to_num(losses.astype(np.float64), nan=MOST_NATS) / MOST_NATS, 0, 1)
    return np.rint(STEPS * np.sqrt(share)).astype(np.uint8)


class _Texts:
    """The tokens of samples, each sample once however many records hold it."""

    def __init__(self) -> None:
        self.known: list[dict[str, Any]] = []
        self.indices: dict[tuple, int] = {}

    @staticmethod
    def key(sample: attention_record.RecordedSample) -> tuple:
        return (sample.id, *sample.tokens)

    def index(self, sample: attention_record.RecordedSample) -> int | None:
        return self.indices.get(self.key(sample))

    def size_of_new(self, sample: attention_record.RecordedSample) -> int:
        """Returns the bytes that its tokens add to a page; a quote takes six in a frame's `srcdoc`."""
        if self.index(sample) is not None:
            return 0
        return len(html.escape(json.dumps(sample.tokens))) + 2 * len(sample.tokens)

    def add(self, sample: attention_record.RecordedSample) -> int:
        if (key := self.key(sample)) not in self.indices:
            self.indices[key] = len(self.known)
            marks, kinds = ("".join(map(str, part.tolist())) for part in (sample.marks, sample.kinds))
            self.known.append({"id": sample.id, "tokens": sample.tokens, "marks": marks, "kinds": kinds})
        return self.indices[key]


class _Packed:
    """Arrays in one deflated sequence of bytes: first all float32, then all uint8."""

    def __init__(self) -> None:
        self.float_parts: list[np.ndarray] = []
        self.byte_parts: list[np.ndarray] = []
        self.float_count = self.bytes = 0

    def add_floats(self, array: np.ndarray) -> int:
        """Adds an array and returns its start, counted in floats."""
        self.float_parts.append(np.ascontiguousarray(array, dtype="<f4").ravel())
        self.float_count += array.size
        return self.float_count - array.size

    def add_bytes(self, array: np.ndarray) -> int:
        """Adds an array and returns its start, counted in bytes after the floats."""
        self.byte_parts.append(array.ravel())
        self.bytes += array.size
        return self.bytes - array.size

    def blob(self) -> str:
        raw = b"".join(part.tobytes() for part in (*self.float_parts, *self.byte_parts))
        deflate = zlib.compressobj(6, wbits=-15)
        return base64.b64encode(deflate.compress(raw) + deflate.flush()).decode()

"""The samples of an evaluation: prompt, reference and prediction of every row, and how the prediction ended.

They lie in `samples/<checkpoint>.jsonl` of an evaluate run, one per line. All text in them is untrusted.

    samples = read_samples(run.dir, scores.final[0])
    count_endings(samples)  # {"passed": 31, "failed": 9, ..., "empty": 0, "cut off": 2, "prompt cut": 0}
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studykit.data.rows import Row
from studykit.evaluation.scores import CheckpointScores
from studykit.evaluation.scoring import ProgramEnd, can_run

STATUSES = ("passed", "failed", "error", "timeout", "memory", "output")
TELLING = re.compile(r"error|expected|attempt|undefined", re.IGNORECASE)  # words of the line that names an error
MESSAGE_CHARACTERS = 120  # of an error message that are kept


class ReferenceLoss(NamedTuple):
    """The loss of one reference under its prompt, summed over its tokens."""

    nats: float
    tokens: int


@dataclass(frozen=True)
class Sample:
    """One prediction beside its prompt and reference."""

    id: str  # of the row
    prompt: str
    reference: str  # "" where the row is judged by its tests alone
    prediction: str
    sample: int  # its number among the predictions of the row
    finished: bool  # whether it ended by itself; otherwise max_new_tokens cut it off
    prompt_cut: bool  # whether the prompt was too long and was cut
    nats: float | None  # the loss of the reference; None without one
    tokens: int | None  # of the reference
    status: str | None  # of its program, one of STATUSES; None: it was not run
    stderr: str | None

    @property
    def equals_reference(self) -> bool:
        """Returns whether there is a reference and the prediction repeats it, apart from white space around it."""
        return self.prediction.strip() == self.reference.strip() != ""

    @property
    def is_right(self) -> bool:
        """Returns whether the prediction passed its tests; without tests, whether it equals the reference."""
        return self.status == "passed" if self.status else self.equals_reference

    @property
    def ending(self) -> str:
        """Tells in words how the prediction ended."""
        if not self.prediction.strip():
            return "empty"
        if self.is_right:
            return "same" if self.equals_reference else "passed, written differently"
        return (self.status or "another text") + ("" if self.finished else ", cut off")


class FrequentError(NamedTuple):
    """An error message that several programs share."""

    message: str
    programs: int
    example: str  # the id of one row


class LengthBin(NamedTuple):
    """The rows whose references are of similar length."""

    shortest: int  # reference, in tokens
    longest: int
    rows: int
    right: float  # percent of the predictions
    loss: float  # nats per token


def write_samples(
    path: Path,
    rows: Sequence[Row],
    predictions: Sequence[Mapping[str, Any]],
    losses: Sequence[ReferenceLoss],
    programs: Sequence[ProgramEnd],
) -> None:
    """Writes one line per prediction.

    predictions: as many per row as samples. losses: one per row, or none at all. programs: the ends of the predictions
    of rows whose tests can be run, or none at all.
    """
    ends, per_row, lines = iter(programs), len(predictions) // len(rows), []
    for number, prediction in enumerate(predictions):
        row = rows[number // per_row]
        nats, tokens = losses[number // per_row] if losses else (None, None)
        end = next(ends) if programs and can_run(row) else None
        sample = Sample(
            id=row.id,
            prompt=row.prompt,
            reference=row.target,
            prediction=prediction["text"],
            sample=prediction["sample"],
            finished=prediction["finished"],
            prompt_cut=prediction["prompt_cut"],
            nats=nats,
            tokens=tokens,
            status=end.status if end else None,
            stderr=end.stderr if end else None,
        )
        lines.append(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_samples(run_dir: str | Path, checkpoint: CheckpointScores) -> list[Sample]:
    """Reads the samples of one checkpoint of an evaluate run."""
    text = Path(run_dir, "samples", f"{checkpoint.file_stem}.jsonl").read_text(encoding="utf-8")
    return [Sample(**json.loads(line)) for line in text.split("\n") if line]


def count_endings(samples: Sequence[Sample]) -> dict[str, int]:
    """Counts how predictions ended: by the status of their programs, if they were run, then empty predictions, those
    that were cut off, and prompts that were cut."""
    statuses = Counter(sample.status for sample in samples if sample.status)
    return {status: statuses[status] for status in STATUSES if statuses} | {
        "empty": sum(not sample.prediction.strip() for sample in samples),
        "cut off": sum(not sample.finished for sample in samples),
        "prompt cut": sum(sample.prompt_cut for sample in samples),
    }


def error_message(stderr: str, masked: bool = True) -> str:
    """Returns the line that names an error, without its place.

    masked: without the names and values that differ between programs, too.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "(no message)"
    message = re.sub(r"^.*:\d+: ", "", next((line for line in lines if TELLING.search(line)), last))
    if masked:
        message = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", re.sub(r"\d+", "N", message))
    return message[:MESSAGE_CHARACTERS]


def frequent_errors(samples: Sequence[Sample], most: int = 5) -> list[FrequentError]:
    """Returns the most frequent error messages, the most frequent first."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}  # the first row of each message
    for sample in samples:
        if sample.status == "error":
            message = error_message(sample.stderr or "")
            counts[message] += 1
            example.setdefault(message, sample.id)
    return [FrequentError(message, n, example[message]) for message, n in counts.most_common(most)]


def bin_by_length(of_seeds: Sequence[Sequence[Sample]], parts: int = 3) -> list[LengthBin]:
    """Divides the rows into equal parts by the length of their references, the shortest first.

    of_seeds: the samples of each seed, of the same rows. The list is empty where rows have no references.
    """
    first = of_seeds[0]
    if first[0].tokens is None:
        return []
    order = np.argsort(np.array([sample.tokens for sample in first]), kind="stable")
    bins = []
    for part in np.array_split(order, min(parts, len(order))):
        samples = [samples[i] for samples in of_seeds for i in part]
        lengths = [first[i].tokens for i in part]
        one = LengthBin(
            shortest=min(lengths),
            longest=max(lengths),
            rows=len({first[i].id for i in part}),
            right=100 * float(np.mean([sample.is_right for sample in samples])),
            loss=sum(sample.nats for sample in samples) / sum(sample.tokens for sample in samples),
        )
        bins.append(one)
    return bins


def choose_examples(samples: Sequence[Sample], right: bool, most: int = 3) -> list[dict[str, str]]:
    """Returns the first samples that are right, or those that are wrong, as blocks of text for `tables.texts`.

    The samples end in as many different ways as possible.
    """
    seen: Counter = Counter()
    turns = []  # the number of earlier samples with the same ending
    chosen = [sample for sample in samples if sample.is_right == right]
    for sample in chosen:
        turns.append(seen[sample.ending])
        seen[sample.ending] += 1
    picked = [chosen[i] for i in np.argsort(turns, kind="stable")[:most]]
    return [{"prompt": s.prompt, "reference": s.reference, f"prediction: {s.ending}": s.prediction} for s in picked]

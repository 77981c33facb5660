"""The division of rows into training, validation and test where a data set has none of its own.

What must not be torn apart is a **unit**: a repository, a file, a problem. Rows that share a unit, directly or through
other rows, form a group, and a group goes whole into the split that the hash of its name and the seed give. So the
division does not depend on the order of the rows, is the same in every language, and stays as it is when rows are added
that join no groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from studykit.data.rows import Row
from studykit.errors import UserError

SPLITS = ("train", "valid", "test")


class Example(NamedTuple):
    """A row on its way: where it was read, which split it came with, and what it must not be parted from."""

    row: Row
    place: str
    split: str | None  # of SPLITS; "fit": to be divided into train and valid; None: into all three
    units: tuple[str, ...]  # none where it has a split and nothing is known of it


def divide(examples: Sequence[Example], shares: Sequence[float], seed: int) -> list[Example]:
    """Every example with a split of its own, and its group in its row."""
    groups = components([e.units for e in examples])
    divided = []
    for example, group in zip(examples, groups, strict=True):
        split = example.split
        if split not in SPLITS:
            split = draw(group, shares if split is None else (shares[0], shares[1], 0.0), seed)
        divided.append(example._replace(row=replace(example.row, group=group or None), split=split))
    return divided


def draw(group: str, shares: Sequence[float], seed: int) -> str:
    """The split of a group, with the probabilities `shares`, by a hash."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    at, chosen = int.from_bytes(digest[:8]) / 2**64 * sum(shares), ""
    for split, share in zip(SPLITS, shares, strict=True):
        if share > 0:  # so that no rounding can choose a split without a share
            chosen = split
            if at < share:
                break
            at -= share
    return chosen


def components(units: Iterable[tuple[str, ...]]) -> list[str]:
    """For each tuple of units the name of its connected component, its alphabetically first unit; "" for no units."""
    units = list(units)
    parent: dict[str, str] = {}

    def top(unit: str) -> str:
        while parent.setdefault(unit, unit) != unit:
            parent[unit] = unit = parent[parent[unit]]
        return unit

    for joined in filter(None, units):
        first = top(joined[0])
        for unit in joined[1:]:
            other = top(unit)
            first, other = min(first, other), max(first, other)
            parent[other] = first
    return [top(joined[0]) if joined else "" for joined in units]


def require_groups(examples: Sequence[Example], divided: Sequence[Example], by: str) -> None:
    """Raises UserError for a language whose rows, divided by us, stand in fewer than three groups."""
    groups: dict[str, set[str]] = {}
    for example, after in zip(examples, divided, strict=True):
        if example.split is None:
            groups.setdefault(example.row.language, set()).add(after.row.group)
    for language, found in sorted(groups.items()):
        if (n := len(found)) < 3:
            names = ", ".join(sorted(found)[:2])
            finer = {"repository": "'file' or 'row'", "file": "'row'"}.get(by)
            way_out = f"set data.split_by to {finer}" if finer else "it needs more rows"
            raise UserError(f"The rows of {language} belong to {n} {by} alone ({names}), which cannot be divided into "
                            f"train, valid and test; {way_out}.")  # fmt: skip

"""The division of rows into training, validation and test where a data set has none of its own.

A **unit** must not be divided: a repository, a file, a problem. Rows that share a unit, directly or through
other rows, form a group, and a group goes whole into the split that the hash of its name and the seed give. So the
division does not depend on the order of the rows, is the same in every language, and stays as it is when rows are added
that join no groups. A group of which some rows have a published split follows them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from studykit.data.request import Example
from studykit.errors import UserError

SPLITS = ("train", "valid", "test")


def divide(examples: Sequence[Example], shares: Sequence[float], seed: int) -> list[Example]:
    """Gives every example a split, and its row the group that it belongs to.

    Rows to be divided follow the rows of their group that have a split; the first of them in the order of `SPLITS`, if
    these have several, so that no more rows are tested whose group is trained on.
    """
    groups = components([e.units for e in examples])
    published: dict[str, set[str]] = {}
    for example, group in zip(examples, groups, strict=True):
        if group and example.split in SPLITS:
            published.setdefault(group, set()).add(example.split)
    divided = []
    for example, group in zip(examples, groups, strict=True):
        split = example.split
        followed = published.get(group, set()) - ({"test"} if split == "fit" else set())
        if split not in SPLITS and followed:
            split = min(followed, key=SPLITS.index)
        elif split not in SPLITS:
            split = assign_split(group, shares if split is None else (shares[0], shares[1], 0.0), seed)
        divided.append(example._replace(row=replace(example.row, group=group or None), split=split))
    return divided


def assign_split(group: str, shares: Sequence[float], seed: int) -> str:
    """Returns the split of a group, with the probabilities `shares`, by the hash of its name and the seed."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    position, chosen = int.from_bytes(digest[:8]) / 2**64 * sum(shares), ""
    for split, share in zip(SPLITS, shares, strict=True):
        if share > 0:  # so that no rounding can choose a split without a share
            chosen = split
            if position < share:
                break
            position -= share
    return chosen


def components(units: Iterable[tuple[str, ...]]) -> list[str]:
    """Returns the connected component of each tuple of units, named by its alphabetically first unit.

    A tuple without units has the component "".
    """
    units = list(units)
    parent: dict[str, str] = {}

    def top(unit: str) -> str:
        while parent.setdefault(unit, unit) != unit:
            parent[unit] = unit = parent[parent[unit]]
        return unit

    for connected in filter(None, units):
        first = top(connected[0])
        for unit in connected[1:]:
            other = top(unit)
            first, other = min(first, other), max(first, other)
            parent[other] = first
    return [top(connected[0]) if connected else "" for connected in units]


def require_groups(examples: Sequence[Example], divided: Sequence[Example], by: str) -> None:
    """Requires three groups or more of every language whose rows we divide; raises UserError for another language."""
    groups: dict[str, set[str]] = {}
    for example, after in zip(examples, divided, strict=True):
        if example.split is None:
            groups.setdefault(example.row.language, set()).add(after.row.group or "")
    for language, members in sorted(groups.items()):
        if (n := len(members)) < 3:
            names = ", ".join(sorted(members)[:2])
            finer = {"repository": "'file' or 'row'", "file": "'row'"}.get(by)
            way_out = f"set data.split_by to {finer}" if finer else "it needs more rows"
            raise UserError(
                f"The rows of {language} belong to {n} {by} only ({names}), which cannot be divided into "
                f"train, valid and test; {way_out}."
            )

"""An overview of rows before anything is trained on them: lengths, cuts, duplicates, leaks.

Lengths are in tokens of the base's tokenizer, before any cut; a target's counts its end token.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any, TypedDict

from studykit.data.encoding import encode_row, start_tokens
from studykit.data.rows import Row, Rows
from studykit.data.splits import SPLITS
from studykit.study.parameters import DataParams

Lengths = dict[str, dict[str, dict[str, list[int]]]]  # "prompt" or "target" -> member -> split -> tokens of each row


class SharedGroups(TypedDict):
    """The groups of all members together."""

    count: dict[str, int]  # by split; 0 where rows name no group
    shared: dict[str, int]  # "train and test": groups in both, ...


class Overview(TypedDict):
    """Everything that notebook 01 shows of its rows."""

    headline: dict[str, int]  # numbers for the index
    lengths: Lengths
    cut: list[dict[str, Any]]  # see `cuts`
    leakage: dict[str, dict[str, int]]  # by member, see `leakage`
    groups: SharedGroups


def overview(rows: Rows, tokenizer, p: DataParams) -> Overview:
    """Computes everything that notebook 01 shows of its rows, as JSON."""
    lengths: Lengths = {
        "prompt": _each(rows, lambda items: _tokens(tokenizer, [row.prompt for row in items], True)),
        "target": _each(rows, lambda items: [n + 1 for n in _tokens(tokenizer, [row.target for row in items], False)]),
    }
    cut, groups = cuts(rows, tokenizer, lengths, (p.max_prompt_tokens, p.max_target_tokens)), shared_groups(rows)
    return {
        "headline": {
            "rows": sum(c["rows"] for c in cut),
            f"{p.target} train rows": len(rows[p.target]["train"]),
            **{name: sum(c[name] for c in cut) for name in ("prompts cut", "targets cut")},
            "groups in train and test": groups["shared"]["train and test"],
        },
        "lengths": lengths,
        "cut": cut,
        "leakage": {language: leakage(splits) for language, splits in rows.items()},
        "groups": groups,
    }


def cuts(rows: Rows, tokenizer, lengths: Lengths, limits: tuple[int, int]) -> list[dict[str, Any]]:
    """Counts the rows of each language and split, and those whose prompt or target `encode_row` shortens.

    Raises: UserError if a template alone is longer than the limit.
    """
    table = []
    for language, splits in rows.items():
        for split, items in splits.items():
            sizes = zip(lengths["prompt"][language][split], lengths["target"][language][split], strict=True)
            long = [row for row, (a, b) in zip(items, sizes, strict=True) if a > limits[0] or b > limits[1]]
            encoded = [encode_row(row, tokenizer, *limits) for row in long]
            table.append(
                {
                    "language": language,
                    "split": split,
                    "rows": len(items),
                    "prompts cut": sum(e.prompt_cut for e in encoded),
                    "targets cut": sum(e.target_cut for e in encoded),
                }
            )
    return table


def shared_groups(rows: Rows) -> SharedGroups:
    """Counts the groups of all members together, in each split and in two splits at once."""
    groups = {split: _groups(row for splits in rows.values() for row in splits[split]) for split in SPLITS}
    return {
        "count": {split: len(names) for split, names in groups.items()},
        "shared": {f"{a} and {b}": len(groups[a] & groups[b]) for a, b in combinations(SPLITS, 2)},
    }


def leakage(splits: dict[str, list[Row]]) -> dict[str, int]:
    """Counts duplicates within train, and test rows whose target, prompt and target, or group occur in train."""
    pairs = [(row.prompt, row.target) for row in splits["train"]]
    targets, groups = {row.target for row in splits["train"]}, _groups(splits["train"])
    seen = set(pairs)
    return {
        "duplicates in train": len(pairs) - len(seen),
        "test pairs in train": sum((row.prompt, row.target) in seen for row in splits["test"]),
        "test targets in train": sum(row.target in targets for row in splits["test"]),
        "test groups in train": sum(row.group in groups for row in splits["test"]),
    }


def _groups(rows: Iterable[Row]) -> set[str]:
    return {row.group for row in rows if row.group}


def _each(rows: Rows, measure) -> dict[str, dict[str, list[int]]]:
    return {language: {split: measure(items) for split, items in splits.items()} for language, splits in rows.items()}


def _tokens(tokenizer, texts: list[str], special: bool) -> list[int]:
    if not texts:
        return []
    first = len(start_tokens(tokenizer)) if special else 0
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [first + len(ids) for ids in encoded]

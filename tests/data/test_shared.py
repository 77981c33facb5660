"""The real data sets on this machine, where there are some: counts, and that nothing of them is lost."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from studykit.data import prepare as data_prepare
from studykit.data import splits as data_splits
from tests.data.published import params, prepare, refused

DATA = Path(os.environ.get("STUDYKIT_SHARED", Path(__file__).parents[3] / "shared")) / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no shared data on this machine")
COMMITS = {"python": 672, "java": 394, "rust": 172, "ruby": 107, "go": 56, "julia": 32}
PAIRS = {"train": 1434, "valid": 88, "test": 174}
MANY = {"source_examples": 9999, "target_examples": 9999, "valid_examples": 9999, "test_examples": 9999}
SIX = {"members": list(COMMITS), "target": "julia"}


def test_commits_are_all_used():
    rows, manifest = prepare(DATA / "commitpackft", task="commit", split_by="row", **SIX, **MANY)
    assert {x: sum(map(len, splits.values())) for x, splits in rows.items()} == COMMITS
    assert manifest["licences"] == {"mit": sum(COMMITS.values())} and manifest["counts"]["refused"] == 0
    assert "set data.split_by to 'file' or 'row'" in refused(DATA / "commitpackft", task="commit", **SIX)


def test_files_of_commits_are_not_torn_apart():
    rows, _ = prepare(DATA / "commitpackft", task="commit", split_by="file", **SIX, **MANY)
    of = {split: {r.group for x in rows for r in rows[x][split]} for split in data_splits.SPLITS}
    assert not of["train"] & of["test"] and not of["train"] & of["valid"] and not of["valid"] & of["test"]


def test_pairs_are_all_used_in_their_splits():
    rows, manifest = prepare(DATA / "nichetrans", **SIX, **MANY)
    assert {split: sum(len(rows[x][split]) for x in rows) for split in data_splits.SPLITS} == PAIRS
    assert manifest["counts"]["read"] == sum(PAIRS.values())
    groups = {split: {r.group for x in rows for r in rows[x][split]} for split in data_splits.SPLITS}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["valid"]


@cache
def problems(task):
    languages = ["python", "java", "rust", "javascript", "go"]
    return data_prepare.prepare(params(DATA / "humaneval-x", task=task, members=languages, **MANY | {"target": "go"}))[
        0
    ]


@pytest.mark.parametrize("task", ["generation", "translation"])
def test_all_problems_stand_in_one_split_of_all_languages(task):
    rows = problems(task)
    for split in data_splits.SPLITS:
        assert len({frozenset(r.group for r in rows[x][split]) for x in rows}) == 1
    assert sum(len({r.group for r in rows["go"][split]}) for split in data_splits.SPLITS) == 164


def test_no_solution_holds_what_stops_a_completion():
    stopped = [r.id for splits in problems("generation").values() for items in splits.values() for r in items
               if any(stop in r.target for stop in r.stop)]  # fmt: skip
    assert stopped == []


def test_a_prompt_keeps_its_signature_when_it_is_cut():
    for row in (r for splits in problems("generation").values() for items in splits.values() for r in items):
        start, end = row.body
        assert start == end or row.prompt[start - 1] == row.prompt[end - 1] == "\n"
        signature = [line for line in row.prompt.split("\n") if line.rstrip().endswith("{")]
        assert all(line not in row.prompt[start:end] for line in signature[-1:])

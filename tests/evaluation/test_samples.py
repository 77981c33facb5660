"""Samples: they come back as they were written, nothing is lost in a count, and messages keep what is common."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from studykit.data.checks import FunctionCheck
from studykit.data.rows import Row
from studykit.evaluation import samples
from studykit.evaluation.samples import ReferenceLoss, Sample
from studykit.evaluation.scoring import ProgramEnd

NASTY = "a\u2028b\x85c\u0000\r\n<b>\ud7ff"


def sample(i: int, status: str | None = "passed", prediction: str = "x", **fields) -> Sample:
    usual = {"id": f"r{i}", "prompt": "p", "reference": "x", "prediction": prediction, "sample": 0, "finished": True,
             "prompt_cut": False, "nats": 1.0 + i, "tokens": 2 + i, "status": status, "stderr": ""}  # fmt: skip
    return Sample(**{**usual, **fields})


def test_any_text_comes_back(tmp_path):
    check = FunctionCheck("solve", [])
    rows = [Row("a", "go", NASTY, "t"), Row("b", "go", "p", NASTY), Row("c", "go", "p", "t", check=check)]
    predictions = [{"text": NASTY, "sample": 0, "finished": False, "prompt_cut": True}] * 3
    (tmp_path / "samples").mkdir()
    ends = [ProgramEnd("c", "error", 0.1, NASTY)]
    samples.write_samples(tmp_path / "samples/s0.jsonl", rows, predictions, [ReferenceLoss(1.0, 2)] * 3, ends)
    back = samples.read_samples(tmp_path, SimpleNamespace(file_stem="s0"))
    assert [s.prediction for s in back] == [NASTY] * 3 and back[0].prompt == back[1].reference == NASTY
    assert [s.status for s in back] == [None, None, "error"]  # only rows with a check were run
    assert back[2].stderr == NASTY


def test_endings_count_every_sample_once_and_add_what_is_beside():
    rows = [sample(0), sample(1, "failed"), sample(2, "error", " \n"),
            sample(3, "timeout", finished=False, prompt_cut=True)]  # fmt: skip
    endings = samples.count_endings(rows)
    assert sum(endings[status] for status in samples.STATUSES) == len(rows)
    assert (endings["empty"], endings["cut off"], endings["prompt cut"]) == (1, 1, 1)
    assert list(samples.count_endings([sample(0, None)])) == ["empty", "cut off", "prompt cut"]


@pytest.mark.parametrize("stderr, message", [
    ("lua5.4: program.lua:15: candidate:3: '<eof>' expected near 'end'\nstack traceback:\n\t[C]: in ?",
     "'…' expected near '…'"),
    ('Traceback (most recent call last):\n  File "program.py", line 7\n    x = = 1\nSyntaxError: invalid syntax',
     "SyntaxError: invalid syntax"),
    ("", "(no message)"),
])  # fmt: skip
def test_messages_lose_what_differs(stderr, message):
    assert samples.error_message(stderr) == message


def test_frequent_messages_come_first():
    rows = [sample(i, "error", stderr=f"a:{i}: attempt to add {i}") for i in range(3)]
    rows += [sample(9, "error", stderr="a:1: 'x' expected"), sample(10)]
    assert samples.frequent_errors(rows) == [("attempt to add N", 3, "r0"), ("'…' expected", 1, "r9")]


def test_bins_by_length_hold_every_row_and_their_means_are_those_of_all():
    seeds = [[sample(i, "passed" if (i + s) % 3 else "failed") for i in range(10)] for s in range(2)]
    bins = samples.bin_by_length(seeds)
    assert [one.rows for one in bins] == [4, 3, 3]
    right = sum(one.rows * one.right for one in bins) / 10
    assert right == pytest.approx(100 * sum(s.status == "passed" for rows in seeds for s in rows) / 20)
    assert (bins[0].shortest, bins[0].longest) == (2, 5)
    assert samples.bin_by_length([[sample(0, tokens=None)]]) == []


def test_examples_of_what_is_wrong_differ_in_kind():
    rows = [sample(0, "error"), sample(1, "error"), sample(2, "failed"), sample(3, "passed", "y"),
            sample(4, "error", "")]  # fmt: skip
    titles = [list(block)[-1] for block in samples.choose_examples(rows, right=False, most=4)]
    assert titles == ["prediction: error", "prediction: failed", "prediction: empty", "prediction: error"]
    blocks = samples.choose_examples(rows, right=True)
    assert list(blocks[0])[-1] == "prediction: passed, written differently"
    assert sample(0, None).is_right and not sample(0, None, "y").is_right

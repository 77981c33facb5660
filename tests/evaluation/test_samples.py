"""Outcomes: rows come back as they were written, nothing is lost in a count, and messages say what is common."""

from __future__ import annotations

import pytest

from studykit.data.checks import FunctionCheck
from studykit.data.rows import Row
from studykit.evaluation import samples

NASTY = "a\u2028b\x85c\u0000\r\n<b>\ud7ff"


def row(i: int, status: str | None = "passed", prediction: str = "x", **given) -> dict:
    usual = {"id": f"r{i}", "prompt": "p", "reference": "x", "prediction": prediction, "finished": True,
             "prompt_cut": False, "nats": 1.0 + i, "tokens": 2 + i, "status": status, "stderr": ""}  # fmt: skip
    return {**usual, **given}


def test_any_text_comes_back(tmp_path):
    check = FunctionCheck("solve", [])
    rows = [Row("a", "go", NASTY, "t"), Row("b", "go", "p", NASTY), Row("c", "go", "p", "t", check=check)]
    predictions = [{"text": NASTY, "sample": 0, "finished": False, "prompt_cut": True}] * 3
    (tmp_path / "outcomes").mkdir()
    verdicts = [{"status": "error", "stderr": NASTY}]
    samples.write(tmp_path / "outcomes/s0.jsonl", rows, predictions, [(1.0, 2)] * 3, {"verdicts": verdicts})
    found = samples.read(tmp_path, {"file": "s0"})
    assert [r["prediction"] for r in found] == [NASTY] * 3 and found[0]["prompt"] == found[1]["reference"] == NASTY
    assert [r["status"] for r in found] == [None, None, "error"]  # only rows with a check were run
    assert found[2]["stderr"] == NASTY


def test_endings_count_every_row_once_and_add_what_is_beside():
    rows = [row(0), row(1, "failed"), row(2, "error", " \n"), row(3, "timeout", finished=False, prompt_cut=True)]
    found = samples.endings(rows)
    assert sum(found[status] for status in samples.STATUSES) == len(rows)
    assert (found["empty"], found["cut off"], found["prompt cut"]) == (1, 1, 1)
    assert list(samples.endings([row(0, None)])) == ["empty", "cut off", "prompt cut"]


@pytest.mark.parametrize("stderr, said", [
    ("lua5.4: program.lua:15: candidate:3: '<eof>' expected near 'end'\nstack traceback:\n\t[C]: in ?",
     "'…' expected near '…'"),
    ('Traceback (most recent call last):\n  File "program.py", line 7\n    x = = 1\nSyntaxError: invalid syntax',
     "SyntaxError: invalid syntax"),
    ("", "(no message)"),
])  # fmt: skip
def test_messages_lose_what_differs(stderr, said):
    assert samples.message(stderr) == said


def test_frequent_messages_come_first():
    rows = [row(i, "error", stderr=f"a:{i}: attempt to add {i}") for i in range(3)]
    rows += [row(9, "error", stderr="a:1: 'x' expected"), row(10)]
    expected = [("attempt to add N", 3, "r0"), ("'…' expected", 1, "r9")]
    assert [(m["error"], m["rows"], m["for example"]) for m in samples.messages(rows)] == expected


def test_parts_by_length_hold_every_row_and_their_means_are_those_of_all():
    seeds = [[row(i, "passed" if (i + s) % 3 else "failed") for i in range(10)] for s in range(2)]
    parts = samples.by_length(seeds)
    assert [part["rows"] for part in parts] == [4, 3, 3]
    right = sum(part["rows"] * part["right (%)"] for part in parts) / 10
    assert right == pytest.approx(100 * sum(r["status"] == "passed" for rows in seeds for r in rows) / 20, abs=0.1)
    assert parts[0]["tokens of the reference"] == "2 to 5"


def test_examples_of_what_is_wrong_differ_in_kind():
    rows = [row(0, "error"), row(1, "error"), row(2, "failed"), row(3, "passed", "y"), row(4, "error", "")]
    titles = [list(block)[-1] for block in samples.examples(rows, right=False, most=4)]
    assert titles == ["prediction: error", "prediction: failed", "prediction: empty", "prediction: error"]
    assert list(samples.examples(rows, right=True)[0])[-1] == "prediction: passed, written otherwise"
    assert samples.is_right(row(0, None)) and not samples.is_right(row(0, None, "y"))

"""Rows from files: the direction of NicheTrans pairs, what a malformed row is told, prepared rows as they are."""

from __future__ import annotations

import json

import pytest

from studykit import tasks
from studykit.params import UserError, check
from studykit.tasks.real import json_lines, nichetrans_pairs, sample


def params(path, **values):
    given = {"task": "translation", "languages": ["go", "julia"], "target": "julia", "path": str(path)}
    return check("data", given | values)


def write(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")
    return file


def niche(directory, **rows):
    for split in tasks.SPLITS:
        write(directory / f"niche_{split}.json", *rows.get(split, PAIRS[split]))
    return directory


PAIRS = {
    "train": [{"id": 1, "name": "abs", "Go": "func abs", "Julia": "abs()"},
              {"id": 1, "name": "abs", "Julia": "abs()", "Go": "func abs"}],
    "valid": [{"id": 2, "name": "max", "Go": "func max", "Julia": "max()"},
              {"id": 2, "name": "max", "Julia": "max()", "Go": "func max"}],
    "test": [{"id": 3, "name": "min", "Go": "func min", "Julia": "min(\u2028)"},
             {"id": 3, "name": "min", "Julia": "min()", "Go": "func min"},
             {"id": 3, "name": "min", "Ada": "min;", "Go": "func min"}],
}  # fmt: skip


def test_the_order_of_the_keys_is_the_direction(tmp_path):
    there, back = nichetrans_pairs(write(tmp_path / "x.json", *PAIRS["train"]))
    assert (there["source_language"], there["language"], there["code"], there["target"]) == (
        "go", "julia", "func abs", "abs()")  # fmt: skip
    assert (back["source_language"], back["language"], back["code"], back["target"]) == (
        "julia", "go", "abs()", "func abs")  # fmt: skip
    assert there["id"] != back["id"]


def test_pairs_become_rows_of_the_language_that_is_written(tmp_path):
    rows = tasks.prepare(params(niche(tmp_path)))
    assert {x: [len(rows[x][s]) for s in tasks.SPLITS] for x in rows} == {"go": [1, 1, 1], "julia": [1, 1, 1]}
    row = rows["julia"]["test"][0]
    assert row["prompt"] == "### Code written in Go:\nfunc min\n### Code written in Julia:\n"
    assert row["target"] == "min(\u2028)" and row["meta"]["group"] == "min" and row["check"] is None
    start, end = row["meta"]["body"]
    assert row["prompt"][start:end] == "func min"


@pytest.mark.parametrize("row, said", [
    ({"id": 1, "name": "x", "Go": "a"}, "has id, name and two language keys, not ['id', 'name', 'Go']"),
    ({"id": 1, "name": "x", "Go": "a", "Ada": "b", "Lua": "c"}, "two language keys"),
    ({"name": "x", "Go": "a", "Ada": "b"}, "two language keys"),
    ({"id": 1, "name": "x", "Go": " ", "Ada": "b"}, "the code in 'Go' or 'Ada' is empty or no text"),
    ({"id": 1, "name": "x", "Go": "a", "Ada": 3}, "the code in 'Go' or 'Ada' is empty or no text"),
    ("[1]", "an object is expected, not list"),
    ("{'id': 1}", "not valid JSON"),
])  # fmt: skip
def test_a_malformed_pair_is_named_by_file_and_line(tmp_path, row, said):
    file = write(tmp_path / "niche_train.json", PAIRS["train"][0], "", row)
    with pytest.raises(UserError) as error:
        list(nichetrans_pairs(file))
    assert str(error.value).startswith(f"{file}, line 3: ") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list(json_lines(tmp_path / "absent.json"))
    (tmp_path / "latin.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        list(json_lines(tmp_path / "latin.json"))


def test_pairs_serve_translation_only(tmp_path):
    with pytest.raises(UserError, match="serve task translation, not commit"):
        tasks.prepare(params(niche(tmp_path), task="commit"))


def test_a_language_without_rows(tmp_path):
    with pytest.raises(UserError, match="has no train rows for lua"):
        tasks.prepare(params(niche(tmp_path), languages=["go", "julia", "lua"], target="lua"))


def prepared(directory, languages=("go", "julia")):
    for language in languages:
        for split in tasks.SPLITS:
            rows = [{"prompt": f"{language} {split} {n}", "target": f"t{n}"} for n in range(9)]
            write(directory / language / f"{split}.jsonl", *rows)
    return directory


def test_prepared_rows_are_taken_as_they_are(tmp_path):
    own = {"meta": {"group": "g"}, "check": {"function": "f", "tests": []}}
    prepared(tmp_path)
    write(tmp_path / "julia/train.jsonl", {"id": 7, "prompt": "p", "target": "t", **own})
    rows = tasks.prepare(params(tmp_path, task="commit", target_examples=5, source_examples=4))
    assert rows["julia"]["train"] == [{"id": "7", "language": "julia", "prompt": "p", "target": "t",
                                       "meta": {"body": [0, 1], "group": "g"}, "check": own["check"]}]  # fmt: skip
    assert len(rows["go"]["train"]) == 4 and rows["go"]["test"][0]["id"] == "go-test-1"


@pytest.mark.parametrize("row", [{"prompt": "p"}, {"prompt": "p", "target": ""}, {"prompt": "p", "target": 3}])
def test_a_malformed_prepared_row(tmp_path, row):
    write(prepared(tmp_path) / "julia/valid.jsonl", {"prompt": "p", "target": "t"}, row)
    with pytest.raises(UserError, match=r"julia/valid.jsonl, line 2: 'target' is missing or empty"):
        tasks.prepare(params(tmp_path, task="commit"))


def test_a_missing_split_is_named(tmp_path):
    (prepared(tmp_path) / "go/test.jsonl").unlink()
    with pytest.raises(UserError, match=r"go/test.jsonl does not exist"):
        tasks.prepare(params(tmp_path, task="commit"))


@pytest.mark.parametrize("n", [0, 1, 5, 9, 20])
def test_a_sample_keeps_order_and_repeats_itself(n):
    rows = [{"n": i} for i in range(9)]
    drawn = sample(rows, n, seed=3)
    assert len(drawn) == min(n, 9) and drawn == sorted(drawn, key=lambda row: row["n"]) == sample(rows, n, seed=3)
    assert all(row in rows for row in drawn)


def test_what_was_read_is_known_by_its_files(tmp_path):
    assert [f.name for f in tasks.files_read(params(niche(tmp_path / "n")))] == [
        f"niche_{s}.json" for s in tasks.SPLITS
    ]
    files = tasks.files_read(params(prepared(tmp_path / "p"), task="commit"))
    assert len(files) == 6 and all(file.is_file() for file in files)
    assert tasks.files_read(check("data", {"languages": ["lua"], "target": "lua"})) == []

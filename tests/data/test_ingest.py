"""Ingestion: malformed rows are named and counted, bad rows are tolerated up to a number, every row is accounted for."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studykit.data.ingest import sample
from studykit.data.prepare import prepare as data_prepare
from studykit.data.splits import SPLITS
from studykit.errors import UserError
from studykit.runs import code_digest
from studykit.study.parameters import check
from tests.data.published import (
    codexglue,
    commit,
    commits,
    ct,
    humaneval,
    humaneval_x,
    humaneval_xs,
    multipl_e,
    niche,
    nichetrans,
    params,
    prepare,
    problem,
    program,
    refused,
    write,
    xcodeeval,
)

GO = {"members": ["go"], "target": "go"}
COMMIT, GENERATION = GO | {"task": "commit"}, GO | {"task": "generation"}
PYTHON = {"members": ["python"], "target": "python", "task": "generation"}
SUMMARY, NAMING = PYTHON | {"task": "summarization"}, PYTHON | {"task": "naming"}


def without(row: dict, key: str) -> dict:
    return {name: value for name, value in row.items() if name != key}


# A good first row, the bad second one, the parameters, and what is said of line 2.
MALFORMED = [
    (commit(0), "{'id': 1}", COMMIT, "not valid JSON (Expecting property name enclosed in double quotes, column 2)"),
    (commit(0), "[1]", COMMIT, "an object is expected, not list"),
    (commit(0), '{"a": "\\ud800"}', COMMIT, "half of a surrogate pair, which is not text"),
    (commit(0), without(commit(1), "subject"), COMMIT, "the field 'subject' is missing or not text"),
    (commit(0), commit(1, subject=" \n"), COMMIT, "the field 'subject' is empty"),
    (commit(0), commit(1, subject=7), COMMIT, "the field 'subject' is missing or not text (it is int)"),
    (commit(0), commit(1, old_contents=None), COMMIT, "'old_contents' is missing or not text (it is NoneType)"),
    (commit(0), commit(1, new_contents=commit(1)["old_contents"]), COMMIT, "'old_contents' and 'new_contents' are the"),
    (commit(0), commit(0), COMMIT, "an id that was used before (Go0000, first in "),
    (commit(0), commit(1, "Ruby"), COMMIT, "a row of another language in a file of go (Ruby)"),
    (commit(0), commit(1, repos=""), COMMIT, "the field 'repos' is empty"),
    (commit(0), without(commit(1), "lang"), COMMIT, "the field 'lang' is missing or not text"),
    (ct(0, "Ada", "Go"), ct(1, "Ada", "Go", target_content=""), {}, "the field 'target_content' is empty"),
    (ct(0, "Ada", "Go"), without(ct(1, "Ada", "Go"), "id"), {}, "the field 'id' is missing"),
    (humaneval(0), humaneval(1) | {"task_id": "one"}, PYTHON, "'task_id' is not of the form name/number (one)"),
    (humaneval(0), without(humaneval(1), "prompt"), PYTHON, "the field 'prompt' is missing or not text"),
    (humaneval_x("Go", 0), humaneval_x("Python", 1), GENERATION, "a row of another language in a file of go (Python)"),
    (humaneval_x("Go", 0), humaneval_x("Go", 1) | {"canonical_solution": ""}, GENERATION, "_solution' is empty"),
    (humaneval_x("Go", 0), humaneval_x("Go", 0), GENERATION, "an id that was used before (Go/0, first in "),
    (codexglue(0), codexglue(1, docstring=""), SUMMARY, "the docstring is empty"),
    (codexglue(0), codexglue(1, code=" "), NAMING, "the field 'code' is empty"),
    (codexglue(0), codexglue(1, language="java"), SUMMARY, "a row of another language in a file of python (java)"),
    (codexglue(0), without(codexglue(1), "repo"), SUMMARY, "the field 'repo' is missing or not text"),
    ({"prompt": "p", "target": "t"}, {"prompt": "p"}, COMMIT, "the field 'target' is missing or not text"),
    ({"prompt": "p", "target": "t"}, {"prompt": "p", "target": ""}, COMMIT, "the field 'target' is empty"),
    ({"prompt": "p", "target": "t"}, {"prompt": "", "target": "t"}, COMMIT, "the field 'prompt' is empty"),
    ({"id": 1, "prompt": "p", "target": "t"}, {"id": 1, "prompt": "q", "target": "t"}, COMMIT, "an id that was used"),
]  # fmt: skip


@pytest.mark.parametrize("good, bad, asked, said", MALFORMED)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path, good, bad, asked, said):
    language = asked.get("target", "go")
    file = write(tmp_path / language / "train.jsonl", good, bad)
    sentence = refused(tmp_path, **asked)
    assert sentence.startswith(f"{file}, line 2: ") and said in sentence and len(sentence) < 400


@pytest.mark.parametrize("row, said", [
    ({"id": 1, "name": "x", "Go": "a"}, "has id, name and two language keys, not ['id', 'name', 'Go']"),
    ({"id": 1, "name": "x", "Go": "a", "Ada": "b", "Lua": "c"}, "two language keys"),
    ({"name": "x", "Go": "a", "Ada": "b"}, "two language keys"),
    ({"id": 1, "name": "x", "Go": " ", "Julia": "b"}, "the field 'Go' is empty"),
    ({"id": 1, "name": "x", "Go": "a", "Julia": 3}, "the field 'Julia' is missing or not text (it is int)"),
    (niche(0, "train", "Go", "Julia"), "an id that was used before (0-go-julia, first in "),
])  # fmt: skip
def test_a_malformed_pair_is_named_by_file_and_line(tmp_path, row, said):
    nichetrans(tmp_path, train=[niche(0, "train", "Go", "Julia"), "", row])
    sentence = refused(tmp_path)
    assert sentence.startswith(f"{tmp_path}/niche_train.json, line 3: ") and said in sentence


@pytest.mark.parametrize("train, test, said", [
    ([program(0, "nowhere")], None, "000.jsonl, line 1: no problem of its src_uid in problem_descriptions.jsonl (n"),
    ([program(0, "p0"), program(0, "p1")], None, "line 2: an id that was used before (code0, first in "),
    ([without(program(0, "p0"), "exec_outcome")], None, "the field 'exec_outcome' is missing or not text"),
    ([program(0, "p0", source_code="")], None, "the field 'source_code' is empty"),
    (None, [problem("nowhere")], "test.jsonl, line 1: no unit tests of its src_uid in unittest_db.json (nowhere)"),
    (None, [problem("t0", description="")], "the field 'description' is empty"),
    (None, [problem("t0", sample_inputs="1")], "'sample_inputs' and 'sample_outputs' are not lists of as many texts"),
    (None, [problem("t0", sample_inputs=[])], "'sample_inputs' and 'sample_outputs' are not lists of as many texts"),
    (None, [problem("t0", time_limit="0 seconds")], "'time_limit' is not a number of seconds (0 seconds)"),
    (None, [problem("t0", memory_limit="1 gigabyte")], "'memory_limit' is not a number of megabytes (1 gigabyte)"),
])  # fmt: skip
def test_malformed_rows_of_xcodeeval(tmp_path, train, test, said):
    assert said in refused(xcodeeval(tmp_path, train, test), **GENERATION)


@pytest.mark.parametrize("name", ["problem_descriptions.jsonl", "unittest_db.json"])
def test_a_linked_file_that_is_missing(tmp_path, name):
    (xcodeeval(tmp_path) / name).unlink()
    assert f"has no {name} in or above it; xCodeEval's rows refer to it by src_uid" in refused(tmp_path, **GENERATION)


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100000])
def test_unit_tests_that_are_no_object(tmp_path, content):
    (xcodeeval(tmp_path) / "unittest_db.json").write_text(content)
    assert "it must hold one object" in refused(tmp_path, **GENERATION)


@pytest.mark.parametrize("row", [{"stop_tokens": None}, {"stop_tokens": [""]}, {"name": "strange"}, {"tests": ""}])
def test_malformed_rows_of_multipl_e(tmp_path, row):
    write(tmp_path / "m/humaneval-go/test.jsonl", multipl_e(0, "go") | row)
    said = refused(humaneval_xs(tmp_path / "x"), test_path=str(tmp_path / "m"), **GENERATION)
    assert f"m/humaneval-go/test.jsonl, line 1: the field {next(iter(row))!r}" in said


def test_what_is_asked_of_data_that_does_not_serve_it(tmp_path):
    assert "holds nichetrans rows, which serve the task translation, not commit" in refused(
        nichetrans(tmp_path / "n"), **COMMIT
    )
    assert "has no rows to train on for lua; 3 rows were skipped (a pair" in refused(
        nichetrans(tmp_path / "n", valid=[], train=[niche(n, "x", "Go", "Ada") for n in range(3)], test=[]),
        members=["lua"], target="lua")  # fmt: skip
    assert "holds no file of rows" in refused(_folder(tmp_path / "e"))
    assert "has only files of other languages; the study's are go" in refused(
        write(tmp_path / "r/ruby/x.jsonl", commit(0)).parents[1], **COMMIT)  # fmt: skip
    assert "in fewer than two languages of the study; translation needs two" in refused(
        humaneval_xs(tmp_path / "h"), members=["go", "julia"])  # fmt: skip


def _folder(path):
    path.mkdir()
    return path


def test_an_unknown_layout_is_told_what_was_looked_for(tmp_path):
    write(tmp_path / "x.jsonl", {"content": "x", "repo": "r"})
    said = refused(tmp_path)
    assert "its first row has the fields ['content', 'repo']; looked for were the fields of xcodeeval: " in said
    assert all(name in said for name in ("commitpackft: ", "xcodeeval: ", "prepared: prompt, target", "data.format"))
    write(tmp_path / "x.jsonl", "{", {"content": "x"})
    assert "its first row has the fields ['content']" in refused(tmp_path, bad_rows=1)
    write(tmp_path / "x.jsonl", "{")
    assert "x.jsonl, line 1: not valid JSON" in refused(tmp_path)
    write(tmp_path / "x.jsonl")
    assert "holds no row; a file with rows is needed" in refused(tmp_path)


@pytest.mark.parametrize("values, said", [
    ({"test_path": "x"}, "test_path is 'x', without a path to train on"),
    ({"shares": [0.5, 0.5]}, "it must be three numbers with the sum 1"),
    ({"shares": [0.9, 0.2, -0.1]}, "it must be three numbers"),
    ({"shares": [0.5, 0, 0.5]}, "of which only the last, the test's, may be 0"),
    ({"near_duplicates": 0}, "near_duplicates is 0; it must be greater than 0"),
    ({"bad_rows": -1}, "bad_rows is -1; it must be at least 0"),
    ({"format": "parquet"}, "format is 'parquet'; it must be one of 'auto', 'commitpackft'"),
    ({"split_by": "author"}, "split_by is 'author'; it must be one of 'repository', 'file' or 'row'"),
])  # fmt: skip
def test_parameters_that_cannot_be(values, said):
    with pytest.raises(UserError) as error:
        check("data", values)
    assert said in str(error.value)


def test_bad_rows_are_tolerated_up_to_a_number_and_never_silently(tmp_path):
    commits(tmp_path)
    with (tmp_path / "go/data.jsonl").open("a") as file:
        file.write("{\n" + json.dumps(commit(900, subject="")) + "\n" + json.dumps(commit(901, subject="")) + "\n")
    assert "go/data.jsonl, line 41: not valid JSON" in refused(tmp_path, task="commit")
    said = refused(tmp_path, task="commit", bad_rows=2)
    assert "line 43: the field 'subject' is empty. This is bad row 3; data.bad_rows tolerates 2." in said
    rows, manifest = prepare(tmp_path, task="commit", bad_rows=3)
    assert manifest["counts"]["refused"] == 3 and manifest["counts"]["read"] == 83
    assert manifest["rejects"]["refused"] == [
        {"reason": "the field 'subject' is empty", "rows": 2, "for example": f"{tmp_path}/go/data.jsonl, line 42"},
        {"reason": "not valid JSON", "rows": 1, "for example": f"{tmp_path}/go/data.jsonl, line 41"}]  # fmt: skip
    (tmp_path / "go/data.jsonl").write_text("{\n" + json.dumps(commit(1)) + "\n")
    assert "belong to 1 repository" in refused(tmp_path, task="commit", bad_rows=1), "the first row may be a bad one"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(["good", "good", "good", "bad", "other", "twin"]), min_size=40, max_size=60),
       near=st.sampled_from([None, 0.9]), asked=st.integers(1, 40), data=st.data())  # fmt: skip
def test_every_row_is_accounted_for(tmp_path, kinds, near, asked, data):
    made = {"good": lambda n: commit(n, file=f"f{n}", repos=f"r/{n}", old_contents=f"{n} " * 9),
            "bad": lambda n: commit(n, subject=""), "other": lambda n: commit(n, "Ruby"),
            "twin": lambda n: commit(n, repos=f"r/{n}", subject="Same words again and again", old_contents="a\n",
                                     new_contents="b\n")}  # fmt: skip
    kinds = ["good"] * 30 + kinds
    write(tmp_path / "x.jsonl", *(made[kind](n) for n, kind in enumerate(kinds)))
    values = COMMIT | {"bad_rows": 99, "near_duplicates": near, "target_examples": asked, "valid_examples": asked,
                       "shares": [0.5, 0.25, 0.25]}  # fmt: skip
    rows, manifest = prepare(tmp_path, **values)
    counts = manifest["counts"]
    assert counts["read"] == len(kinds) == counts["refused"] + counts["skipped"] + counts["used"]
    assert counts["made"] == counts["dropped"] + counts["kept"]
    assert counts["refused"] == kinds.count("bad") and counts["skipped"] == kinds.count("other")
    assert counts["kept"] == sum(map(sum, (c.values() for c in manifest["splits"].values())))
    assert counts["kept"] == sum(len(rows["go"][split]) for split in SPLITS)
    for kind in ("refused", "skipped", "dropped"):
        assert sum(entry["rows"] for entry in manifest["rejects"][kind]) == counts[kind]
    assert json.loads(json.dumps(manifest)) == manifest


def test_near_duplicates_leave_the_training_alone(tmp_path):
    same = {"old_contents": "a b c d e f\n", "new_contents": "a b c d e g\n", "subject": "Mend what was broken before"}
    made = [commit(n, "Go", f"r/{n}", "f", **(same if n % 2 else {"old_contents": f"{n}\n"})) for n in range(80)]
    write(tmp_path / "go/data.jsonl", *made)
    whole, _ = prepare(tmp_path, **COMMIT)
    fewer, manifest = prepare(tmp_path, near_duplicates=0.9, **COMMIT)
    assert fewer["go"]["test"] == whole["go"]["test"]
    assert not any(row.target == same["subject"] for row in fewer["go"]["train"])
    assert {e["reason"] for e in manifest["rejects"]["dropped"]} == {"a train row nearly like a test row",
                                                           "a valid row nearly like a test row"}  # fmt: skip


def test_the_manifest_knows_files_and_licences(tmp_path):
    commits(tmp_path)
    write(tmp_path / "go/more.jsonl", *(commit(500 + n, repos=f"r/{n}", license="apache-2.0") for n in range(3)))
    _, manifest = prepare(tmp_path, task="commit")
    assert manifest["licences"] == {"mit": 80, "apache-2.0": 3}
    (origin,) = manifest["sources"]
    assert origin["revision"] is None and [f["file"] for f in origin["files"]] == [
        f"{tmp_path}/{name}" for name in ("go/data.jsonl", "go/more.jsonl", "julia/data.jsonl")]  # fmt: skip
    assert origin["files"][0]["bytes"] == (tmp_path / "go/data.jsonl").stat().st_size


def test_equal_parameters_make_equal_rows_and_the_seed_matters(tmp_path):
    commits(tmp_path)
    assert prepare(tmp_path, task="commit") == prepare(tmp_path, task="commit")
    assert prepare(tmp_path, task="commit")[0] != prepare(tmp_path, task="commit", seed=1)[0]


@pytest.mark.parametrize("n", [0, 1, 5, 9, 20])
def test_a_sample_keeps_order_and_repeats_itself(n):
    rows = [{"n": i} for i in range(9)]
    drawn = sample(rows, n, seed=3)
    assert len(drawn) == min(n, 9) and drawn == sorted(drawn, key=lambda row: row["n"]) == sample(rows, n, seed=3)
    assert all(row in rows for row in drawn)


def test_parameters_without_effect_split_no_equal_runs():
    from studykit.study import run_names

    values = params("x").model_dump()
    assert run_names.reset_unused("data", values | {"diff_context": 9})["diff_context"] == 3


@pytest.mark.parametrize("make, values", [
    (commits, {"task": "commit"}), (nichetrans, {}), (xcodeeval, GENERATION), (humaneval_xs, GENERATION),
])  # fmt: skip
def test_a_run_depends_on_exactly_the_files_that_it_reads(tmp_path, make, values):
    path, test_path = make(tmp_path / "path"), tmp_path / "test"
    write(path / "scala/data.jsonl", commit(1, "Scala"))
    write(path / "notes.txt", "not rows")
    for name in ("go.jsonl", "test/go.jsonl"):  # of which only the test is read
        write(test_path / name, {"prompt": "p", "target": "t"})
    p = params(path, **values | ({"test_path": str(test_path)} if values == GENERATION else {}))
    _, manifest = data_prepare(p)
    files = [file["file"] for source in manifest.sources for file in source["files"]]
    files += [file["file"] for file in manifest.linked]
    assert sorted(files) == sorted(map(str, code_digest.data_files("data", p.model_dump())))


def test_a_base_depends_on_the_corpus_files_of_its_languages(tmp_path):
    for name in ("go.jsonl", "cpp.jsonl", "perl.jsonl", "README.md"):
        write(tmp_path / name, {"content": "x"})
    values = {"base": "scratch", "corpus": str(tmp_path), "languages": ["c++", "go"]}
    read = [file.name for file in code_digest.data_files("base_model", values)]
    assert read == ["cpp.jsonl", "go.jsonl"]


def test_an_evaluation_depends_on_its_judge_and_its_model_of_embeddings(tmp_path):
    (tmp_path / "judge.py").write_text("print()")
    for name in ("config.json", "model.safetensors", ".cache/lock"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text("x")
    values = {"judge": "python judge.py --strict", "embedding": "model"}
    read = [file.relative_to(tmp_path).as_posix() for file in code_digest.data_files("evaluate", values, tmp_path)]
    assert read == ["judge.py", "model/config.json", "model/model.safetensors"]
    packaged = {"judge": None, "embedding": "a_package"}
    assert code_digest.data_files("evaluate", packaged, tmp_path) == []

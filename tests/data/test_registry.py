"""Every data set in its published form: what becomes of its rows, and that no answer leaks into a question."""

from __future__ import annotations

import pytest

from studykit.data import splits as data_splits
from studykit.data.checks import BenchmarkCheck, Call, FunctionCheck, StdioCheck, StdioTest
from studykit.data.readers import codesearchnet as readers_codesearchnet
from studykit.data.readers import humaneval as readers_humaneval
from studykit.data.readers.registry import FORMATS
from studykit.data.rejects import NotRequested
from studykit.data.rows import Row
from studykit.study.data_files import language_and_split
from tests.data.published import (
    codesearchnet,
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
    prepare,
    problem,
    program,
    refused,
    write,
    xcodeeval,
)

FULL = {"shares": [0.6, 0.2, 0.2]}


def only(path, language, split, **values):
    rows, manifest = prepare(path, **values)
    return rows[language][split], manifest


def body(row) -> str:
    return row.prompt[slice(*row.body)]


def groups(rows, split):
    return {x: {row.group for row in rows[x][split]} for x in rows}


def split_rows(directory, make, languages, name="{}/{}.jsonl"):
    """Files of three splits per language, as data sets that have splits are laid out."""
    for language in languages:
        for number, split in enumerate(data_splits.SPLITS):
            write(directory / name.format(language, split), *(make(10 * number + i, language) for i in range(3)))
    return directory


@pytest.mark.parametrize("name", [
    "go.jsonl", "golang/x.jsonl", "Go/data.jsonl", "data/humaneval_go.jsonl.gz", "humaneval-go/test-0-of-1.parquet",
    "ct_bench_dataset_all_go.jsonl",
])  # fmt: skip
def test_the_language_of_a_file_is_a_word_of_its_name(name):
    assert language_and_split(name, ["go", "julia"])[0] == "go"


def test_the_name_of_a_file_says_language_and_split():
    assert language_and_split("mbpp-rb/test-00000-of-00001.parquet", ["ruby"]) == ("ruby", "test")
    assert language_and_split("c++/validation.jsonl", ["cpp"]) == ("cpp", "valid")
    assert language_and_split("program_synthesis/train/train_000.jsonl", ["go"]) == (None, "train")
    assert language_and_split("ruby/data_0_10.jsonl", ["go"]) == ("ruby", None)
    assert language_and_split("niche_test.json", ["go"]) == (None, "test")


@pytest.mark.parametrize("folder", [
    "objective-c", "objective-c++", "unified-parallel-c", "c2hs-haskell", "literate-haskell", "standard-ml", "common-lisp",
    "emacs-lisp",
])  # fmt: skip
def test_a_language_with_another_in_its_name_is_not_that_one(folder):
    members = ["c", "c++", "haskell", "ocaml", "lisp"]
    assert language_and_split(f"data/{folder}/data.jsonl", members)[0] == folder
    assert language_and_split(f"{folder}/data.jsonl", [folder])[0] == folder


def test_all_folders_of_commitpackft_may_lie_beside_those_of_a_study(tmp_path):
    commits(tmp_path, ["c++", "haskell", "python"])
    others = {
        "objective-c++": "Objective-C++",
        "c2hs-haskell": "C2hs Haskell",
        "ragel-in-ruby-host": "Ragel in Ruby Host",
    }
    for folder, name in others.items():
        write(tmp_path / folder / "data.jsonl", commit(1, name))
    for members in (["python", "c++"], ["python", "haskell"], ["haskell", "cpp"]):
        _, manifest = prepare(tmp_path, task="commit", members=members, target=members[-1], **FULL)
        assert manifest["counts"]["used"] == 80 and manifest["counts"]["refused"] == 0


def test_every_format_is_a_choice_of_the_parameter():
    from typing import get_args

    from studykit.study.fields import DataFormat

    assert {*FORMATS, "auto"} == set(get_args(DataFormat))


def test_commits(tmp_path):
    rows, manifest = prepare(commits(tmp_path), task="commit", diff_context=1, **FULL)
    row = rows["julia"]["test"][0]
    n = int(row.id.removeprefix("Julia"))
    assert body(row) == f"--- f{n}\n+++ f{n}\n@@ -1,3 +1,3 @@\n one\n-two {n}\n+2 {n}\n three"
    assert row.target == f"Count {n} in digits" and row.check is None
    assert row.group == f"r/{n}"
    assert manifest["format"] == ["commitpackft"] and manifest["licences"] == {"mit": 80}
    assert manifest["division"] == {"by": "repository", "shares": [0.6, 0.2, 0.2], "seed": 0}


def test_the_context_of_a_diff():
    old = "".join(f"{n}\n" for n in range(9))
    from studykit.data.diffs import unified_diff

    for context in (0, 1, 3, 99):
        said = unified_diff(old, old.replace("4", "x"), "a", "b", context).split("\n")[3:]
        assert said == [*(f" {n}" for n in range(max(0, 4 - context), 4)), "-4", "+x",
                        *(f" {n}" for n in range(5, min(9, 5 + context)))]  # fmt: skip
    assert unified_diff("", "a\x0cb\u2028c\n", "a", "b").endswith("+a\x0cb\u2028c")
    assert unified_diff("a\n", "a", "a", "b").endswith("-a\n+a\n\\ No newline at end of file")


@pytest.mark.parametrize("layout", ["{}/data.jsonl", "{}/data_0_10.jsonl", "data/{}/x.jsonl", "{}.jsonl"])
def test_layouts_of_commits(tmp_path, layout):
    for language in ("Go", "Julia"):
        made = [commit(n, language, f"r/{n}") for n in range(40)]
        write(tmp_path / layout.format(language.lower()), *made)
    rows, _ = prepare(tmp_path, task="commit")
    assert all(sum(map(len, splits.values())) == 40 for splits in rows.values())


def test_forks_and_renames_are_not_torn_apart(tmp_path):
    made = [commit(n, "Go", f"fork/{n}, r/{n // 4}") for n in range(120)]
    write(tmp_path / "go/data.jsonl", *made)
    rows, _ = prepare(tmp_path, task="commit", members=["go"], target="go", target_examples=500)
    assert all(len({r.group for r in rows["go"][s]} & {f"r/{n}" for n in range(30)}) == 0 for s in rows["go"])
    of = {row.id: split for split in data_splits.SPLITS for row in rows["go"][split]}
    assert all(len({of[f"Go{n:04d}"] for n in range(4 * k, 4 * k + 4)}) == 1 for k in range(30))
    renamed = [commit(n, "Go", "one/one", f"f{n}", old_file=f"f{n // 2}") for n in range(1, 60)]
    write(tmp_path / "go/data.jsonl", *renamed)
    assert "set data.split_by to 'file' or 'row'" in refused(tmp_path, task="commit", members=["go"], target="go")
    said = refused(tmp_path, task="commit", members=["go"], target="go", split_by="file")
    assert "belong to 1 file only" in said and said.endswith("set data.split_by to 'row'.")
    rows, _ = prepare(tmp_path, task="commit", members=["go"], target="go", split_by="row")
    assert sum(map(len, rows["go"].values())) == 59


def test_nichetrans_by_the_order_of_its_keys(tmp_path):
    odd = [niche(9, "o", "Ada", "Go"), niche(8, "p", "Go", "Julia")]
    rows, manifest = prepare(nichetrans(tmp_path, train=[*odd, niche(7, "q", "Julia", "Go")]))
    (row,) = rows["julia"]["train"]
    assert row.prompt == "### Code written in Go:\nGo p\n### Code written in Julia:\n" and row.target == "Julia p"
    assert (row.id, row.group, row.source_language) == ("8-go-julia", "p", "go")
    assert rows["go"]["train"][0].target == "Go q" and manifest["division"] is None
    assert manifest["counts"] == {
        "read": 7,
        "refused": 0,
        "skipped": 1,
        "used": 6,
        "made": 6,
        "dropped": 0,
        "kept": 6,
    }
    assert manifest["rejects"]["skipped"][0]["for example"].endswith("niche_train.json, line 1")


def test_converted_rows_make_the_rows_of_their_pairs(tmp_path):
    for n, split in enumerate(data_splits.SPLITS):
        for language, source, target in (("go", "Julia", "Go"), ("julia", "Go", "Julia")):
            contents = {"source_content": f"{source} {split}", "target_content": f"{target} {split}"}
            write(tmp_path / f"ct/{language}/{split}.jsonl", ct(n, source, target, **contents))
    a, _ = prepare(nichetrans(tmp_path / "n"))
    b, manifest = prepare(tmp_path / "ct")
    assert manifest["format"] == ["ct"]
    for x in a:
        for split in data_splits.SPLITS:
            assert [(r.prompt, r.target) for r in a[x][split]] == [(r.prompt, r.target) for r in b[x][split]]


def test_the_benchmark_of_converted_rows_appends_its_prompt(tmp_path):
    for language in ("go", "julia"):
        other = "Julia" if language == "go" else "Go"
        write(
            tmp_path / f"b/ct_bench_dataset_all_{language}.jsonl", ct(7, other, language.capitalize(), prompt="start(")
        )
    rows, _ = prepare(nichetrans(tmp_path / "n"), test_path=str(tmp_path / "b"))
    row = rows["go"]["test"][0]
    assert row.prompt.endswith("### Code written in Go:\nstart(") and body(row) == "Julia 7"
    assert rows["go"]["train"][0].target == "Go train"


def test_humaneval(tmp_path):
    write(tmp_path / "x.jsonl", *(humaneval(n) for n in range(60)))
    asked = {"task": "generation", "members": ["python"], "target": "python"}
    row, *_ = only(tmp_path, "python", "test", **asked)[0]
    n = int(row.id.split("/")[1])
    assert row.prompt == humaneval(n)["prompt"] and row.target == humaneval(n)["canonical_solution"]
    assert body(row) == "    Twice.\n"
    assert row.check.form == "humaneval"
    call = f"\ncheck({row.check.entry_point})"  # which the benchmark's harness adds
    program = row.check.before + row.target + row.check.after + call
    exec(program, {})
    with pytest.raises(AssertionError):
        exec(program.replace(f"a + {n}", "0 - a"), {})
    assert only(tmp_path, "python", "train", **asked)[0][0].check is None


def test_humaneval_x_asks_the_same_problems_of_every_language(tmp_path):
    languages = {"task": "generation", "members": ["python", "go", "rust"], "target": "rust"}
    rows, manifest = prepare(humaneval_xs(tmp_path), **languages)
    for split in data_splits.SPLITS:
        assert len({frozenset(found) for found in groups(rows, split).values()}) == 1
    row = {x: rows[x]["test"][0] for x in rows}
    n = int(row["go"].id.split("/")[1])
    assert {r.group for r in row.values()} == {f"HumanEval/{n}"}
    assert row["go"].prompt == humaneval_x("Go", n)["prompt"] and body(row["go"]) == "// Twice.\n"
    assert (
        row["rust"].prompt.endswith(f"use std::cmp;\n\nfn f{n}(a:i32) -> i32{{\n")
        and body(row["rust"]) == f" Add {n}.\n Twice.\n"
    )
    assert body(row["python"]) == f"    Twice.\n    >>> f{n}(1)\n"
    assert row["go"].check.before == "package main\n\n" + row["go"].prompt
    assert row["rust"].check.after == humaneval_x("Rust", n)["test"]
    assert row["python"].stop == readers_humaneval.STOPS["python"]
    exec(row["python"].check.before + row["python"].target + row["python"].check.after, {})
    assert manifest["division"]["by"] == "problem"


def test_a_test_that_is_commented_out_is_none():
    raw = humaneval_x("Rust", 0)
    assert readers_humaneval.humaneval_x_check(raw, "fn f() {").after == raw["test"]
    assert readers_humaneval.humaneval_x_check(raw | {"test": "/*\n#[test]\nfn t() {}\n*/"}, "fn f() {") is None


def test_humaneval_x_translates_solutions(tmp_path):
    rows, manifest = prepare(humaneval_xs(tmp_path), members=["python", "go"], target="go")
    row = rows["go"]["test"][0]
    n = int(row.group.split("/")[1])
    assert row.prompt == (
        f"### Code written in Python:\ndef f{n}(a: int) -> int:\n    return a + {n}\n"
        f'### Code written in Go:\nimport (\n    "math"\n)\n\nfunc f{n}(a int) int {{\n'
    )
    assert body(row) == f"def f{n}(a: int) -> int:\n    return a + {n}"
    assert row.target == f"    return a + {n}\n}}\n" and row.check.before.endswith(row.prompt[-9:])
    assert row.source_language == "python" and row.check.before.startswith("package main\n")
    for split in data_splits.SPLITS:
        assert len({frozenset(found) for found in groups(rows, split).values()}) == 1
    assert manifest["counts"]["used"] == manifest["counts"]["made"] == 120


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_the_published_layout_of_humaneval_x(tmp_path, suffix):
    for word in ("Python", "Go"):
        write(
            tmp_path / f"{word.lower()}/data/humaneval_{word.lower()}.{suffix}",
            *(humaneval_x(word, n) for n in range(60)),
        )
    rows, _ = prepare(tmp_path, task="generation", members=["python", "go"], target="go")
    assert len(rows["go"]["train"]) == len(rows["python"]["train"])


def test_multipl_e_is_a_test_alone_and_its_problems_are_not_trained_on(tmp_path):
    write(tmp_path / "m/humaneval-jl/test.jsonl", *(multipl_e(n) for n in range(9)))
    write(tmp_path / "m/humaneval-rs/test.jsonl", *(multipl_e(n, "rs") for n in range(9)))
    asked = {"task": "generation", "members": ["rust", "julia"], "target": "julia"}
    assert "have no solutions to train on; name it as data.test_path" in refused(tmp_path / "m", **asked)
    humaneval_xs(tmp_path / "x", 60)
    asked = {"task": "generation", "members": ["rust"], "target": "rust"}
    rows, manifest = prepare(tmp_path / "x", test_path=str(tmp_path / "m"), **asked)
    assert groups(rows, "test")["rust"] == {f"HumanEval/{n}" for n in range(9)}
    assert not groups(rows, "train")["rust"] & groups(rows, "test")["rust"]
    row = rows["rust"]["test"][0]
    assert row.target == "" and row.no_reference is True and row.stop == ("\nfunction", "\n\n#")
    assert row.prompt == multipl_e(0)["prompt"] and body(row) == "# Twice.\n"
    assert row.check == BenchmarkCheck("multipl-e", row.prompt, "@test f0(1) == 1\n")
    assert sum(e["rows"] for e in manifest["rejects"]["dropped"]) == 9 and manifest["format"] == [
        "humanevalx",
        "multipl_e",
    ]


def test_xcodeeval_is_joined_by_its_problems(tmp_path):
    asked = {"task": "generation", "members": ["c++", "go"], "target": "go"}
    rows, manifest = prepare(xcodeeval(tmp_path), **asked)
    row = rows["c++"]["train"][0]
    uid = row.group
    assert row.prompt == (f"### Description:\nPrint {uid}.\n### Input:\nA number.\n### Output:\nIt.\n### Examples:\n"
                             "Input:\n1\nOutput:\n1\n### Code written in C++:\n")  # fmt: skip
    assert body(row).startswith("Print p") and body(row).endswith("Output:\n1") and row.check is None
    assert row.target.startswith("C++ program") and not row.no_reference
    assert not groups(rows, "train")["c++"] & groups(rows, "valid")["go"], "validation is made of other problems"
    test = rows["go"]["test"]
    assert [row.target for row in test] == ["", ""] and all(row.no_reference for row in test)
    assert groups(rows, "test")["go"] == groups(rows, "test")["c++"] == {"t0", "t1"}
    assert test[0].check == StdioCheck((StdioTest("1", ("1", "one")),), 2.0, 256)
    assert [entry["file"].rsplit("/")[-1] for entry in manifest["linked"]] == [
        "problem_descriptions.jsonl",
        "unittest_db.json",
    ]
    assert (
        manifest["licences"] == {"cc-by-nc-4.0 (of the data set as published)": 122}
        and manifest["counts"]["read"] == 123
    )
    assert all("program_synthesis" in file["file"] for file in manifest["sources"][0]["files"])


def test_programs_of_xcodeeval_that_failed_are_skipped(tmp_path):
    made = [program(n, f"p{n // 2}", exec_outcome="PASSED" if n % 2 else "WRONG_ANSWER") for n in range(80)]
    rows, manifest = prepare(xcodeeval(tmp_path, train=made), task="generation", members=["go"], target="go")
    assert len(rows["go"]["train"]) + len(rows["go"]["valid"]) == 40
    said = {entry["reason"]: entry["rows"] for entry in manifest["rejects"]["skipped"]}
    assert said == {"exec_outcome is not PASSED": 40, "a problem without a program in a valid file": 1}


def test_xcodeeval_trains_and_humaneval_x_tests(tmp_path):
    rows, manifest = prepare(xcodeeval(tmp_path / "x"), task="generation", members=["go"], target="go",
                             test_path=str(humaneval_xs(tmp_path / "h", 5)))  # fmt: skip
    assert groups(rows, "test")["go"] == {f"HumanEval/{n}" for n in range(5)}
    assert rows["go"]["train"][0].target.startswith("Go program") and rows["go"]["test"][0].target
    assert set(manifest["templates"]) == {"xcodeeval", "benchmark"} and len(manifest["sources"]) == 2
    assert "a test row, where data.test_path has the test" in [e["reason"] for e in manifest["rejects"]["skipped"]]


def test_a_template_of_ones_own_serves_the_rows_of_path(tmp_path):
    asked = {
        "task": "generation",
        "members": ["go"],
        "target": "go",
        "template": "{samples}|{description}|{time_limit}",
    }
    rows, _ = prepare(xcodeeval(tmp_path / "x"), test_path=str(humaneval_xs(tmp_path / "h", 5)), **asked)
    row = rows["go"]["train"][0]
    assert row.prompt == f"Input:\n1\nOutput:\n1|Print {row.group}.|2 seconds"
    assert body(row) == row.prompt.removesuffix("|2 seconds") and "|" not in rows["go"]["test"][0].prompt
    assert "has the placeholder {code}" in refused(tmp_path / "x", **asked | {"template": "{code}"})


def test_summaries_of_codexglue_and_codesearchnet(tmp_path):
    split_rows(tmp_path, lambda n, x: codexglue(n), ["python"])
    split_rows(tmp_path, lambda n, x: codesearchnet(n, split_name="test"), ["go"])
    for path in ("python", "go"):
        asked = {"task": "summarization", "members": [path], "target": path}
        rows, manifest = prepare(tmp_path, **asked)
        assert [len(rows[path][split]) for split in data_splits.SPLITS] == [3, 3, 3] and manifest["format"] == [
            "codesearchnet"
        ]
        row = rows[path]["valid"][0]
        if path == "python":
            assert row.prompt == "def add(a):\n    return add(a) + 10\n### Response:\n" and row.target == "Add 10 ."
        else:
            assert row.prompt.startswith("func Add(a int)") and row.target == "Add adds 10."
        assert row.group == "r/10" and manifest["licences"] == {"not stated": 9}


def test_codesearchnet_rows_name_their_split(tmp_path):
    made = [codesearchnet(n, split_name=split) for n, split in enumerate(["train", "valid", "test", "train"])]
    write(tmp_path / "go.jsonl", *made)
    rows, manifest = prepare(tmp_path, task="summarization", members=["go"], target="go")
    assert [len(rows["go"][split]) for split in data_splits.SPLITS] == [2, 1, 1] and manifest["division"] is None


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.json", "a/b.jsonl.gz"])
def test_pairs_are_told_by_their_keys_whatever_their_file_is_called(tmp_path, name):
    write(tmp_path / name, *(niche(n, f"task {n // 2}", *["Go", "Julia"][:: 1 - 2 * (n % 2)]) for n in range(120)))
    rows, manifest = prepare(tmp_path, **FULL)
    assert manifest["format"] == ["nichetrans"] and rows["julia"]["test"][0].source_language == "go"
    assert groups(rows, "test")["go"] == groups(rows, "test")["julia"]


def test_groups_of_files_with_and_without_a_split_are_not_torn_apart(tmp_path):
    nichetrans(tmp_path, **{s: [niche(n, f"{s} {n}", "Go", "Julia") for n in range(20)] for s in data_splits.SPLITS})
    more = [niche(n, f"{s} {n}", "Julia", "Go") for s in data_splits.SPLITS for n in range(20)]
    write(tmp_path / "more.jsonl", *(pair | {"id": 1000 + n} for n, pair in enumerate(more)))
    rows, _ = prepare(tmp_path, **FULL)
    for split in data_splits.SPLITS:
        assert groups(rows, split)["go"] == groups(rows, split)["julia"] == {f"{split} {n}" for n in range(20)}


def test_a_program_for_a_tested_problem_is_not_trained_on(tmp_path):
    made = [program(n, f"p{n}") for n in range(60)] + [program(99, "t0")]
    xcodeeval(tmp_path, train=made)
    write(tmp_path / "problem_descriptions.jsonl", *(problem(uid) for uid in ("t0", *(f"p{n}" for n in range(60)))))
    rows, manifest = prepare(tmp_path, task="generation", members=["go"], target="go")
    assert "t0" not in groups(rows, "train")["go"] | groups(rows, "valid")["go"] and "t0" in groups(rows, "test")["go"]
    assert sum(entry["rows"] for entry in manifest["rejects"]["dropped"]) == 1


def test_names_are_hidden_wherever_they_stand(tmp_path):
    split_rows(
        tmp_path,
        lambda n, x: codexglue(
            n, "total", code=f'def total(a):\n    """total of a, see Total {n}."""\n    return total(subtotal(a))'
        ),
        ["python"],
    )
    rows, manifest = prepare(tmp_path, task="naming", members=["python"], target="python")
    row = rows["python"]["train"][0]
    assert (
        body(row)
        == 'def METHOD_NAME(a):\n    """METHOD_NAME of a, see Total 0."""\n    return METHOD_NAME(subtotal(a))'
    )
    assert row.target == "total"
    assert manifest["rejects"]["noted"][0] | {"for example": ""} == {
        "reason": "the name is part of another word in the code", "rows": 9, "for example": ""}  # fmt: skip


@pytest.mark.parametrize("code, left", [
    ('def f(a):\n    """Say x."""\n    return a', "def f(a):\n    return a"),
    ("def f(a={'x': 1}) -> 'x':\n    r'''Say\n    x.'''\n\n    return a", "def f(a={'x': 1}) -> 'x':\n\n    return a"),
    ('async def f(a):\n  # why\n  "Say x."; return a', "async def f(a):\n  # why\n  return a"),
    ('def f(a): "Say x."; return a', "def f(a): return a"),
    ("def f(a, s=' \f'):\n    '''Say\n\n    x.\n    '''\n    return a", "def f(a, s=' \f'):\n    return a"),
    ("def f(a='\u2028'):\n    '''Say\n    x.'''\n    return a", "def f(a='\u2028'):\n    return a"),
    ("def f(a):  # a\x85b \x0b \x1c\n    '''Say\n    x.'''\n    return a", "def f(a):  # a\x85b \x0b \x1c\n    return a"),
    ("\x0cdef f(a):\n    '''Say\x0c x.'''\n    return a", "\x0cdef f(a):\n    return a"),
    ("def f(a):\n    'Say ' \\\n    'x.'\n    return a", "def f(a):\n    return a"),
    ("def f(a):\n    'Say ' r'x.'\n    return a", "def f(a):\n    return a"),
    ("def f(a):\n    ('Say '  # why\n     'x.')\n    return a", "def f(a):\n    return a"),
    ("def f(a):\r    '''Say\r    x.'''\r    return a\r", "def f(a):\r    return a\r"),
    ("def f(a):\r\n    '''Say\r\n    x.'''\r\n    return a", "def f(a):\r\n    return a"),
    ("def f(a):\n    'a'.join(a)\n    return a", "def f(a):\n    'a'.join(a)\n    return a"),
    ("def f(a):\n    f'{a}'\n    b'x'\n    return a", "def f(a):\n    f'{a}'\n    b'x'\n    return a"),
    ("def f(a):\n    ('a', 'b')\n    return a", "def f(a):\n    ('a', 'b')\n    return a"),
    ('def f(a):\n    u"""Say x."""\n    print a', "def f(a):\n    print a"),
    ('@g("Say")\ndef f(a):\n    return "Say"', '@g("Say")\ndef f(a):\n    return "Say"'),
    ('def f(a):\n    """Say x."""\n    return (a', "def f(a):\n    return (a"),
])  # fmt: skip
def test_the_docstring_of_python_goes(code, left):
    assert readers_codesearchnet.without_docstring(code, "Say x.", "python") == left


@pytest.mark.parametrize("code, docstring, language", [
    ("// Adds.\nfunc f() {}", "Adds.", "go"),
    ("/**\n * Adds two\n * numbers.\n */\nfunction f() {}", "Adds two\nnumbers.", "javascript"),
    ("def f(a):\n    x = 1\n    '''Adds two\n\n    numbers.'''", "Adds two\n\nnumbers.", "python"),
])  # fmt: skip
def test_a_docstring_that_stays_is_no_question(code, docstring, language):
    with pytest.raises(NotRequested, match="the code still contains the docstring"):
        readers_codesearchnet.without_docstring(code, docstring, language)


@pytest.mark.parametrize("choice, codexglue_target, codesearchnet_target", [
    ("auto", "Add 0 .", "Add adds 0.\n\nMore."), ("docstring", "Add 0.\n\nMore.", "Add adds 0.\n\nMore."),
    ("docstring_tokens", "Add 0 .", "Add adds"),
])  # fmt: skip
def test_the_reference_of_a_summary_is_a_choice(tmp_path, choice, codexglue_target, codesearchnet_target):
    for number, split in enumerate(data_splits.SPLITS):
        row = codexglue(number, docstring=f"Add {number}.\n\nMore.", partition=split)
        write(tmp_path / f"x/python/{split}.jsonl", row)
        row = codesearchnet(number, func_documentation_string=f"Add adds {number}.\n\nMore.", split_name=split)
        write(tmp_path / f"n/go/{split}.jsonl", row)
    for folder, language, target in (("x", "python", codexglue_target), ("n", "go", codesearchnet_target)):
        asked = {"task": "summarization", "members": [language], "target": language, "reference": choice}
        rows, manifest = prepare(tmp_path / folder, **asked)
        assert rows[language]["train"][0].target == target
        noted = [entry["reason"] for entry in manifest["rejects"]["noted"]]
        other = "docstring_tokens" if choice == "docstring" else "docstring"
        named = f"the reference is not {other}, which data.reference can ask for"
        assert noted == ([named] if language == "python" else [])


def test_a_row_without_the_reference_that_was_chosen_is_bad(tmp_path):
    write(tmp_path / "python.jsonl", codexglue(0), codexglue(1, docstring_tokens=[" "]))
    asked = {"task": "summarization", "members": ["python"], "target": "python"}
    assert "python.jsonl, line 2: the field 'docstring_tokens' is empty" in refused(tmp_path, **asked)
    assert "line 2" not in refused(tmp_path, reference="docstring", **asked)


@pytest.mark.parametrize("code, name, leak", [
    ("func METHOD_NAME() { return getUser() }", "getUser", True), ("test_get_user()", "getUser", True),
    ("METHOD_NAME(METHOD_NAME)", "getUser", False), ("add + added", "add", False),
])  # fmt: skip
def test_what_is_left_of_a_name(code, name, leak):
    assert readers_codesearchnet.leaks(code, name) == leak


FUNCTION = {"kind": "function", "function": "f"}
STDIO = {"kind": "stdio", "tests": [{"input": "1", "outputs": ["2"]}]}


def test_prepared_rows_are_taken_as_they_are(tmp_path):
    check = {"kind": "function", "function": "f", "tests": [{"args": [1], "expected": [2]}]}
    own = {"group": "g", "stop": ["\nend"], "check": check, "author": "somebody"}
    split_rows(tmp_path, lambda n, x: {"prompt": f"{x} {n}", "target": f"t{n}"}, ["go", "julia", "perl"])
    write(tmp_path / "julia/train.jsonl", {"id": 7, "prompt": "p", "target": "t", **own})
    rows, manifest = prepare(tmp_path, task="commit", source_examples=2)
    expected = Row("7", "julia", "p", "t", group="g", stop=("\nend",), check=FunctionCheck("f", [Call([1], [2])]))
    assert rows["julia"]["train"] == [expected]
    assert len(rows["go"]["train"]) == 2 and rows["go"]["test"][0].id == "go/test.jsonl:1"
    assert rows["go"]["test"][0].group is None
    assert manifest["rejects"]["dropped"] == [{"reason": "a train row beyond the requested number", "rows": 1,
                                     "for example": manifest["rejects"]["dropped"][0]["for example"]}]  # fmt: skip


@pytest.mark.parametrize("id", [{}, {"id": None}, {"id": ""}])
def test_prepared_rows_without_ids_may_lie_in_several_files(tmp_path, id):
    for name in ("train-0-of-2", "train-1-of-2", "valid", "test"):
        write(tmp_path / f"go/{name}.jsonl", *({"prompt": f"{name} {n}", "target": "t"} | id for n in range(3)))
    rows, _ = prepare(tmp_path, task="commit", members=["go"], target="go")
    assert [len(rows["go"][split]) for split in data_splits.SPLITS] == [6, 3, 3]
    assert len({row.id for row in rows["go"]["train"]}) == 6


def test_an_empty_cell_of_a_csv_is_no_value(tmp_path):
    (tmp_path / "go").mkdir()
    for split in data_splits.SPLITS:
        (tmp_path / f"go/{split}.csv").write_text(f"id,prompt,target,check,group\n,{split},t,,g\n,p{split},t,,\n")
    rows, _ = prepare(tmp_path, task="generation", members=["go"], target="go")
    assert [row.group for row in rows["go"]["test"]] == ["g", None] and rows["go"]["test"][0].check is None


def test_a_prepared_test_row_may_go_without_a_reference(tmp_path):
    split_rows(tmp_path, lambda n, x: {"prompt": f"{n}", "target": "t"}, ["go"])
    check = {"kind": "stdio", "tests": [{"input": "1", "outputs": ["2"]}]}
    bare = {"prompt": "p", "target": "", "check": check, "no_reference": True}
    write(tmp_path / "go/test.jsonl", bare)
    asked = {"task": "generation", "members": ["go"], "target": "go"}
    assert prepare(tmp_path, **asked)[0]["go"]["test"][0].target == ""
    write(tmp_path / "go/train.jsonl", bare)
    assert "go/train.jsonl, line 1: 'no_reference' is set where it may not be" in refused(tmp_path, **asked)


@pytest.mark.parametrize("fields, message", [
    ({"stop": "\nend"}, "the field 'stop' is not valid, where '\\nend' stands: a list"),
    ({"group": 7}, "the field 'group' is not valid, where 7 stands: text"),
    ({"meta": {"group": "g"}}, "the field 'meta' is not read; group, stop and no_reference stand beside 'prompt'"),
    ({"check": {"function": "f", "tests": []}}, "the field 'check' is not valid"),
    ({"check": {"kind": "stdio", "tests": [{"input": 1, "outputs": []}]}}, "at stdio.tests.0.input, where 1 stands: text"),
    ({"stop": ["end", ""]}, "the field 'stop' is not valid at 1, where '' stands"),
    ({"check": "assert f(1) == 2"}, "the field 'check' is not valid"),
    ({"check": ""}, "the field 'check' is not valid, where '' stands: an object"),
    ({"check": ["assert 1"]}, "the field 'check' is not valid"),
    ({"check": {"tests": ["assert 1"]}}, "stands: an object whose kind is function, cipher, benchmark or stdio"),
    ({"check": {"kind": "tests"}}, "stands: an object whose kind is function, cipher, benchmark or stdio"),
    ({"check": {"kind": "stdio", "tests": []}}, "the field 'check' is not valid at stdio.tests"),
    ({"check": {"kind": "stdio", "tests": [{"input": "1", "outputs": []}]}}, "at stdio.tests.0.outputs"),
    ({"check": STDIO | {"time_limit": -1}}, "at stdio.time_limit, where -1 stands: greater than 0"),
    ({"check": STDIO | {"time_limit": float("nan")}}, "at stdio.time_limit, where nan stands: a finite number"),
    ({"check": STDIO | {"memory_limit_mb": 0}}, "at stdio.memory_limit_mb, where 0 stands: greater than 0"),
    ({"check": {"kind": "benchmark", "form": "humaneval", "before": "", "after": ""}}, "needs an entry_point"),
    ({"check": {"kind": "benchmark", "form": "humaneval", "before": ""}}, "at benchmark.after"),
    ({"check": {"kind": "function", "function": "f", "tests": []}}, "at function.tests"),
    ({"check": {"kind": "function", "function": "a b", "tests": [{"args": [], "expected": 1}]}}, "'a b' is not the name"),
    ({"check": FUNCTION | {"tests": [{"args": [1], "expected": 1}, {"args": [], "expected": 1}]}}, "different numbers of"),
    ({"check": FUNCTION | {"tests": [{"args": [[{"a": 1}]], "expected": 1}]}}, "[{'a': 1}] is none of null, true"),
    ({"check": FUNCTION | {"tests": [{"args": [], "expected": float("inf")}]}}, "inf is none of null, true"),
    ({"meta": "x"}, "the field 'meta' is not read"),
    ({"meta": {"stop": "\nend"}}, "the field 'meta' is not read"),
    ({"body": [3, 9]}, "the field 'body' is not a part of the prompt ([3, 9] of 1 characters)"),
    ({"language": "lua"}, "a row of another language in a file of go (lua)"),
])  # fmt: skip
def test_a_prepared_row_is_validated_where_it_stands(tmp_path, fields, message):
    split_rows(tmp_path, lambda n, x: {"prompt": "p", "target": "t"}, ["go"])
    write(tmp_path / "go/valid.jsonl", {"prompt": "p", "target": "t"} | fields)
    said = refused(tmp_path, task="generation", members=["go"], target="go")
    assert said.startswith(f"{tmp_path}/go/valid.jsonl, line 1: ") and message in said


@pytest.mark.parametrize("name", ["commitpackft", "nichetrans", "xcodeeval", "humanevalx"])
def test_a_format_can_be_named(tmp_path, name):
    lay = {"commitpackft": (commits, "commit"), "nichetrans": (nichetrans, "translation"),
           "xcodeeval": (xcodeeval, "generation"), "humanevalx": (humaneval_xs, "generation")}  # fmt: skip
    make, task = lay[name]
    asked = {"task": task, "members": ["go"] if task == "generation" else ["go", "julia"],
             "target": "go" if task == "generation" else "julia"}  # fmt: skip
    make(tmp_path)
    assert prepare(tmp_path, format=name, **asked) == prepare(tmp_path, **asked)


def test_a_test_problem_of_ones_own_description(tmp_path):
    xcodeeval(tmp_path, test=[problem("t0", time_limit=None, sample_inputs=[],
                                      sample_outputs=[])])  # fmt: skip
    row = only(tmp_path, "go", "test", task="generation", members=["go"], target="go")[0][0]
    assert row.check.time_limit is None and "### Examples:\n\n###" in row.prompt

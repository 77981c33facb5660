"""Every rendered program does in its language what the evaluator says, and no other results are believed."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from studykit.data.checks import Call, FunctionCheck
from studykit.data.polyglot import LANGUAGES, SPLITS, PolyglotProgram, programs
from studykit.data.polyglot.commits import commit
from studykit.evaluation.execution.calls import problem, quoted, same, script

LUA = shutil.which("lua5.4") or shutil.which("lua")
LUPA = [sys.executable, "-c", "import lupa, sys; lupa.LuaRuntime().execute(open(sys.argv[1]).read())"]
COMMANDS = {
    "python": [sys.executable], "javascript": ["node"], "ruby": ["ruby"], "julia": ["julia", "--startup-file=no"],
    "go": ["go", "run"], "lua": [LUA] if LUA else LUPA,
}  # fmt: skip
SUFFIXES = {"python": "py", "javascript": "js", "ruby": "rb", "julia": "jl", "go": "go", "lua": "lua"}
BATCH = 70  # a Lua chunk holds 200 local functions
SQUARE = FunctionCheck("square_it", [Call([3], 9), Call([-2], 4)])
GOOD = {
    "python": "def square_it(a):\n    return a * a",
    "javascript": "function squareIt(a) {\n  return a * a;\n}",
    "go": "func squareIt(a int) int {\n\treturn a * a\n}",
    "ruby": "def square_it(a)\n  a * a\nend",
    "julia": "function square_it(a)\n    return a * a\nend",
    "lua": "local function square_it(a)\n  return a * a\nend",
}


def execute(language: str, script: str, directory) -> subprocess.CompletedProcess:
    command = COMMANDS[language]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    path = directory / f"script.{SUFFIXES[language]}"
    path.write_text(script)
    return subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=120)


def outcome(language: str, code: str, checks: list[FunctionCheck], directory) -> str:
    """Runs the calls and returns what is wrong with the results, or with the program; "" for a program that passes."""
    text, wanted = script(language, code, checks)
    done = execute(language, text, directory)
    wrong = problem(language, wanted, done.stdout, complete=done.returncode == 0)
    return wrong or (done.stderr or "exited" if done.returncode else "")


def numbered(found: list[PolyglotProgram]) -> list[PolyglotProgram]:
    """Programs under different names, so that they can stand in one file."""
    return [p.renamed({p.name: f"{p.name}_n{i}"}) for i, p in enumerate(found)]


@pytest.fixture(scope="module")
def batches() -> list[list[PolyglotProgram]]:
    sizes = {"train": BATCH, "valid": BATCH // 2, "test": BATCH // 2}
    found = [p for split in SPLITS for p in programs(sizes[split], seed=11, split=split)]
    edited = [commit(program, 7).after for program in found[:BATCH]]
    return [numbered(found[:BATCH]), numbered(found[BATCH:]), numbered(edited)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_programs_and_edits_are_right_in_every_language(batches, language, tmp_path):
    for batch in batches:
        code = "\n\n".join(program.code(language) for program in batch)
        assert outcome(language, code, [program.check for program in batch], tmp_path) == ""


def test_go_is_gofmt_clean(batches, tmp_path):
    if not shutil.which("gofmt"):
        pytest.skip("gofmt is not installed")
    path = tmp_path / "all.go"
    path.write_text("package main\n\n" + "\n\n".join(p.code("go") for batch in batches[:2] for p in batch) + "\n")
    assert subprocess.run(["gofmt", "-l", str(path)], capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_right_passes_and_what_is_wrong_is_named(language, tmp_path):
    assert outcome(language, GOOD[language], [SQUARE], tmp_path) == ""
    name = "squareIt" if language in ("javascript", "go") else "square_it"
    wrong = outcome(language, GOOD[language].replace("a * a", "a * 3"), [SQUARE], tmp_path)
    assert wrong == f"{name}(-2): expected 4, got -6\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_hostile_text_never_passes(language, tmp_path):
    texts = ["", "@mark @calls {0} %s \\", "((((", '"', '"""', "/* --[[ =begin #=", "return 1", "\x00\u2028é"]
    for text in texts[:3] if language == "go" else texts:
        assert outcome(language, text, [SQUARE], tmp_path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_output_of_a_candidate_does_not_hide_its_results(language, tmp_path):
    calls = {"python": "print('x', end='')", "javascript": "process.stdout.write('x');", "ruby": "print 'x'",
             "go": 'fmt.Print("x")', "julia": 'print("x")', "lua": "io.write('x')"}  # fmt: skip
    lines = GOOD[language].split("\n")
    code = "\n".join([lines[0], "    " + calls[language], *lines[1:]])
    assert outcome(language, code, [SQUARE], tmp_path) == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_values_survive_the_literals(language, tmp_path):
    """Strings with quotes and interpolation marks, empty and nested lists, floats and bools come through unharmed."""
    identity = {
        "python": "def same(x):\n    return x",
        "javascript": "function same(x) { return x }",
        "go": 'package main\n\nimport (\n\t"fmt"\n)\n\nvar _ = fmt.Sprint\n\nfunc same(x any) any {\n\treturn x\n}',
        "ruby": "def same(x)\n  x\nend",
        "julia": "same(x) = x",
        "lua": "function same(x) return x end",
    }
    values = ["a\"b'c\\d\n\t#{1} $x ${y} é\x7f", [], [1, 2], [[1], [2, 3]], 2.5, True, False, ["a", "b"], "", -3]
    check = FunctionCheck("same", [Call([value], value) for value in values])
    assert outcome(language, identity[language], [check], tmp_path) == ""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("expected", [[3, 4], [3], [4, 3, 0], 3, "3", []])
def test_lists_compare_by_content(language, expected, tmp_path):
    code = {
        "python": "def two():\n    return [4, 3]",
        "javascript": "const two = () => [4, 3];",
        "go": "func two() []int {\n\treturn []int{4, 3}\n}",
        "ruby": "def two\n  [4, 3]\nend",
        "julia": "two() = [4, 3]",
        "lua": "function two() return {4, 3} end",
    }
    if language == "go" and expected != [3, 4]:
        pytest.skip("one compilation is enough")
    check = FunctionCheck("two", [Call([], expected)])
    assert outcome(language, code[language], [check], tmp_path)


def test_python_literals_are_python():
    for text in ("a\nb", "'\"", "\\", "é", "\x00"):
        assert ast.literal_eval(quoted("python", text)) == text


@pytest.mark.parametrize(
    ("language", "check"),
    [
        ("cobol", SQUARE),
        ("lua", replace(SQUARE, function="os.exit")),
        ("go", replace(SQUARE, tests=[Call([{}], 1)])),
    ],
)
def test_what_cannot_be_scripted_is_refused(language, check):
    with pytest.raises(ValueError, match=r"cobol|os\.exit|\{\}"):
        script(language, "", [check])


@pytest.mark.parametrize("language, got, expected, equal", [
    ("python", 3.0, 3, True), ("python", True, 1, False), ("python", 1, True, False), ("python", {"type": "x"}, 1, False),
    ("javascript", 9007199254740992, 9007199254740993, True),  # numbers of JavaScript are doubles
    ("python", 9007199254740992, 9007199254740993, False), ("javascript", 10**400, 1.0, False),
    ("go", None, [], True), ("ruby", None, [], False), ("lua", [1, [2.5]], [1, [2.5]], True), ("lua", [1], [1, 2], False),
    ("python", float("nan"), 0.5, False), ("ruby", "3", 3, False),
])  # fmt: skip
def test_results_are_compared_by_value(language, got, expected, equal):
    assert same(language, got, expected) is equal


def test_a_wrong_result_is_seen_before_a_later_call_fails_or_hangs():
    wanted = script("python", "", [SQUARE])[1]
    assert problem("python", wanted, "x\nresults: [3]\nresults: [3", complete=False).startswith(
        "square_it(3): expected 9"
    )
    assert problem("python", wanted, "results: [9]\nTraceback", complete=False) == ""
    assert problem("python", wanted, "results: [9]\n") == "the program ended after 1 of 2 calls\n"
    for stdout in ("", "results: \n", "results: " + "[" * 10**5, "results: {}", "results: " + "9" * 5000):
        assert problem("python", wanted, stdout)

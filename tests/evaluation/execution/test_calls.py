"""Every rendered program does in its language what the evaluator says, and the harness believes nothing else."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from studykit.data.checks import Call, FunctionCheck
from studykit.data.polyglot import LANGUAGES, LEVELS, SPLITS, Program, commits, programs
from studykit.evaluation.execution.calls import quoted, script

LUA = shutil.which("lua5.4") or shutil.which("lua")
LUPA = [sys.executable, "-c", "import lupa, sys; lupa.LuaRuntime().execute(open(sys.argv[1]).read())"]
COMMANDS = {
    "python": [sys.executable], "javascript": ["node"], "ruby": ["ruby"], "julia": ["julia", "--startup-file=no"],
    "go": ["go", "run"], "lua": [LUA] if LUA else LUPA,
}  # fmt: skip
SUFFIXES = {"python": "py", "javascript": "js", "ruby": "rb", "julia": "jl", "go": "go", "lua": "lua"}
NONCE = "nonce-4f1d"
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


def passed(done: subprocess.CompletedProcess) -> bool:
    return done.returncode == 0 and done.stdout.splitlines()[-1:] == [NONCE]


def numbered(found: list[Program]) -> list[Program]:
    """Programs under different names, so that they can stand in one file."""
    return [p.renamed({f.name: f"{f.name}_n{i}" for f in p.functions}) for i, p in enumerate(found)]


@pytest.fixture(scope="module", params=list(LEVELS))
def batches(request) -> list[list[Program]]:
    sizes = {"train": BATCH, "valid": BATCH // 2, "test": BATCH // 2}
    found = [p for split in SPLITS for p in programs(sizes[split], seed=11, split=split, level=request.param)]
    edited = [after for _, after, _ in (commits.edit(program, 7) for program in found[:BATCH])]
    return [numbered(found[:BATCH]), numbered(found[BATCH:]), numbered(edited)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_programs_and_edits_are_right_in_every_language(batches, language, tmp_path):
    for batch in batches:
        code = "\n\n".join(program.code(language) for program in batch)
        done = execute(language, script(language, code, [program.check for program in batch], NONCE), tmp_path)
        assert passed(done), done.stderr[:400]


def test_go_is_gofmt_clean(batches, tmp_path):
    if not shutil.which("gofmt"):
        pytest.skip("gofmt is not installed")
    path = tmp_path / "all.go"
    path.write_text("package main\n\n" + "\n\n".join(p.code("go") for batch in batches[:2] for p in batch) + "\n")
    assert subprocess.run(["gofmt", "-l", str(path)], capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_harness_accepts_what_is_right_and_names_what_is_wrong(language, tmp_path):
    assert passed(execute(language, script(language, GOOD[language], SQUARE, NONCE), tmp_path))
    wrong = execute(language, script(language, GOOD[language].replace("a * a", "a * 3"), SQUARE, NONCE), tmp_path)
    assert wrong.returncode != 0 and NONCE not in wrong.stdout
    name = "squareIt" if language in ("javascript", "go") else "square_it"
    assert f"{name}(-2): expected 4, got -6" in wrong.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_hostile_text_never_passes(language, tmp_path):
    texts = ["", "@nonce @tests {0} %s \\", "((((", '"', '"""', "/* --[[ =begin #=", "return 1", "\x00\u2028é"]
    for text in texts[:3] if language == "go" else texts:
        done = execute(language, script(language, text, SQUARE, NONCE), tmp_path)
        assert done.returncode != 0 and NONCE not in done.stdout


@pytest.mark.parametrize("language", LANGUAGES)
def test_output_of_a_candidate_does_not_hide_the_nonce(language, tmp_path):
    calls = {"python": "print('x', end='')", "javascript": "process.stdout.write('x');", "ruby": "print 'x'",
             "go": 'fmt.Print("x")', "julia": 'print("x")', "lua": "io.write('x')"}  # fmt: skip
    lines = GOOD[language].split("\n")
    code = "\n".join([lines[0], "    " + calls[language], *lines[1:]])
    assert passed(execute(language, script(language, code, SQUARE, NONCE), tmp_path))


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
    assert passed(execute(language, script(language, identity[language], check, NONCE), tmp_path))


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
    assert not passed(execute(language, script(language, code[language], check, NONCE), tmp_path))


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
        script(language, "", check, NONCE)

"""Programs of the benchmarks' forms: a completion passes exactly when every test ran and passed."""

import contextlib
import time
from dataclasses import replace

import pytest

from studykit.data.checks import BenchmarkCheck, Call, Check, FunctionCheck, StdioCheck, StdioTest
from studykit.data.polyglot import programs as polyglot
from studykit.errors import UserError
from studykit.evaluation import scoring
from studykit.evaluation.execution import execute, java, runtimes
from studykit.evaluation.execution.programs import HARNESSES, executable

# language and form: before, a right completion, after; in place of the right one a wrong result, an early end, no code
CASES = {
    ("python", "humaneval"): (
        "def twice(x):\n    \"\"\" Twice x. \"\"\"\n", "    return 2 * x\n",
        "\nMETADATA = {}\n\ndef check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
        "    return 4", "    raise SystemExit(0)", "    return (",
    ),
    ("python", "humaneval-x"): (
        "def twice(x):\n", "    return 2 * x\n\ndef print(*_):\n    pass\n",
        "def check(f):\n    assert f(2) == 4\n    assert f(-1) == -2\n\ncheck(twice)\n",
        "    return 4", "    import os\n    os._exit(0)", "  x\n y",
    ),
    ("javascript", "humaneval-x"): (
        "/* Twice. */\nconst twice = (x) => {\n", "  return 2 * x\n}\n",
        "const testTwice = () => {\n  console.assert(twice(2) === 4)\n  console.assert(twice(-1) === -2)\n}\n\n"
        "testTwice()\n",
        "  return 4\n}", "  process.exit(0)\n}", "  return `\n}",
    ),
    ("javascript", "multipl-e"): (
        "//Twice.\nfunction twice(x){\n", "  return 2 * x;\n",
        "}\nconst assert = require('node:assert');\nfunction test() {\n  let candidate = twice;\n"
        "  assert.deepEqual(candidate(2),4);\n  assert.deepEqual(candidate(-1),-2);\n}\ntest();\n",
        "  return 4;", "  process.exit(0);", "  return (;",
    ),
    ("go", "humaneval-x"): (
        'package main\n\nimport (\n    "testing"\n    "github.com/stretchr/testify/assert"\n)\n\n'
        'import (\n    "math"\n)\n\n// Twice, math.Pi\nfunc Twice(x int) int {\n',
        '    fmt.Sprint("math.Pi", strings.ToUpper("x"))\n    return 2 * x\n}\n',
        "func TestTwice(t *testing.T) {\n    assert := assert.New(t)\n    assert.Equal(4, Twice(2))\n"
        "    assert.Equal(-2, Twice(-1))\n}\n",
        "    return int(math.Abs(4))\n}", "    os.Exit(0)\n    return 0\n}", "    return x",
    ),
    ("go", "multipl-e"): (
        'package twice_test\n\nimport (\n    "testing"\n    "fmt"\n)\n\nfunc twice(x int) int {\n'
        '', "    return 2 * x\n",
        "}\n\nfunc TestTwice(t *testing.T) {\n  candidate := twice\n  type test struct {\n    actual   interface{}\n"
        "    expected interface{}\n  }\n   tests := []test{\n     { actual: candidate(2), expected: 4 },\n"
        "     { actual: candidate(-1), expected: -2 },\n   }\n\n  for i, tc := range tests {\n"
        '    t.Run(fmt.Sprintf("test num % d", i), func(t *testing.T) {\n'
        '      if fmt.Sprintf("%v", tc.actual) != fmt.Sprintf("%v", tc.expected) {\n'
        '        t.Errorf("expected \'%s\', got \'%s\'", tc.expected, tc.actual)\n      }\n    })\n  }\n}\n',
        "    return 4", "    os.Exit(0)\n    return 0", "    return",
    ),
    ("rust", "humaneval-x"): (
        "\n/* Twice. */\n\nuse std::collections::HashMap;\nuse rand::Rng;\nuse md5;\n\nfn twice(x: i32) -> i32 {\n",
        "    2 * x\n}\n\nfn main() {}\n",
        "\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n    // both signs\n    fn test_twice() {\n"
        "        assert_eq!(twice(2), 4);\n        assert!(twice(-1) == -2);\n    }\n}\n",
        "    4\n}", "    std::process::exit(0)\n}", "    x",
    ),
    ("rust", "multipl-e"): (
        "/// Twice.\nfn twice(x: isize) -> isize {\n", "    2 * x\n",
        "}\n\nfn main() {\n    let candidate = twice;\n    assert_eq!(candidate(2), 4);\n"
        "    assert_eq!(candidate(-1), -2);\n}\n",
        "    4", "    std::process::exit(0)", "    Rng::x()",
    ),
    ("java", "humaneval-x"): (
        "import java.util.*;\n\nclass Solution {\n    public int twice(int x) {\n", "        return 2 * x;\n    }\n}\n",
        "public class Main {\n    public static void main(String[] args) {\n        Solution s = new Solution();\n"
        "        List<Boolean> correct = Arrays.asList(s.twice(2) == 4, s.twice(-1) == -2);\n"
        "        if (correct.contains(false)) {\n            throw new AssertionError();\n        }\n    }\n}\n",
        "        return 4;\n    }\n}", "        System.exit(0);\n        return 0;\n    }\n"
        "}", "        return 4;\n    }\n",
    ),
    ("java", "multipl-e"): (
        "import java.util.*;\nimport org.javatuples.*;\nclass Problem {\n    public static long twice(long x) {\n",
        "        return 2 * x;\n",
        "    }\n    public static void main(String[] args) {\n    assert(twice((2l)) == (4l));\n"
        "    assert(twice((-1l)) == (-2l));\n    }\n\n}\n",
        "        return 4;", "        System.exit(0);\n        return 0;", "        return Pair.with(x);",
    ),
    ("c++", "humaneval-x"): (
        "/* Twice. */\n#include<vector>\nusing namespace std;\nint twice(int x){\n", "    return 2 * x;\n}\n",
        "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (twice(2) == 4);\n"
        "    assert (twice(-1) == -2);\n}\n",
        "    return 4;\n}", "    exit(0);\n}", "    return x",
    ),
    ("ruby", "multipl-e"): (
        "# Twice.\ndef twice(x)\n", "  2 * x\nend\n",
        "require 'test/unit'\nclass TestHumanEval < Test::Unit::TestCase\n  def test_twice\n"
        "    candidate = method(:twice)\n    assert_equal(4, candidate.call(2))\n"
        "    assert_equal(-2, candidate.call(-1))\n"
        "  end\nend\n",
        "  4\nend", "  exit!(0)\nend", "  4\nendd",
    ),
    ("lua", "multipl-e"): (
        "-- Twice.\nlocal function twice(x)\n", "  return {2 * x, {y = true}}\nend\n",
        "lu = require('luaunit')\n\nfunction test_humaneval()\nlocal candidate = twice\n"
        "    lu.assertEquals(candidate(2), {4, {y = true}})\n"
        "    lu.assertEquals(candidate(-1), {-2, {y = true}})\nend\n\n"
        "os.exit(lu.LuaUnit.run())\n",
        "  return {2 * x, {y = true, 1}}\nend", "  os.exit(0)\nend", "  return {\nend",
    ),
    ("julia", "multipl-e"): (
        '"""Twice."""\nfunction twice(x::Int64)::Int64 \n', "    return 2x\nend\n",
        "using Test\n\n@testset begin\n\ncandidate = twice;\n\t@test(candidate(2) == 4)\n"
        "\t@test(candidate(-1) == -2)\nend\n",
        "    return 4\nend", "    exit(0)\nend", "    return (\nend",
    ),
}  # fmt: skip


def statuses(language: str, check: Check, completions: list[str]) -> list[str]:
    programs = [executable(language, text, check) for text in completions]
    verdicts = execute.execute(programs, timeout=20, allow_unsandboxed=True)
    return [scoring.program_status(verdict) for verdict in verdicts]


@pytest.mark.parametrize("language, form", CASES, ids="-".join)
def test_only_what_is_right_passes(language, form):
    if not runtimes.find(language):
        pytest.skip(f"no {language} here")
    before, right, after, *others = CASES[language, form]
    check = BenchmarkCheck(form, before, after, "twice")
    assert statuses(language, check, [right, *others]) == ["passed", "failed", "failed", "error"]


def test_the_polyglots_check_and_stdio_go_the_same_way():
    task = polyglot(1, 0, "test")[0]
    assert statuses("python", task.check, [task.code("python"), "def x(): pass"]) == ["passed", "error"]
    check = StdioCheck((StdioTest("2\n", ("4",)), StdioTest("-1\n", ("-2", "-3"))))
    assert statuses("python", check, ["print(2 * int(input()))", "print(4)"]) == ["passed", "failed"]


def test_a_problems_own_limits_are_those_of_its_language():
    check = StdioCheck((StdioTest("", ("",)),), time_limit=2, memory_limit_mb=64)
    found = {language: executable(language, "", check) for language in ("c++", "python")}
    assert {language: program.timeout for language, program in found.items()} == {"c++": 2, "python": 6}
    assert {program.memory_mb for program in found.values()} == {64}
    assert executable("ruby", "", replace(check, time_limit=None)).timeout is None


@pytest.mark.parametrize("text, name", [
    ("package a.b;\nimport java.util.*;\npublic class Solver {\n  public static void main(String[] a) {}\n}", "Solver"),
    ("class A {}\npublic final class B { public static void main(String... a) {} }\nclass C {}", "B"),
])  # fmt: skip
def test_a_java_program_may_have_any_main_class(text, name):
    found = java.program(text)
    assert f"{name}.main(args)" in found and "package" not in found and "public class" not in found


@pytest.mark.parametrize("language, check, said", [
    ("cobol", BenchmarkCheck("multipl-e", "", ""), "a check of kind 'benchmark' cannot be run in cobol; accepted are python, "),
    ("c#", StdioCheck(()), "a check of kind 'stdio' cannot be run in c#"),
    ("python", StdioCheck(()), "has no tests"),
])  # fmt: skip
def test_what_cannot_be_assembled_is_refused(language, check, said):
    with pytest.raises(UserError, match=said):
        executable(language, "", check)


# Texts over which a regular expression with two ways to read a part would not end, or end late.
LONG = ["#[test]" + "// " * 26, "#[test]" + "// \n" * 5000, "\n" * 20000, " " * 20000, "package " * 2000, "import (" * 2000,
        "/*" * 10000, '"' * 20000, "\\" * 20000, "public static " * 1500, "(" * 20000]  # fmt: skip


@pytest.mark.parametrize("language", [*HARNESSES, "stdio of java", "function of go"])
def test_no_text_of_a_row_takes_long_to_assemble(language):
    started = time.process_time()
    for text in LONG:
        for before, completion, after in ((text, "", ""), ("", text, ""), ("", "", f"{text}\n#[test]\nfn a() {{}}")):
            with contextlib.suppress(UserError):  # a text without tests may be refused, at once
                if language == "stdio of java":
                    java.program(completion)
                elif language == "function of go":
                    executable("go", completion, FunctionCheck("f", [Call([1], 2)]))
                else:
                    executable(language, completion, BenchmarkCheck("humaneval-x", before, after))
    assert time.process_time() - started < 15, "33 programs of 20,000 characters"

"""Equal behaviour on generated inputs, and single tests: what passing all tests does not show."""

from __future__ import annotations

import pytest

from studykit.data.checks import Call, FunctionCheck
from studykit.data.polyglot import programs
from studykit.data.rows import Row
from studykit.evaluation import behaviour
from studykit.evaluation.behaviour import (
    Limits,
    behaviour_score,
    builtin_checks,
    generated_check,
    kept_outputs,
    reference_outputs,
    whole_program_score,
    why_no_whole_programs,
)
from studykit.evaluation.execution import execute, runtimes
from studykit.evaluation.execution.executable import Executable, Outputs, Stdout, Token
from studykit.evaluation.scoring import score_predictions

LIMITS = Limits(10, 512, True)
needs_python = pytest.mark.skipif(not runtimes.find("python"), reason="no python here")


def material(n: int) -> tuple[list[Row], list[str]]:
    rows = [
        Row(f"{i}", "python", "p", program.code("python"), check=program.check)
        for i, program in enumerate(programs(n, 7, "test"))
    ]
    return rows, [row.target for row in rows]


def scored(rows: list[Row], texts: list[str], samples: int = 1):
    ids = [row.id for row in rows for _ in range(samples)]
    records = [{"id": id, "text": text, "finished": True} for id, text in zip(ids, texts, strict=True)]
    return score_predictions(rows, records, samples=samples, timeout=10, allow_unsandboxed=True)


def test_generated_inputs_are_new_defined_and_the_same_each_time():
    for program in programs(30, 3, "test"):
        check = generated_check(program, 12)
        assert check == generated_check(program, 12) and 0 < len(check.tests) <= 12
        calls = [call.args for call in check.tests]
        assert all(calls.count(args) == 1 and args not in [test.args for test in program.tests] for args in calls)
        assert all(program.evaluate(call.args) == call.expected for call in check.tests)


def test_only_rows_of_built_in_programs_have_generated_inputs():
    rows, _ = material(3)
    data = {"path": None, "seed": 7}
    assert all(builtin_checks(rows, data, 5)) and builtin_checks(rows, data | {"path": "x"}, 5) == [None] * 3
    other = Row("x", "python", "p", "def solve(a):\n    return 3 * a", check=FunctionCheck("solve", [Call([1], 3)]))
    assert [bool(check) for check in builtin_checks([*rows, other], data, 5)] == [True, True, True, False]


@needs_python
def test_a_program_that_knows_only_its_tests_passes_them_and_behaves_otherwise():
    rows, texts = material(3)
    name, known = rows[1].check.function, [(call.args, call.expected) for call in rows[1].check.tests]
    texts[1] = f"def {name}(*args):\n    return next(b for a, b in {known!r} if a == list(args))"
    texts[2] = texts[2] + "\nraise ValueError"
    found = scored(rows, texts)
    assert found.scores["pass_at_1"].per_example == [100, 100, 0]
    score = behaviour_score(rows, texts, found.programs, builtin_checks(rows, {"seed": 7}, 8), LIMITS)
    assert score.per_example == [100, 0, 0] and score.rows is None and "inputs:8" in score.signature


@needs_python
def test_single_tests_are_counted_and_those_after_a_crash_fail():
    calls = [Call([n], n) for n in range(4)]
    rows = [Row("a", "python", "p", "x", check=FunctionCheck("f", calls))]
    texts = [f"def f(n):\n    return {body}" for body in ("n", "abs(n - 1)", "[0, 1, 2][n]", "n if n else 1 / 0", "#")]
    found = scored(rows, texts, samples=5)
    assert [end.tests for end in found.programs] == [(4, 4), (0, 4), (3, 4), (0, 4), (0, 4)]
    score = found.scores["tests_passed"]
    assert score.per_example == [pytest.approx(100 * 7 / 20)] and score.n == 1 and score.rows is None


@needs_python
def test_inputs_after_a_failure_count_but_none_after_an_exceeded_limit():
    tests = Outputs((("3", ("3",)), ("x", ("0",)), ("4", ("4",)), ("5", ("6",))))
    loop = "n = input()\nwhile n == 'x': pass\nprint(n)"
    programs = [Executable("python", source, tests) for source in ("print(int(input()))", loop)]
    crashed, slow = execute.execute(programs, timeout=1, allow_unsandboxed=True)
    assert (crashed.status, crashed.tests) == ("error", (2, 4)) and (slow.status, slow.tests) == ("timeout", (1, 4))
    assert Executable("python", "", Token()).tests is None


@needs_python
def test_whole_programs_are_compared_by_what_they_write():
    targets = ["print(1 + 1)", "print('a')", "import os; print(os.urandom(9))", "raise ValueError", "pass"]
    rows = [Row(f"{i}", "python", "p", target) for i, target in enumerate(targets)]
    texts = ["print('2')", "print('b')", *targets[2:]]
    written = reference_outputs(rows, LIMITS)
    assert written == ["2\n", "a\n", None, None, None]  # the other references cannot be compared
    score = whole_program_score(rows, texts, written, LIMITS)
    assert score.rows == [0, 1] and score.per_example == [100, 0]
    assert f"|isolation:{execute.isolation(True)}|" in score.signature
    assert whole_program_score(rows[2:], texts[2:], written[2:], LIMITS) is None
    (seen,) = execute.execute([Executable("python", "print(5)", Stdout())], allow_unsandboxed=True)
    assert (seen.status, seen.stdout, seen.tests) == ("passed", "5\n", None)


@needs_python
def test_what_references_write_is_found_once_for_all_evaluations(tmp_path, monkeypatch):
    """An unstable reference would otherwise be left out of some of them and not of others."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    rows = [Row("a", "python", "p", "print(1)"), Row("b", "python", "p", "print(2)")]
    answers = iter([["1", None], [None, "2"], [None, "3"], [None, "4"], ["5", "6"], ["7"]])
    monkeypatch.setattr(behaviour, "reference_outputs", lambda *_: next(answers))
    assert kept_outputs(rows, LIMITS) == kept_outputs(rows, LIMITS) == ["1", None]
    (file,) = tmp_path.glob("runs/.cache/references-*/written.json")
    for damaged, number in (('["1"', "2"), ("[1, 2]", "3"), ('["1"]', "4")):
        file.write_text(damaged)
        assert kept_outputs(rows, LIMITS) == kept_outputs(rows, LIMITS) == [None, number]
    assert kept_outputs(rows, Limits(9, 512, True)) == ["5", "6"] and kept_outputs(rows[:1], LIMITS) == ["7"]


def test_why_whole_programs_are_not_run_is_told():
    assert "does not name python" in why_no_whole_programs("python", ["lua"], True)
    assert why_no_whole_programs("cobol", None, True)

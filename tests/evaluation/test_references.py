"""References: what passes is counted, what does not is grouped by its reason, and the real benchmark passes."""

import gzip
import json
import os
from pathlib import Path

import pytest

from studykit import cli
from studykit.data.rows import Row, write_rows
from studykit.errors import UserError
from studykit.evaluation import references
from studykit.evaluation.execution import runtimes

SHARED = Path(os.environ.get("STUDYKIT_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "humaneval-x"
TEST = "def check(f):\n    assert f(1) == 1\n\ncheck(f)\n"


def line(number: int, solution: str) -> dict:
    return {"task_id": f"Python/{number}", "prompt": "def f(x):\n", "canonical_solution": solution, "test": TEST,
            "declaration": "def f(x):\n", "example_test": ""}  # fmt: skip


@pytest.fixture
def benchmark(tmp_path):
    """Two references that pass, two that are wrong, one that needs what is not there."""
    solutions = ["    return x\n", "    return 1\n", "    return 2\n", "    return None\n", "    import absent\n"]
    text = "".join(json.dumps(line(i, solution)) + "\n" for i, solution in enumerate(solutions))
    (tmp_path / "python.jsonl").write_text(text)
    return tmp_path


def test_every_reference_is_counted_once(benchmark):
    rows = references.read_references(benchmark)
    rows.append(Row("r", "ruby", "p", "x"))
    python, ruby = references.verify_references(rows, allow_unsandboxed=True)
    assert (python.rows, python.checked, python.passed) == (5, 5, 2)
    assert [(f.status, f.message, f.ids) for f in python.failures] == [
        ("failed", "AssertionError", ["Python/2", "Python/3"]),
        ("error", "ModuleNotFoundError: No module named 'absent'", ["Python/4"]),
    ]
    assert (ruby.rows, ruby.checked, ruby.passed, ruby.failures) == (1, 0, 0, [])


def test_the_command_prints_the_table(benchmark, capsys):
    command = ["check-references", str(benchmark / "python.jsonl"), "--language", "python", "--allow-unsandboxed"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "python           2 of 5 references pass" in said and "2 failed: AssertionError (Python/2, Python/3)" in said


def test_a_data_run_is_read_by_its_test_rows(tmp_path):
    rows = {"test": [Row("a", "lua", "p", "x")], "train": [Row("b", "lua", "p", "x")]}
    write_rows(tmp_path / "rows", {"lua": rows})
    assert references.read_references(tmp_path) == rows["test"]


@pytest.mark.parametrize("text, languages, said", [
    ("", [], "has no rows of any language"),
    (json.dumps(line(0, "")), ["go"], "has no rows of go; it has python"),
    ('{"text": "x"}', [], "holds neither rows nor HumanEval nor HumanEval-X: a line has the fields text"),
])  # fmt: skip
def test_what_is_no_benchmark_is_refused(tmp_path, text, languages, said):
    (tmp_path / "python.jsonl").write_text(text)
    with pytest.raises(UserError, match=said):
        references.read_references(tmp_path, languages)
    assert cli.main(["check-references", str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize("language, first", [("python", 40), ("js", 20), ("go", 6), ("rust", 6), ("java", 3)])
def test_the_first_references_of_humaneval_x_pass(language, first):
    """All of them take minutes: `studykit check-references`."""
    path = SHARED / f"{language}.jsonl"
    if not path.exists():
        pytest.skip("the data is not here")
    rows = references.read_references(path)[:first]
    if not runtimes.find(rows[0].language):
        pytest.skip(f"no {language} here")
    [entry] = references.verify_references(rows, allow_unsandboxed=True, timeout=30)
    assert entry.passed == first, entry.failures


def test_files_are_read_as_they_are_published(tmp_path):
    """CodeGeeX's folder of HumanEval-X, one of its files, and HumanEval's file, all packed."""
    folder = tmp_path / "humaneval-x" / "python" / "data"
    folder.mkdir(parents=True)
    packed = folder / "humaneval_python.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(line(0, "    return x\n")).encode()))
    problem = {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "canonical_solution": "    return x\n",
               "test": "def check(candidate):\n    assert candidate(1) == 1\n", "entry_point": "f"}  # fmt: skip
    human_eval = tmp_path / "HumanEval.jsonl.gz"
    human_eval.write_bytes(gzip.compress(json.dumps(problem).encode()))
    for path in (tmp_path / "humaneval-x", packed, human_eval):
        [row] = references.read_references(path, ["py"])
        [entry] = references.verify_references([row])
        assert (row.language, entry.passed, entry.checked) == ("python", 1, 1)

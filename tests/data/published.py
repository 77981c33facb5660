"""Rows of our own with exactly the published fields of every data set, and what lays them out as they are published."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path

from studykit.data import prepare as data_prepare
from studykit.data import splits
from studykit.study.parameters import check

NOISE = {"valid_examples": 99, "test_examples": 99, "source_examples": 99, "target_examples": 99}


def write(file: Path, *rows) -> Path:
    """JSON lines; a text is a line as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    said = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    data = said.encode("utf-8", errors="surrogatepass")
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def params(path, **values):
    usual = {"task": "translation", "members": ["go", "julia"], "target": "julia", "path": str(path)}
    return check("data", usual | NOISE | values)


def prepare(path, **values):
    """The rows, and the manifest as JSON."""
    rows, manifest = data_prepare.prepare(params(path, **values))
    return rows, asdict(manifest)


def refused(path, **values) -> str:
    """The one sentence."""
    import pytest

    from studykit.errors import UserError

    with pytest.raises(UserError) as error:
        prepare(path, **values)
    assert "\n" not in str(error.value)
    return str(error.value)


def commit(n: int = 0, lang: str = "Go", repos: str = "a/a", file: str = "x.go", **values) -> dict:
    return {
        "commit": f"{lang}{n:04d}",
        "old_file": file,
        "new_file": file,
        "old_contents": f"one\ntwo {n}\nthree\n",
        "new_contents": f"one\n2 {n}\nthree\n",
        "subject": f"Count {n} in digits",
        "message": f"Count {n}\n\nMore.",
        "lang": lang,
        "license": "mit",
        "repos": repos,
    } | values


def commits(directory: Path, languages=("go", "julia"), n: int = 40) -> Path:
    for language in languages:
        made = [commit(i, language.capitalize(), f"r/{i}", f"f{i}") for i in range(n)]
        write(directory / language / "data.jsonl", *made)
    return directory


def niche(n: int, name: str, source: str, target: str) -> dict:
    return {"id": n, "name": name, source: f"{source} {name}", target: f"{target} {name}"}


def nichetrans(directory: Path, **rows) -> Path:
    for number, split in enumerate(splits.SPLITS):
        usual = [niche(number, split, "Go", "Julia"), niche(number, split, "Julia", "Go")]
        write(directory / f"niche_{split}.json", *rows.get(split, usual))
    return directory


def ct(n: int = 1, source: str = "Go", target: str = "Julia", **values) -> dict:
    return {
        "id": n,
        "source_lang": source,
        "target_lang": target,
        "source_content": f"{source} {n}",
        "target_content": f"{target} {n}",
    } | values


def humaneval_x(word: str, n: int) -> dict:
    """As the benchmark has them: Go with its parts apart, Rust with the declaration outside the prompt."""
    name = f"f{n}"
    if word == "Go":
        doc, head = f"// Add {n}.\n// Twice.\n// >>> 1\n", f"func {name}(a int) int {{\n"
        return {
            "task_id": f"Go/{n}",
            "prompt": f'import (\n    "math"\n)\n\n{doc}{head}',
            "import": 'import (\n    "math"\n)\n',
            "docstring": doc,
            "declaration": f"\n{head}",
            "canonical_solution": f"    return a + {n}\n}}\n",
            "test": f"func Test{n}(t *testing.T) {{}}\n",
            "test_setup": "package main\n",
            "example_test": "func TestX(t *testing.T) {}\n",
        }
    if word == "Rust":
        return {
            "task_id": f"Rust/{n}",
            "prompt": f"\n/*\n Add {n}.\n Twice.\n*/\n",
            "declaration": f"\nuse std::cmp;\n\nfn {name}(a:i32) -> i32{{\n",
            "canonical_solution": f"    a + {n}\n}}\n",
            "test": "\n#[cfg(test)]\nmod tests { #[test] fn t() {} }\n",
            "example_test": "None",
        }
    head = f"def {name}(a: int) -> int:\n"
    doc = f'    """Add {n}.\n    Twice.\n    >>> {name}(1)\n    """\n'
    return {
        "task_id": f"Python/{n}",
        "prompt": head + doc,
        "declaration": head,
        "canonical_solution": f"    return a + {n}\n",
        "test": f"\ndef check({name}):\n    assert {name}(1) == {n + 1}\n\ncheck({name})",
        "text": f"Add {n}.",
        "example_test": f"assert {name}(1)",
    }


def humaneval_xs(directory: Path, n: int = 60) -> Path:
    for word in ("Python", "Go", "Rust"):
        write(directory / f"{word.lower()}.jsonl", *(humaneval_x(word, i) for i in range(n)))
    return directory


def humaneval(n: int) -> dict:
    return {
        "task_id": f"HumanEval/{n}",
        "prompt": f'import math\n\n\ndef f{n}(a):\n    """ Add {n}.\n    Twice.\n    """\n',
        "canonical_solution": f"    return a + {n}\n",
        "entry_point": f"f{n}",
        "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
    }


def multipl_e(n: int, extension: str = "jl") -> dict:
    return {
        "name": f"HumanEval_{n}_f{n}",
        "language": extension,
        "prompt": f"# Add {n}.\n# Twice.\nfunction f{n}(a)\n",
        "doctests": "transform",
        "original": "a/file.py",
        "prompt_terminology": "reworded",
        "tests": f"@test f{n}(1) == {n + 1}\n",
        "stop_tokens": ["\nfunction", "\n\n#"],
    }


def problem(uid: str, **values) -> dict:
    return {
        "description": f"Print {uid}.",
        "input_from": "standard input",
        "output_to": "standard output",
        "time_limit": "2 seconds",
        "memory_limit": "256 megabytes",
        "input_spec": "A number.",
        "output_spec": "It.",
        "notes": None,
        "sample_inputs": ["1\n"],
        "sample_outputs": ["1\n"],
        "tags": ["math"],
        "src_uid": uid,
        "difficulty": 800,
        "created_at": 1,
    } | values


def program(n: int, uid: str, lang: str = "Go", cluster: str = "Go", **values) -> dict:
    return {
        "lang": lang,
        "source_code": f"{cluster} program {n}",
        "tags": ["math"],
        "lang_cluster": cluster,
        "src_uid": uid,
        "code_uid": f"code{n}",
        "difficulty": 800,
        "exec_outcome": "PASSED",
    } | values


def xcodeeval(directory: Path, train=None, test=None, problems=60) -> Path:
    """A copy of the repository's own layout, with a folder of another task beside it."""
    usual = [
        program(2 * i + j, f"p{i}", *lang)
        for i in range(problems)
        for j, lang in enumerate([("Go", "Go"), ("GNU C++17", "C++")])
    ]
    place = directory / "program_synthesis"
    write(place / "train/train_000.jsonl", *(usual if train is None else train))
    write(place / "validation/prog_syn_val.jsonl", problem("v0"))
    write(place / "test/prog_syn_test.jsonl", *([problem("t0"), problem("t1")] if test is None else test))
    write(directory / "problem_descriptions.jsonl", *(problem(f"p{i}") for i in range(problems)))
    write(directory / "code_translation/test/x.jsonl", {"other": 1})
    unit_tests = {uid: [{"input": "1", "output": ["1", "one"]}] for uid in ("t0", "t1", "v0")}
    (directory / "unittest_db.json").write_text(json.dumps(unit_tests))
    return directory


def codexglue(n: int, name: str = "add", **values) -> dict:
    code = f'def {name}(a):\n    """Add {n}."""\n    return {name}(a) + {n}'
    return {
        "repo": f"r/{n}",
        "path": "x.py",
        "func_name": f"Sum.{name}",
        "original_string": code,
        "language": "python",
        "code": code,
        "code_tokens": code.split(),
        "docstring": f"Add {n}.",
        "docstring_tokens": ["Add", f"{n}", "."],
        "sha": "0",
        "url": "u",
        "partition": "train",
    } | values


def codesearchnet(n: int, name: str = "Add", **values) -> dict:
    code = f"func {name}(a int) int {{\n\treturn {name}(a) + {n}\n}}"
    return {
        "repository_name": f"r/{n}",
        "func_path_in_repository": "x.go",
        "func_name": name,
        "whole_func_string": code,
        "language": "go",
        "func_code_string": code,
        "func_code_tokens": code.split(),
        "func_documentation_string": f"{name} adds {n}.",
        "func_documentation_tokens": [name, "adds"],
        "split_name": "train",
        "func_code_url": "u",
    } | values

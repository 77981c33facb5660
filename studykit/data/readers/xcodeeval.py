"""Code generation: program synthesis of xCodeEval (Khan et al., arXiv 2303.03004; CC BY-NC 4.0).

The parts of the data are linked by `src_uid`, the problem: programs (training rows), problem descriptions
(`problem_descriptions.jsonl`) and unit tests (`unittest_db.json`). A published validation or test row is a problem
without a program: it is asked in every language of the study and judged by its unit tests alone, whose stdout may be
any of the listed outputs. Since a validation loss needs a reference, validation is a share of the training problems.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from studykit.data.checks import StdioCheck, StdioTest
from studykit.data.files import File, Source, one_object
from studykit.data.files import rows as rows_of
from studykit.data.rejects import BadRow, NotForThis, Tally, text
from studykit.data.request import Asked, At, row
from studykit.data.splits import Example
from studykit.errors import UserError

PROBLEMS, UNIT_TESTS = "problem_descriptions.jsonl", "unittest_db.json"
TRAIN_MARKS = frozenset({"src_uid", "source_code", "lang_cluster"})
TEST_MARKS = frozenset({"src_uid", "input_spec", "output_spec", "sample_inputs"})


class Linked(NamedTuple):
    problems: dict[str, dict]  # by src_uid
    unit_tests: dict[str, list]  # by src_uid
    files: tuple[File, ...]


def link(source: Source, files: list[File], asked: Asked, tally: Tally) -> Linked:
    """What the rows of these files refer to. Raises: UserError if a file that they need is not beside them."""
    needs = {name: source.linked(name) for name in (PROBLEMS, UNIT_TESTS)}
    programs = any("train" in file.name for file in files)
    for name, why in ((PROBLEMS, programs), (UNIT_TESTS, any("test" in file.name for file in files))):
        if why and needs[name] is None:
            raise UserError(f"{source.asked} has no {name} in or above it; xCodeEval's rows refer to it by src_uid.")
    described = rows_of(needs[PROBLEMS], tally.refuse) if needs[PROBLEMS] else ()
    problems = {raw["src_uid"]: raw for _, raw in described if isinstance(raw.get("src_uid"), str)}
    tests = one_object(needs[UNIT_TESTS]) if needs[UNIT_TESTS] else {}
    return Linked(problems, tests, tuple(file for file in needs.values() if file))


def rows(raw: dict, at: At, asked: Asked) -> Iterator[Example]:
    """A program that passed all tests, or a problem in every language of the study."""
    uid = text(raw, "src_uid")
    if "source_code" in raw:
        language = asked.language(text(raw, "lang_cluster"), at)
        if text(raw, "exec_outcome") != "PASSED":
            raise NotForThis("exec_outcome is not PASSED")
        if uid not in asked.linked.problems:
            raise BadRow(f"no problem of its src_uid in {PROBLEMS}", f" ({uid})")
        prompt = ask(asked.linked.problems[uid], language, asked)
        made = row(text(raw, "code_uid"), language, prompt, text(raw, "source_code"))
        yield Example(made, at.place, "test" if at.split == "test" else "fit", (uid,))
        return
    if at.split in ("train", "valid"):
        raise NotForThis(f"a problem without a program in a {at.split} file")
    check = stdio(asked.linked.unit_tests.get(uid), raw)
    for language in asked.languages:
        made = row(f"{uid}-{language}", language, ask(raw, language, asked), "", check=check, no_reference=True)
        yield Example(made, at.place, "test", (uid,))


def ask(problem: dict, language: str, asked: Asked) -> tuple[str, list[int]]:
    """The prompt of a problem; only its description must be there."""
    fields = {"description": text(problem, "description").strip(), "language": language}
    for key in ("input_spec", "output_spec", "notes", "time_limit", "memory_limit", "input_from", "output_to"):
        fields[key] = text(problem, key, empty=True).strip() if problem.get(key) is not None else ""
    inputs, outputs = (problem.get(f"sample_{of}") or [] for of in ("inputs", "outputs"))
    if not (_texts(inputs) and _texts(outputs) and len(inputs) == len(outputs)):
        raise BadRow("'sample_inputs' and 'sample_outputs' are not lists of as many texts")
    pairs = zip(inputs, outputs, strict=True)
    fields["samples"] = "\n".join(f"Input:\n{given.strip()}\nOutput:\n{wanted.strip()}" for given, wanted in pairs)
    return asked.prompt("xcodeeval", fields)


def stdio(tests: list | None, problem: dict) -> StdioCheck:
    """The check by unit tests, with the problem's own limits."""
    if not tests:
        raise BadRow(f"no unit tests of its src_uid in {UNIT_TESTS}", f" ({problem['src_uid']})")
    made = []
    for test in tests:
        outputs = [test["output"]] if isinstance(test.get("output"), str) else test.get("output")
        if not isinstance(test.get("input"), str) or not outputs or not _texts(outputs):
            raise BadRow("a unit test is no input with its outputs", f" ({problem['src_uid']})")
        made.append(StdioTest(test["input"], tuple(outputs)))
    memory = _limit(problem, "memory_limit", "megabyte")
    time_limit = _limit(problem, "time_limit", "second")
    return StdioCheck(tuple(made), time_limit, None if memory is None else round(memory))


def _texts(values) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _limit(problem: dict, key: str, unit: str) -> float | None:
    """The number in "2 seconds" or "256 megabytes"; None where a problem has no limit."""
    if problem.get(key) is None:
        return None
    if not (found := re.fullmatch(rf"(\d+(?:\.\d+)?) {unit}s?", text(problem, key).strip())):
        raise BadRow(f"the field {key!r} is no number of {unit}s", f" ({problem[key]})")
    return float(found[1])

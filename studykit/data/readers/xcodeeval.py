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
from studykit.data.files import Source, SourceFile, raw_rows, read_object
from studykit.data.prompts import Prompt
from studykit.data.rejects import BadRow, NotRequested, Rejects, text
from studykit.data.request import Example, Location, ReadRequest
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.study.data_files import LINKED_FILES, XCODEEVAL_PROBLEMS, XCODEEVAL_UNIT_TESTS

TRAIN_MARKS = frozenset({"src_uid", "source_code", "lang_cluster"})
TEST_MARKS = frozenset({"src_uid", "input_spec", "output_spec", "sample_inputs"})


class Linked(NamedTuple):
    """The problems and the unit tests that rows refer to."""

    problems: dict[str, dict]  # by src_uid
    unit_tests: dict[str, list]  # by src_uid
    files: tuple[SourceFile, ...]


def link(source: Source, files: list[SourceFile], request: ReadRequest, rejects: Rejects) -> Linked:
    """Reads what the rows of these files refer to. Raises UserError if a needed file is not in or above them."""
    needs = {name: source.find_linked(name) for name in LINKED_FILES}
    programs = any("train" in file.name for file in files)
    for name, why in (
        (XCODEEVAL_PROBLEMS, programs),
        (XCODEEVAL_UNIT_TESTS, any("test" in file.name for file in files)),
    ):
        if why and needs[name] is None:
            raise UserError(f"{source.address} has no {name} in or above it; xCodeEval's rows refer to it by src_uid.")
    problem_file, test_file = needs[XCODEEVAL_PROBLEMS], needs[XCODEEVAL_UNIT_TESTS]
    described = raw_rows(problem_file, rejects.refuse) if problem_file else ()
    problems = {raw["src_uid"]: raw for _, raw in described if isinstance(raw.get("src_uid"), str)}
    tests = read_object(test_file) if test_file else {}
    return Linked(problems, tests, tuple(file for file in needs.values() if file))


def rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a program that passed all tests, or a problem, which is asked in every language of the study."""
    uid = text(raw, "src_uid")
    if "source_code" in raw:
        language = request.language(text(raw, "lang_cluster"), location)
        if text(raw, "exec_outcome") != "PASSED":
            raise NotRequested("exec_outcome is not PASSED")
        if uid not in request.linked.problems:
            raise BadRow(f"no problem of its src_uid in {XCODEEVAL_PROBLEMS}", f" ({uid})")
        prompt = problem_prompt(request.linked.problems[uid], language, request)
        row = Row(text(raw, "code_uid"), language, prompt.text, text(raw, "source_code"), prompt.body)
        yield Example(row, location.line, "test" if location.split == "test" else "fit", (uid,))
        return
    if location.split in ("train", "valid"):
        raise NotRequested(f"a problem without a program in a {location.split} file")
    check = unit_test_check(request.linked.unit_tests.get(uid), raw)
    for language in request.languages:
        prompt = problem_prompt(raw, language, request)
        row = Row(f"{uid}-{language}", language, prompt.text, "", prompt.body, no_reference=True, check=check)
        yield Example(row, location.line, "test", (uid,))


def problem_prompt(problem: dict, language: str, request: ReadRequest) -> Prompt:
    """Renders the prompt of a problem, of which only the description must be there."""
    fields = {"description": text(problem, "description").strip(), "language": language}
    for key in ("input_spec", "output_spec", "notes", "time_limit", "memory_limit", "input_from", "output_to"):
        fields[key] = text(problem, key, empty=True).strip() if problem.get(key) is not None else ""
    inputs, outputs = (problem.get(f"sample_{of}") or [] for of in ("inputs", "outputs"))
    if not (_texts(inputs) and _texts(outputs) and len(inputs) == len(outputs)):
        raise BadRow("'sample_inputs' and 'sample_outputs' are not lists of as many texts")
    pairs = zip(inputs, outputs, strict=True)
    fields["samples"] = "\n".join(f"Input:\n{given.strip()}\nOutput:\n{wanted.strip()}" for given, wanted in pairs)
    return request.prompt("xcodeeval", fields)


def unit_test_check(tests: list | None, problem: dict) -> StdioCheck:
    """Returns the check by unit tests, with the problem's own limits."""
    if not tests:
        raise BadRow(f"no unit tests of its src_uid in {XCODEEVAL_UNIT_TESTS}", f" ({problem['src_uid']})")
    checked = []
    for test in tests:
        outputs = [test["output"]] if isinstance(test.get("output"), str) else test.get("output")
        if not isinstance(test.get("input"), str) or not outputs or not _texts(outputs):
            raise BadRow("a unit test is not an input with its outputs", f" ({problem['src_uid']})")
        checked.append(StdioTest(test["input"], tuple(outputs)))
    memory = _limit(problem, "memory_limit", "megabyte")
    time_limit = _limit(problem, "time_limit", "second")
    return StdioCheck(tuple(checked), time_limit, None if memory is None else round(memory))


def _texts(values) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _limit(problem: dict, key: str, unit: str) -> float | None:
    """The number in "2 seconds" or "256 megabytes"; None where a problem has no limit."""
    if problem.get(key) is None:
        return None
    if not (match := re.fullmatch(rf"(\d+(?:\.\d+)?) {unit}s?", text(problem, key).strip())) or not float(match[1]):
        raise BadRow(f"the field {key!r} is not a number of {unit}s", f" ({problem[key]})")
    return float(match[1])

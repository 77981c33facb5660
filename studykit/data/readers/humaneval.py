"""Benchmarks judged by their tests: HumanEval (arXiv 2107.03374), HumanEval-X (2303.17568), MultiPL-E (2208.08227).

The prompt is the benchmark's own text, the target the canonical solution where there is one. A check's `before` is what
must precede a completion, its `after` the tests, in the benchmark's own form. A problem has one number in all languages
and in all three benchmarks: that is its group, and so its split. What may be cut of a prompt that is too long is the
description: never the signature, nor the line that ends the comment.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator

from studykit.data.checks import BenchmarkCheck
from studykit.data.files import Source, SourceFile, raw_rows
from studykit.data.rejects import BadRow, NotRequested, Rejects, text
from studykit.data.request import Example, Location, ReadRequest
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.study.languages import canonical

HUMANEVAL_MARKS = frozenset({"task_id", "prompt", "canonical_solution", "test", "entry_point"})
HUMANEVAL_X_MARKS = frozenset({"task_id", "prompt", "declaration", "canonical_solution", "test"})
MULTIPL_E_MARKS = frozenset({"name", "language", "prompt", "tests", "stop_tokens"})

# Texts that show that a completion has begun something new. The list for Python is HumanEval's; the others are alike.
STOPS = {
    "python": ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@"),
    "java": ("\nimport ", "\npublic class ", "\nclass "),
    "javascript": ("\nconst test", "\nconsole.", "\n/*"),
    "go": ("\nfunc Test", "\npackage ", "\nimport "),
    "rust": ("\n#[cfg(test)]", "\nmod tests", "\n/*"),
    "c++": ("\n#include", "\nint main", "\n/*"),
}


def humaneval_rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a problem of HumanEval, which is in Python."""
    language = request.language("python", location)
    number, given, name = _number(text(raw, "task_id")), text(raw, "prompt"), text(raw, "entry_point")
    check = BenchmarkCheck("humaneval", given, text(raw, "test"), name)
    signature = given[: given.find("\n", max(0, given.find(f"def {name}"))) + 1]
    prompt = request.prompt("benchmark", {"prompt": given, "language": language}, cut=_description(given, signature))
    target = text(raw, "canonical_solution")
    problem = f"HumanEval/{number}"
    row = Row(problem, language, prompt.text, target, prompt.body, stop=STOPS["python"], check=check)
    yield Example(row, location.line, location.split, (problem,))


def multipl_e_rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a problem of HumanEval or MBPP in any language, without a solution."""
    language = request.language(text(raw, "language"), location)
    name, given, stop = text(raw, "name"), text(raw, "prompt"), raw.get("stop_tokens")
    if not isinstance(stop, list) or not all(isinstance(word, str) and word for word in stop):
        raise BadRow("the field 'stop_tokens' is missing or not a list of texts that are not empty")
    if not (match := re.match(r"([A-Za-z]+)_(\d+)_", name)):
        raise BadRow("the field 'name' does not begin with benchmark and number", f" ({name})")
    benchmark = "HumanEval" if match[1].lower() == "humaneval" else match[1].lower()
    problem = f"{benchmark}/{match[2]}"
    check = BenchmarkCheck("multipl-e", given, text(raw, "tests"))
    first, last = given.find("\n") + 1, given.rstrip().rfind("\n") + 1
    prompt = request.prompt("benchmark", {"prompt": given, "language": language}, cut=(first, max(first, last)))
    row = Row(
        f"{name}-{language}", language, prompt.text, "", prompt.body, stop=tuple(stop), no_reference=True, check=check
    )
    yield Example(row, location.line, location.split, (problem,))


def humaneval_x_rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a solution to write from its description, or to translate from each other language of the study."""
    word, number = _language_and_number(raw)
    language, problem = request.language(word, location), f"HumanEval/{number}"
    target, stop = text(raw, "canonical_solution"), STOPS.get(canonical(word), ())
    if request.task == "generation":
        before = context_before(raw)
        fields = {"prompt": before, "language": language}
        prompt = request.prompt("benchmark", fields, cut=_description(before, _declaration(raw)))
        check = humaneval_x_check(raw, before)
        row = Row(f"{word}/{number}", language, prompt.text, target, prompt.body, stop=stop, check=check)
        yield Example(row, location.line, location.split, (problem,))
        return
    declaration = _declaration(raw)
    sources = [x for x in request.languages if x != language and (canonical(x), number) in request.linked]
    if not sources:
        raise NotRequested("a problem that no other language of the study solves")
    for source in sources:
        solved = request.linked[canonical(source), number]
        fields = {
            "code": (_declaration(solved) + solved["canonical_solution"]).strip("\n"),
            "language": language,
            "source_language": source,
        }
        prompt = request.prompt("translation", fields, after=declaration)
        check = humaneval_x_check(raw, declaration)
        id = f"{word}/{number}-from-{source}"
        row = Row(id, language, prompt.text, target, prompt.body, stop=stop, source_language=source, check=check)
        yield Example(row, location.line, location.split, (problem,))


def humaneval_x_check(raw: dict, before: str) -> BenchmarkCheck | None:
    """Returns the check of a completion that follows `before`; None where a test of Rust is commented out as a whole.

    Go's `test_setup` is its package line and the test's imports.
    """
    if raw["task_id"].startswith("Rust/") and "#[test]" not in _without_comments(text(raw, "test")):
        return None
    setup = f"{raw['test_setup']}\n" if raw.get("test_setup") else ""
    return BenchmarkCheck("humaneval-x", setup + before, text(raw, "test"))


def _without_comments(code: str) -> str:
    """The code without what stands between the signs of long comments; in linear time, unlike a regular expression."""
    before, *rest = code.split("/*")
    return before + "".join(part.partition("*/")[2] for part in rest)


def link_solutions(
    source: Source, files: list[SourceFile], request: ReadRequest, rejects: Rejects
) -> dict[tuple[str, str], dict]:
    """Reads the solutions that translations start from: {(language, problem number): published row}."""
    solved = {}
    if request.task == "translation":
        for file in files:
            # Bad rows are refused and counted where the rows themselves are read.
            for _, raw in raw_rows(file, lambda line, bad: None):
                try:
                    word, number = _language_and_number(raw)
                    text(raw, "canonical_solution")
                    text(raw, "declaration")
                except BadRow:
                    continue
                solved[canonical(word), number] = raw
        if len({language for language, _ in solved}) < 2:
            raise UserError(
                f"{source.address} holds HumanEval-X in fewer than two languages of the study; translation needs two."
            )
    return solved


def _language_and_number(raw: dict) -> tuple[str, str]:
    word, _, number = text(raw, "task_id").partition("/")
    return word, _number(f"{word}/{number}")


def _number(task_id: str) -> str:
    if not (match := re.fullmatch(r"[\w+#]+/(\d+)", task_id)):
        raise BadRow("the field 'task_id' is not of the form name/number", f" ({task_id})")
    return match[1]


def _declaration(raw: dict) -> str:
    return raw.get("import", "") + text(raw, "declaration")


def context_before(raw: dict) -> str:
    """Returns the text that precedes a completion: the prompt and, where it is apart (Rust), the declaration."""
    prompt, declaration = text(raw, "prompt"), text(raw, "declaration")
    signature = declaration.rstrip().rsplit("\n", 1)[-1].strip()
    return prompt if signature in prompt else prompt + declaration


def _description(given: str, declaration: str) -> tuple[int, int]:
    """The part of a prompt that is not its declaration, without its first and last line, which open and close it."""
    start = len(os.path.commonprefix([given, declaration]))
    end = len(given) - len(os.path.commonprefix([given[start:][::-1], declaration[::-1]]))
    first, last = given.find("\n", start) + 1, given.rstrip().rfind("\n", start, len(given[:end].rstrip())) + 1
    return (first, last) if 0 < first < last else (start, start)

"""The references of a benchmark, run against their own tests on this machine.

Every row's target is run as if it were its completion. A reference that fails points to a fault of the data, to the
version of the runtime, or to a missing package; no model can score more than the references do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studykit.data.checks import BenchmarkCheck
from studykit.data.jsonl import json_lines
from studykit.data.readers.humaneval import context_before, humaneval_x_check
from studykit.data.rejects import BadRow
from studykit.data.rows import Row, row_from_json
from studykit.errors import UserError
from studykit.evaluation import samples, scoring
from studykit.evaluation.execution import execute
from studykit.evaluation.execution.programs import executable
from studykit.study.languages import canonical

IDS_SHOWN = 5  # of the references that fail for one reason
FORMS = ("rows/*/test.jsonl", "*.jsonl", "*/data/humaneval_*.jsonl.gz", "*.jsonl.gz")  # files of a folder


@dataclass(frozen=True)
class ReferenceFailure:
    """References of one language that fail for the same reason."""

    status: str  # see `executable.ProgramResult`
    message: str  # see `samples.error_message`
    ids: list[str]  # of their rows


@dataclass(frozen=True)
class LanguageReferences:
    """The references of one language, as they were run."""

    language: str
    rows: int
    checked: int  # rows whose tests can be run
    failures: list[ReferenceFailure]  # the most frequent first

    @property
    def passed(self) -> int:
        """Returns the number of references that pass their tests."""
        return self.checked - sum(len(failure.ids) for failure in self.failures)


def verify_references(
    rows: Sequence[Row],
    *,
    timeout: float = 10.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    workers: int | None = None,
) -> list[LanguageReferences]:
    """Runs the references of all rows whose tests can be run, and returns the results language by language.

    Raises UserError when programs cannot be run on this machine.
    """
    checked = [row for row in rows if scoring.can_run(row)]
    programs = [executable(row.language, row.target, row.check) for row in checked if row.check]
    endings = execute.execute(
        programs, timeout=timeout, memory_mb=memory_mb, workers=workers, allow_unsandboxed=allow_unsandboxed
    )
    failures: dict[str, dict[tuple[str, str], list]] = defaultdict(lambda: defaultdict(list))
    for row, result in zip(checked, endings, strict=True):
        if not result.passed:
            reason = scoring.program_status(result), samples.error_message(result.stderr_tail, masked=False)
            failures[row.language][reason].append(row.id)
    with_tests = Counter(row.language for row in checked)
    results = []
    for language, n in Counter(row.language for row in rows).items():
        by_frequency = sorted(failures[language].items(), key=lambda item: -len(item[1]))
        reasons = [ReferenceFailure(status, message, ids) for (status, message), ids in by_frequency]
        results.append(LanguageReferences(language, n, with_tests[language], reasons))
    return results


def read_references(path: str | Path, languages: Sequence[str] = ()) -> list[Row]:
    """Reads the test rows of a data run, a JSON lines file of rows, or HumanEval-X or HumanEval as they are published.

    HumanEval-X may be its folder (`<language>/data/humaneval_<language>.jsonl.gz`) or one of its files.
    Raises UserError
    for any other file, and for a language that the rows do not have.
    """
    path, languages = Path(path), [canonical(language) for language in languages]
    files = [path] if path.is_file() else next(filter(None, (sorted(path.glob(form)) for form in FORMS)), [])
    rows = [row_of(line, file, location) for file in files for location, line in json_lines(file)]
    known = sorted({canonical(row.language) for row in rows})
    if not rows or set(languages) - set(known):
        missing = ", ".join(sorted(set(languages) - set(known))) or "any language"
        raise UserError(
            f"{path} has no rows of {missing}{'; it has ' + ', '.join(known) if known else ''}. Accepted are a data "
            "run, a .jsonl file of rows with checks, and HumanEval or HumanEval-X, a .jsonl or .jsonl.gz file or a "
            "folder of them."
        )
    return [row for row in rows if not languages or canonical(row.language) in languages]


def row_of(line: dict, file: Path, location: str) -> Row:
    """Returns the row of a line, which is a row already or a problem of HumanEval-X or HumanEval.

    Raises UserError that names the file and the line, for anything else.
    """
    if {"id", "language", "target"} <= line.keys():
        try:
            return row_from_json(line)
        except BadRow as bad:
            raise bad.at(location) from None
    if not {"task_id", "prompt", "canonical_solution", "test"} <= line.keys():
        raise UserError(
            f"{file} holds neither rows nor HumanEval nor HumanEval-X: a line has the fields {', '.join(line)}"
        )
    check: BenchmarkCheck | None
    if "declaration" not in line and "entry_point" in line:
        prompt, language = line["prompt"], "python"
        check = BenchmarkCheck("humaneval", prompt, line["test"], line["entry_point"])
    else:
        prompt, language = context_before(line), canonical(line["task_id"].partition("/")[0])
        check = humaneval_x_check(line, prompt)
    return Row(line["task_id"], language, prompt, line["canonical_solution"], check=check)


def format_references(results: Sequence[LanguageReferences]) -> str:
    """Returns the results as text: a line per language, and one per reason of a failure."""
    lines = []
    for one in results:
        untested = f", {one.rows - one.checked} rows have no test" if one.rows > one.checked else ""
        lines.append(f"{one.language:12} {one.passed:5} of {one.checked} references pass{untested}")
        for failure in one.failures:
            ids = ", ".join(map(str, failure.ids[:IDS_SHOWN])) + (", ..." if len(failure.ids) > IDS_SHOWN else "")
            lines.append(f"    {len(failure.ids):4} {failure.status}: {failure.message} ({ids})")
    return "\n".join(lines)

"""Whether the references of a benchmark pass their own tests here.

Every row's target is run as its completion. What fails is the fault of the data, of the runtime's version, or of a
package that is not there; a model cannot score more than the references do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from studykit.data.jsonl import json_lines
from studykit.data.languages import canonical
from studykit.data.readers.humaneval import given, humaneval_x_check
from studykit.data.rejects import BadRow
from studykit.data.rows import Row, row_from_json
from studykit.errors import UserError
from studykit.evaluation import samples, scoring
from studykit.evaluation.execution import execute
from studykit.evaluation.execution.programs import executable


def verify_references(
    rows: Sequence[Row],
    *,
    timeout: float = 10.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    workers: int | None = None,
) -> list[dict]:
    """One entry per language: {"language", "rows", "checked", "passed", "failures"}.

    failures: {"status", "message", "n", "ids"}, the most frequent first; rows without a check are not run. UserError
    when programs cannot be run here.
    """
    checked = [row for row in rows if scoring.can_run(row)]
    programs = [executable(row.language, row.target, row.check) for row in checked]
    verdicts = execute.execute(programs, timeout=timeout, memory_mb=memory_mb, workers=workers,
                               allow_unsandboxed=allow_unsandboxed)  # fmt: skip
    failures: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    for row, verdict in zip(checked, verdicts, strict=True):
        if not verdict.passed:
            way = scoring.status(verdict), samples.message(verdict.stderr_tail)
            failures[row.language][way].append(row.id)
    of_language = Counter(row.language for row in rows)
    with_check = Counter(row.language for row in checked)
    return [
        {
            "language": language, "rows": n, "checked": with_check[language],
            "passed": with_check[language] - sum(map(len, failures[language].values())),
            "failures": [
                {"status": status, "message": message, "n": len(ids), "ids": ids}
                for (status, message), ids in sorted(failures[language].items(), key=lambda item: -len(item[1]))
            ],
        }
        for language, n in of_language.items()
    ]  # fmt: skip


def read(path: str | Path, languages: Sequence[str] = ()) -> list[Row]:
    """Rows of a data run (its test rows), of a JSON lines file of rows, or of HumanEval-X (its folder or one file).

    UserError for what is none of these, and for a language that is not there.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("rows/*/test.jsonl")) or sorted(path.glob("*.jsonl"))
    rows = [row_of(line, file, place) for file in files for place, line in json_lines(file)]
    there = sorted({row.language for row in rows})
    if not rows or set(languages) - set(there):
        missing = ", ".join(sorted(set(languages) - set(there))) or "any language"
        raise UserError(
            f"{path} has no rows of {missing}{'; it has ' + ', '.join(there) if there else ''}. Accepted are a data "
            "run, a .jsonl file of rows with checks, and HumanEval-X, a .jsonl file or a folder of them."
        )
    return [row for row in rows if not languages or row.language in languages]


def row_of(line: dict, file: Path, place: str) -> Row:
    """A row as it is, or one of HumanEval-X, whose file has the name of the language."""
    if {"id", "language", "target"} <= line.keys():
        try:
            return row_from_json(line)
        except BadRow as bad:
            raise bad.at(place) from None
    if not {"task_id", "prompt", "canonical_solution", "test"} <= line.keys():
        raise UserError(f"{file} holds neither rows nor HumanEval-X: a line has the fields {', '.join(line)}")
    language = canonical(file.stem)
    prompt = given(line)
    check = humaneval_x_check(line, prompt)
    return Row(line["task_id"], language, prompt, line["canonical_solution"], check=check)


def table(entries: Sequence[dict]) -> str:
    """What `verify_references` found, as text: a line per language, and one per reason of a failure."""
    lines = []
    for entry in entries:
        without = entry["rows"] - entry["checked"]
        lines.append(f"{entry['language']:12} {entry['passed']:5} of {entry['checked']} references pass"
                     + (f", {without} rows have no test" if without else ""))  # fmt: skip
        for failure in entry["failures"]:
            some = ", ".join(map(str, failure["ids"][:5])) + (", ..." if failure["n"] > 5 else "")
            lines.append(f"    {failure['n']:4} {failure['status']}: {failure['message']} ({some})")
    return "\n".join(lines)

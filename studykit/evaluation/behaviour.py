"""Equal behaviour: whether a program does what its reference does, on inputs that are not among its tests.

- A built-in program is called with generated inputs, and its results are compared outside the sandbox with those of the
  evaluator of the typed tree. Inputs where languages would differ (the remainder of a negative number) are left out. A
  program that fails one of its tests does not behave like the reference, so only the others are run again.
- A translation without tests whose language can be run here is a whole program: it passes if it exits with 0 and writes
  what its reference writes. References that fail, write nothing, or write something else the next time are left out.
  Which ones these are is found once and kept in `runs/.cache`, so that all methods are scored on the same rows.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from studykit.data.checks import Call, FunctionCheck
from studykit.data.polyglot import PolyglotProgram, programs
from studykit.data.polyglot.syntax import Undefined
from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.evaluation.execution import execute
from studykit.evaluation.execution.executable import Executable, Outputs, Stdout
from studykit.evaluation.execution.programs import executable
from studykit.evaluation.execution.sandbox import NoSandboxError
from studykit.evaluation.scores import Score
from studykit.evaluation.scoring import ProgramEnd, can_run, conditions
from studykit.runs import code_digest, files
from studykit.runs.locks import locked
from studykit.study.languages import canonical

DRAWS = 20  # per wanted input, at most: most draws are defined and new
LETTERS = "abcdeXYZ-"
WAIT = 3600.0  # seconds for another process that runs the same references, at most


@dataclass(frozen=True)
class Limits:
    """The limits of one program."""

    timeout: float  # seconds
    memory_mb: int
    allow_unsandboxed: bool = False


def builtin_checks(rows: Sequence[Row], data: Mapping[str, Any], inputs: int) -> list[FunctionCheck | None]:
    """Returns the calls of each row's program with generated inputs; None for a row that is no built-in program.

    data: the parameters of the data run, whose seed draws the programs again.
    """
    if data.get("path") or not any(isinstance(row.check, FunctionCheck) for row in rows):
        return [None] * len(rows)
    drawn = programs_of_rows(len(rows), data["seed"])
    by_code = {(row.language, program.code(row.language)): program for row, program in zip(rows, drawn, strict=True)}
    found = [by_code.get((row.language, row.target)) for row in rows]
    return [generated_check(program, inputs) if program else None for program in found]


@lru_cache(maxsize=4)  # an evaluation asks for the same rows once per seed and phase
def programs_of_rows(n: int, seed: int) -> list[PolyglotProgram]:
    """Returns the programs of a data run's test rows, drawn again from its seed."""
    return programs(n, seed, "test")


@lru_cache(maxsize=4096)  # as above
def generated_check(program: PolyglotProgram, inputs: int) -> FunctionCheck | None:
    """Returns a check of up to `inputs` calls that are not among the program's tests; None if no input is defined.

    Half of the arguments are near those of the tests, the others are drawn anew; they follow from the program alone.
    """
    rng, tests = random.Random(f"behaviour {program.canonical!r}"), program.tests
    calls: list[Call] = []
    seen = [test.args for test in tests]
    for _ in range(DRAWS * inputs):
        near = rng.choice(tests).args if tests and rng.random() < 0.5 else None
        args = [
            varied(near[at], rng) if near else drawn_value(kind, rng)
            for at, (_, kind) in enumerate(program.function.params)
        ]
        if args in seen:
            continue
        seen.append(args)
        try:
            calls.append(Call(args, program.evaluate(args)))
        except Undefined:  # no language decides what is right there
            continue
        if len(calls) == inputs:
            break
    return FunctionCheck(program.name, calls) if calls else None


def drawn_value(kind: str, rng: random.Random) -> Any:
    """Draws an argument of a type: int, list (of ints) or string."""
    if kind == "int":
        return rng.randint(-25, 40)
    if kind == "list":
        return [rng.randint(-25, 40) for _ in range(rng.randint(0, 7))]
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(0, 9)))


def varied(value: Any, rng: random.Random) -> Any:
    """Returns an argument near another one: one number, item or letter more, less or changed."""
    if isinstance(value, int):
        return value + rng.choice((-3, -2, -1, 0, 1, 2, 3))
    items, at = list(value), rng.randint(0, len(value))
    new = rng.choice(LETTERS) if isinstance(value, str) else rng.randint(-9, 20)
    items[at : at + rng.randint(0, 1)] = [new] if rng.random() < 0.7 else []
    return "".join(items) if isinstance(value, str) else items


def behaviour_score(
    rows: Sequence[Row],
    texts: Sequence[str],
    ends: Sequence[ProgramEnd],
    checks: Sequence[FunctionCheck | None],
    limits: Limits,
    samples: int = 1,
) -> Score | None:
    """Returns the share of completions that behave like their references, in percent; None where no row allows it.

    texts: `samples` per row. ends: of the completions whose rows have tests, in their order, as they were run.
    checks: one per row, see `builtin_checks`.
    """
    covered = [index for index, check in enumerate(checks) if check]
    if not covered:
        return None
    statuses = iter(ends)
    passed = [can_run(row) and next(statuses).status == "passed" for row in rows for _ in range(samples)]
    chosen = [i * samples + k for i in covered for k in range(samples) if passed[i * samples + k]]
    again = [_called(rows[i // samples], texts[i], checks[i // samples]) for i in chosen]
    equal = dict(zip(chosen, (result.passed for result in execute.execute(again, **vars(limits))), strict=True))
    inputs = max(len(check.tests) for check in checks if check)
    return _score(rows, equal, covered, samples, f"inputs:{inputs}", limits)


def _called(row: Row, text: str, check: FunctionCheck | None) -> Executable:
    assert check is not None  # of the covered rows only
    return executable(row.language, text, check)


def reference_outputs(rows: Sequence[Row], limits: Limits) -> list[str | None]:
    """Returns what the whole program in each row's target writes; None where it fails, writes nothing, or writes
    something else when it is run again."""
    twice = [Executable(row.language, row.target, Stdout()) for row in rows for _ in range(2)]
    results = execute.execute(twice, **vars(limits))
    return [
        one.stdout if one.passed and other.passed and one.stdout.strip() and one.stdout == other.stdout else None
        for one, other in zip(results[::2], results[1::2], strict=True)
    ]


def kept_outputs(rows: Sequence[Row], limits: Limits) -> list[str | None]:
    """Returns `reference_outputs`, which are found once for the same references, limits, runtimes and code.

    They are kept in `runs/.cache`: what writes something else only now and then would otherwise be left out of some
    evaluations and not of others. A damaged file is written again. Raises UserError if another process takes too long.
    """
    about = {
        "references": [(canonical(row.language), row.target) for row in rows],
        "limits": vars(limits),
        "runtimes": [execute.runtime_version(name) for name in sorted({canonical(row.language) for row in rows})],
        "isolation": execute.isolation(limits.allow_unsandboxed),
        "code": code_digest.digest_modules("evaluation.execution.execute"),
    }
    name = f"references-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}"
    file = files.home() / "runs" / ".cache" / name / "written.json"
    with locked(file.parent, name, WAIT):
        kept = _read_outputs(file)
        if kept is None or len(kept) != len(rows):
            files.write_json(file, kept := reference_outputs(rows, limits))
    return kept


def _read_outputs(file: Path) -> list[str | None] | None:
    """The outputs in a file of `kept_outputs`; None if there is none that can be read."""
    try:
        return TypeAdapter(list[str | None]).validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def whole_program_score(
    rows: Sequence[Row], texts: Sequence[str], written: Sequence[str | None], limits: Limits, samples: int = 1
) -> Score | None:
    """Returns the share of whole programs that write what their references write; None if no reference can be run.

    texts: `samples` per row. written: by each row's reference, see `reference_outputs`.
    """
    covered = [index for index, output in enumerate(written) if output is not None]
    if not covered:
        return None
    chosen = [i * samples + k for i in covered for k in range(samples)]
    again = [
        Executable(rows[i // samples].language, texts[i], Outputs((("", (written[i // samples] or "",)),)))
        for i in chosen
    ]
    equal = dict(zip(chosen, (result.passed for result in execute.execute(again, **vars(limits))), strict=True))
    return _score(rows, equal, covered, samples, "inputs:none", limits)


def why_no_whole_programs(language: str, languages: Sequence[str] | None, allow_unsandboxed: bool) -> str | None:
    """Returns the reason why whole programs of a language are not run; None where they can be.

    languages: those whose programs may be run; None: all that have a runtime on this machine.
    """
    if languages is not None and canonical(language) not in languages:
        return f"evaluate.execute does not name {canonical(language)}."
    try:
        execute.runtime_version(language)
        execute.isolation(allow_unsandboxed)
    except (UserError, NoSandboxError) as error:
        return str(error)
    return None


def _score(
    rows: Sequence[Row], equal: Mapping[int, bool], covered: Sequence[int], samples: int, inputs: str, limits: Limits
) -> Score:
    values = [100.0 * float(np.mean([equal.get(i * samples + k, False) for k in range(samples)])) for i in covered]
    languages = sorted({canonical(rows[i].language) for i in covered})
    isolation, versions = execute.isolation(limits.allow_unsandboxed), map(execute.runtime_version, languages)
    return Score(
        label="Equal behaviour",
        value=float(np.mean(values)),
        signature=f"behaviour|{inputs}|samples:{samples}|"
        f"{conditions(limits.timeout, limits.memory_mb, isolation, versions)}|n:{len(values)}",
        per_example=values,
        n=len(values),
        rows=list(covered) if len(covered) < len(rows) else None,
    )

"""Executable programs out of a completion and the check of its row.

A `BenchmarkCheck` brings the text of a benchmark around the completion (`interpreted`, `compiled`). A `StdioCheck`
brings inputs and outputs (xCodeEval, arXiv:2303.03004); the completion is the whole program, and it is built and run as
ExecEval, that benchmark's judge, does. A `FunctionCheck` is that of the built-in data (`calls`),
a `CipherCheck` that of languages made from Lua.
"""

from __future__ import annotations

import re

from studykit.data.checks import BenchmarkCheck, Check, CipherCheck, FunctionCheck, StdioCheck
from studykit.data.polyglot import kin
from studykit.errors import UserError
from studykit.evaluation.execution import calls, compiled, interpreted, java
from studykit.evaluation.execution.executable import Executable, Outputs, Token
from studykit.evaluation.execution.runtimes import LANGUAGES, MAX_MB, MAX_SECONDS
from studykit.study.languages import canonical

HARNESSES = {
    "python": interpreted.python,
    "javascript": interpreted.javascript,
    "ruby": interpreted.ruby,
    "julia": interpreted.julia,
    "lua": interpreted.lua,
    "go": compiled.go,
    "rust": compiled.rust,
    "java": compiled.java,
    "c++": compiled.cpp,
}
JAVATUPLES = r"\b(?:Unit|Pair|Triplet|Quartet|Quintet|Sextet|Septet|Octet|Ennead|Decade)\b"


def executable(language: str, completion: str, check: Check) -> Executable:
    """Returns the program that shows whether `completion` is right.

    UserError for a language that the check cannot be run in, and for a check without tests.
    """
    language = canonical(language)
    if isinstance(check, CipherCheck):
        completion = kin.translated(completion, check.words)
        language, check = kin.LANGUAGE, FunctionCheck(check.function, check.tests)
    if isinstance(check, FunctionCheck):
        return Executable(language, *calls.script(language, completion, [check]))
    known = LANGUAGES if isinstance(check, StdioCheck) else HARNESSES
    if language not in known:
        raise UserError(f"a check of kind {check.kind!r} cannot be run in {language}; accepted are {', '.join(known)}")
    if isinstance(check, StdioCheck):
        if not check.tests:
            raise UserError("a check of kind 'stdio' has no tests")
        seconds = check.time_limit and check.time_limit * LANGUAGES[language].time_factor
        return Executable(
            language,
            java.program(completion) if language == "java" else completion,
            Outputs(tuple((test.input, test.outputs) for test in check.tests), execeval=True),
            timeout=seconds and min(seconds, MAX_SECONDS),
            memory_mb=check.memory_limit_mb and min(check.memory_limit_mb, MAX_MB),
        )
    after = check.after + (f"\ncheck({check.entry_point})\n" if check.form == "humaneval" else "")
    return Executable(language, HARNESSES[language](check.before, completion, after), Token())


def runs_in(language: str, check: Check | None) -> str:
    """Returns the canonical language in which completions are run: one that is made from Lua is run as Lua."""
    return kin.LANGUAGE if isinstance(check, CipherCheck) else canonical(language)


def missing_package(language: str, check: Check | None) -> str | None:
    """Returns the name of a package that the tests of a row need and no machine has by itself, or None.

    Such rows are left out of pass@k: no completion could pass them.
    """
    if canonical(language) != "java" or not isinstance(check, BenchmarkCheck):
        return None
    if "org.javatuples" not in check.before:
        return None
    return "javatuples" if re.search(JAVATUPLES, check.before + check.after) else None

"""An executable program, what shows that it is right, and its result."""

from __future__ import annotations

from dataclasses import dataclass

from studykit.errors import UserError
from studykit.evaluation.execution.runtimes import MAX_MB, MAX_SECONDS
from studykit.study.languages import canonical


@dataclass(frozen=True)
class Outputs:
    """The program is right if it exits with 0 on every stdin, having written one of the outputs accepted for it."""

    tests: tuple[tuple[str, tuple[str, ...]], ...]  # stdin, accepted outputs
    execeval: bool = False  # whether it is built and run under the conditions of ExecEval


@dataclass(frozen=True)
class Results:
    """The program is right if the last line of its stdout is a JSON list of the expected results.

    The program never sees them.
    """

    calls: tuple[str, ...]  # as a reader would write them, for messages
    expected: tuple  # None, bool, int, float, str, and lists of these


@dataclass(frozen=True)
class Token:
    """The program is right if the last line of its stdout is a token, which descriptor 3 gives once.

    This is for tests in the completion's language, see `hardening`.
    """


@dataclass(frozen=True)
class Stdout:
    """Nothing is compared: the program has passed if it exits with 0, and its stdout comes back."""


@dataclass(frozen=True)
class Executable:
    """A source file, and what shows that it is right."""

    language: str  # any of its names
    source: str
    shows: Outputs | Results | Stdout | Token
    timeout: float | None = None  # seconds per run, in place of the limit given to `execute`
    memory_mb: int | None = None  # likewise

    def __post_init__(self):
        object.__setattr__(self, "language", canonical(self.language))
        for name, value, most in (("timeout", self.timeout, MAX_SECONDS), ("memory_mb", self.memory_mb, MAX_MB)):
            if value is not None and not 0 < value <= most:
                raise UserError(f"the {name} of a program is {value:g}; accepted are numbers above 0, up to {most:g}.")

    @property
    def tests(self) -> int | None:
        """Returns the number of single tests; None where only all of them together are known to pass."""
        if isinstance(self.shows, Results):
            return len(self.shows.expected)
        return len(self.shows.tests) if isinstance(self.shows, Outputs) else None


@dataclass(frozen=True)
class ProgramResult:
    """How one program ended."""

    status: str  # passed | failed (a wrong answer) | error (syntax, crash) | timeout | memory | output (over 8 MB)
    seconds: float  # wall time; of its longest run where it has several
    stderr_tail: str  # its last 2,000 bytes, or what was expected and what came
    tests: tuple[int, int] | None = None  # single tests passed, and all; None where `Executable.tests` is
    stdout: str = ""  # of a program that `Stdout` observes

    @property
    def passed(self) -> bool:
        return self.status == "passed"

"""Run model-written programs and say how each one ended.

A program with a nonce passes iff it exits with 0 and the last line of its stdout is the nonce, a random word that only
a script which reached its end prints. A program with tests passes iff it exits with 0 on every test's stdin, having
written one of the outputs that the test accepts. Programs are spread over `workers` runner processes, each in a sandbox
(`sandbox.py`) and with interpreter start-up paid once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm.auto import tqdm

from studykit.evaluation.execution import runtimes, sandbox
from studykit.evaluation.execution.output import same_output


@dataclass(frozen=True)
class Executable:
    """A source file, and what shows that it is right: a nonce, or tests (stdin, the outputs that are accepted).

    timeout (seconds per run), memory_mb: the problem's own limits, in place of those given to `execute`.
    """

    language: str
    source: str
    nonce: str = ""
    tests: tuple[tuple[str, tuple[str, ...]], ...] = ()
    timeout: float | None = None
    memory_mb: int | None = None


@dataclass(frozen=True)
class Verdict:
    """How one program ended.

    status: passed | failed (exit 0, but no nonce or another output: a wrong answer or an early exit) | error (non-zero
    exit, syntax error, crash) | timeout | memory | output (wrote more than 8 MB). seconds: wall time of the program; of
    its longest run where it has tests. stderr_tail: the last 2,000 bytes of stderr.
    """

    status: str
    seconds: float
    stderr_tail: str

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def available(language: str) -> bool:
    """Whether programs of `language` can be run on this machine; UserError for a language that is not known."""
    return runtimes.find(language) is not None


def runtime_version(language: str) -> str:
    """The runtime's name and version, e.g. "CPython 3.11.7"; UserError that names what is missing."""
    return runtimes.require(language).version


def isolation(allow_unsandboxed: bool = False) -> str:
    """The isolation that `execute` uses here, for the record of a result: "bwrap", "unshare", "apptainer", "podman" or
    "rlimits (NOT isolated)".

    " as root" is appended where root could not become nobody, ", files writable" where `unshare` cannot protect files
    (Linux < 5.12). UserError when nothing works that is allowed.
    """
    chosen = sandbox.choose(allow_unsandboxed)
    if chosen.level == "rlimits":
        return f"{chosen} (NOT isolated)"
    with sandbox.Runner(chosen) as runner:
        return str(chosen) if runner.contained else f"{chosen}, files writable"


def execute(
    programs: Sequence[Executable],
    *,
    timeout: float = 4.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    workers: int | None = None,
) -> list[Verdict]:
    """Run programs; one verdict each, in the order given.

    timeout: wall-clock seconds per run (building a compiled program and `Language.start_seconds` are not counted).
    memory_mb: per process. workers: runner processes, by default one per usable core. UserError, before anything runs,
    for a missing runtime or missing isolation.
    """
    for language in sorted({program.language for program in programs}):
        runtimes.require(language)
    if not programs:
        return []
    chosen = sandbox.choose(allow_unsandboxed)
    count = min(workers or _cores(), len(programs))
    verdicts: list[Verdict | None] = [None] * len(programs)
    queue, lock, stop = iter(range(len(programs))), threading.Lock(), threading.Event()
    with (
        tqdm(total=len(programs), desc="execute", unit="program", leave=False) as bar,
        ThreadPoolExecutor(count) as pool,
    ):

        def take() -> Iterator[int]:
            while not stop.is_set():
                with lock:
                    index = next(queue, None)
                if index is None:
                    return
                yield index
                with lock:
                    bar.update()

        def work() -> None:
            runner = None
            try:
                for index in take():
                    runner, verdicts[index] = _run(runner, chosen, programs[index], timeout, memory_mb)
            finally:
                if runner is not None:
                    runner.close()

        try:
            for done in [pool.submit(work) for _ in range(count)]:
                done.result()
        finally:
            stop.set()
    return verdicts


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(runner, chosen, program: Executable, timeout: float, memory_mb: int) -> tuple[sandbox.Runner | None, Verdict]:
    """One verdict, and the runner for the next program.

    A program whose runner dies gets a second, fresh one: it may be innocent.
    """
    for _ in range(2):
        runner = runner or sandbox.Runner(chosen)  # if that fails it is not the program's fault: nothing is scored
        try:
            return runner, verdict(runner, program, timeout, memory_mb)
        except sandbox.RunnerDied as death:
            reason = str(death)
            runner.close()
            runner = None
    return None, Verdict("error", 0.0, f"the sandbox did not survive this program: {reason}")


def verdict(runner: sandbox.Runner, program: Executable, timeout: float, memory_mb: int) -> Verdict:
    """Build a program, and run it until its first failure; RunnerDied when the runner does not survive it."""
    built = runner.build(program.language, program.source, program.timeout or timeout, program.memory_mb or memory_mb)
    if built["status"] != "ok":
        return Verdict(built["status"], 0.0, built["stderr"])
    if not program.tests:
        reply = runner.run()
        passed = reply["stdout"].rstrip("\n").rpartition("\n")[2] == program.nonce != ""
        return Verdict(_status(reply, passed), round(reply["seconds"], 4), reply["stderr"])
    longest = 0.0
    for number, (stdin, accepted) in enumerate(program.tests, 1):
        reply = runner.run(stdin, runtimes.LANGUAGES[program.language].output_mb << 20)
        longest = max(longest, reply["seconds"])
        passed = any(same_output(reply["stdout"], output) for output in accepted)
        if (status := _status(reply, passed)) != "passed":
            said = reply["stderr"] or f"test {number}: expected {accepted[0][:100]!r}, got {reply['stdout'][:100]!r}\n"
            return Verdict(status, round(longest, 4), said)
    return Verdict("passed", round(longest, 4), reply["stderr"])


def _status(reply: dict, passed: bool) -> str:
    return reply["status"] if reply["status"] != "ok" else "passed" if passed else "failed"

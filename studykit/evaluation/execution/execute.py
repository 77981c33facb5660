"""Model-written programs are run, and each gets a result.

What is covered:

- no network, no file of the user's, and nothing of one program within reach of another (`sandbox.py`);
- processor time, memory, files, processes and output of the whole program, not of one of its processes;
- expected values stay outside: a program that reads and writes, and a function of the built-in data, is compared here.

What is not covered: a bug in the kernel, and programs whose tests share their process (`hardening.py`), where a
program written against this very kit can pass without being right.

    >>> program = Executable("python", "print(int(input()) + 1)", Outputs((("1", ("2",)),)))
    >>> execute([program])[0].status
    'passed'
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

from tqdm.auto import tqdm

from studykit.errors import UserError
from studykit.evaluation.execution import calls, runtimes, sandbox
from studykit.evaluation.execution.executable import Executable, Outputs, ProgramResult, Results, Stdout, Token
from studykit.evaluation.execution.output import same_output
from studykit.evaluation.execution.runner import Reply, Runner, RunnerDied, Sandbox


def runtime_version(language: str) -> str:
    """Returns the runtime's name and version, e.g. "CPython 3.11.7"; UserError that names what is missing."""
    return runtimes.require(language).version


def isolation(allow_unsandboxed: bool = False) -> str:
    """Returns the isolation that `execute` uses here, for the record of a result: a level of `sandbox.LEVELS`.

    " as root" is appended where a level was named by which root's programs run as root, and "(NOT isolated)" to
    `rlimits`. UserError when nothing works that is allowed.
    """
    chosen = sandbox.choose(allow_unsandboxed)
    return f"{chosen} (NOT isolated)" if chosen.level == "rlimits" else str(chosen)


def execute(
    programs: Sequence[Executable],
    *,
    timeout: float = 4.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    workers: int | None = None,
) -> list[ProgramResult]:
    """Runs programs and returns one result each, in the order given.

    Args:
        timeout: seconds per run, of processor time or of waiting. Building a compiled program and
            `Language.start_seconds` are not counted, nor is waiting for a processor on a busy machine, up to ten times
            this limit.
        memory_mb: of the whole program: private and shared memory of all its processes, and its files, which lie in
            memory.
        workers: sandboxes at a time, by default one per usable core.

    Raises:
        UserError: before anything runs, for a missing runtime or missing isolation, or a limit out of range; and when a
            program could not be started, for which it is not to blame.
    """
    for name, value, most in (("timeout", timeout, runtimes.MAX_SECONDS), ("memory_mb", memory_mb, runtimes.MAX_MB)):
        if not 0 < value <= most:
            raise UserError(f"{name} is {value:g}; accepted are numbers above 0, up to {most:g}.")
    for language in sorted({program.language for program in programs}):
        runtimes.require(language)
    if not programs:
        return []
    chosen = sandbox.choose(allow_unsandboxed)
    count = min(workers or _cores(), len(programs))
    results: list[ProgramResult | None] = [None] * len(programs)
    queue, lock, stop = iter(range(len(programs))), threading.Lock(), threading.Event()
    with (
        tqdm(total=len(programs), desc="execute", unit="program", leave=False, disable=len(programs) < 2) as bar,
        ThreadPoolExecutor(count) as pool,
    ):

        def waiting() -> Iterator[int]:
            while not stop.is_set():
                with lock:
                    index = next(queue, None)
                if index is None:
                    return
                yield index
                with lock:
                    bar.update()

        def work() -> None:
            runner: Runner | None = None
            try:
                for index in waiting():
                    runner, results[index] = _run(runner, chosen, programs[index], timeout, memory_mb)
            finally:
                if runner is not None:
                    runner.close()

        try:
            for done in [pool.submit(work) for _ in range(count)]:
                done.result()
        finally:
            stop.set()
    return cast(list[ProgramResult], results)  # `waiting` has given out every index


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(
    runner: Runner | None, chosen: Sandbox, program: Executable, timeout: float, memory_mb: int
) -> tuple[Runner | None, ProgramResult]:
    """Returns one result and the runner for the next program.

    A program whose runner dies gets a second, fresh one: it may be innocent.
    """
    for _ in range(2):
        runner = runner or Runner(chosen)  # if that fails it is not the program's fault: nothing is scored
        try:
            reached = judge(runner, program, timeout, memory_mb)
            if chosen.level == "bwrap-renewed":
                runner.close()
                return None, reached
            return runner, reached
        except RunnerDied as death:
            reason = str(death)
            runner.close()
            runner = None
    tests = (0, program.tests) if program.tests else None
    return None, ProgramResult("error", 0.0, f"the sandbox did not survive this program: {reason}", tests)


def judge(runner: Runner, program: Executable, timeout: float, memory_mb: int) -> ProgramResult:
    """Builds a program, runs it, and returns its result: that of the first test that fails, if one does.

    Inputs after a failure are run too, to count the tests that pass, but none after an exceeded limit.

    RunnerDied when the runner does not survive it.
    """
    shows, language = program.shows, program.language
    execeval = isinstance(shows, Outputs) and shows.execeval
    limits = program.timeout or timeout, program.memory_mb or memory_mb
    built = runner.build(language, program.source, *limits, execeval)
    if built.status != "ok":
        return ProgramResult(built.status, 0.0, built.stderr, (0, program.tests) if program.tests else None)
    stdout_bytes = runtimes.LANGUAGES[language].output_mb << 20
    if isinstance(shows, Results):
        reply = runner.run("", stdout_bytes)
        complete = reply.status == "ok"
        tests = calls.count_right(language, shows, reply.stdout), len(shows.expected)
        if problem := calls.problem(language, shows, reply.stdout, complete):
            return ProgramResult("failed", round(reply.seconds, 4), problem, tests)
        return _result(reply, "", reply.seconds, tests)
    if isinstance(shows, Stdout):
        reply = runner.run("", stdout_bytes)
        return replace(_result(reply, "", reply.seconds), stdout=reply.stdout)
    if isinstance(shows, Token):
        token = secrets.token_hex(16)
        reply = runner.run(token=token)
        last_line = reply.stdout.rstrip("\n").rpartition("\n")[2]
        return _result(reply, "" if last_line == token else reply.stderr or NOT_REACHED, reply.seconds)
    longest, right, failure = 0.0, 0, ""
    for number, (stdin, accepted) in enumerate(shows.tests, 1):
        reply = runner.run(stdin, stdout_bytes)
        longest = max(longest, reply.seconds)
        if reply.status == "ok" and any(same_output(reply.stdout, output) for output in accepted):
            right += 1
            continue
        if not failure:
            wrong = f"test {number}: expected {accepted[0][:100]!r}, got {reply.stdout[:100]!r}\n"
            first, failure = reply, reply.stderr or wrong
        if reply.status not in ("ok", "error"):
            break
    return _result(first if failure else reply, failure, longest, (right, len(shows.tests)))


NOT_REACHED = "the program ended before all of its tests had run\n"


def _result(reply: Reply, problem: str, seconds: float, tests: tuple[int, int] | None = None) -> ProgramResult:
    """Returns the result of a program by the reply to a run and, if it exited with 0, its `problem`."""
    status = reply.status if reply.status != "ok" else "failed" if problem else "passed"
    return ProgramResult(status, round(seconds, 4), problem or reply.stderr, tests)

"""A study run from the command to its report: one command per project, Snakemake below it, an end that is clean.

    this process (the command)  --- Snakemake --- papermill --- kernel

Snakemake runs in a session of its own, so that Ctrl-C and SIGTERM reach only this process, which then stops the rest
in order: notebooks are interrupted, saved as far as they came, and end; whatever does not end in time is killed. If
this process is killed itself, everything below it ends within about a second (see `process.watch`).

The study file is read once. If it is edited meanwhile, a message says that the report shows the study as it was.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import expanduser
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, TextIO

import psutil

from studykit.errors import UserError, printable
from studykit.report import pages
from studykit.runs import files
from studykit.runs import process as runs_process
from studykit.runs import status as runs_status
from studykit.runs.locks import Lock
from studykit.runs.manifest import MANIFEST
from studykit.runs.text import format_duration
from studykit.study.family import StudyPlan
from studykit.study.plan import Run
from studykit.workflow import display, progress, slurm, snakemake, steps, studies, warm
from studykit.workflow.lock import only_command, wait_for_orphans

GRACE = 6.0  # seconds that interrupted notebooks get to be saved
FORCE = ("--forcerun", "-R")
JOB = re.compile(r"^Job \d+: (\w+) (\S+)$", re.MULTILINE)  # stage and run, in the words of a dry run
EMPTY_ERROR = "WorkflowError:\nAt least one job did not complete successfully."


def run(
    planned: StudyPlan, cores: int | None, dry_run: bool, verbose: bool, extra: list[str], report: bool = True
) -> int:
    """Makes everything of a study that is missing, damaged or out of date, then its report; returns the exit code.

    Args:
        planned: the study and its runs.
        cores: notebooks at a time; None means as the profile says.
        extra: options for Snakemake.
        report: whether the runs are all of the study, of which a report follows; False for a part of them.
    """
    file, study = planned.file, planned.study
    pages.require_unique_name(file, study)
    if "--config" in extra or "-C" in extra:
        raise UserError("--config turns numbers into text; write the value into the study file, or a copy of it.")
    options = [*extra, "--cores", str(cores)] if cores else extra
    settings = snakemake.read_options(options)
    targets = [] if report else [f"{run.dir}/notebook.ipynb" for run in planned.runs]
    options = [*targets, "--configfile", file, *options, *settings.options]
    os.environ[runs_process.COMMAND] = runs_process.name()
    _provide_cache()
    if extra:
        snakemake.check_options(options)
    if dry_run:
        return _dry_run(planned, options, verbose)
    os.environ[warm.SWITCH] = os.environ.get(warm.SWITCH, "1") if settings.executor == "local" else "0"
    content = _digest(file)
    log_file, began = Path("logs", f"{study.study}.snakemake.txt"), time.time()
    with only_command() as lock:
        earlier = _log_times(planned.runs)
        studies.remember(file)
        if cancelled := slurm.cancel_left_jobs(settings.executor):
            _print(f"studykit: {cancelled}", sys.stderr)
        wait_for_orphans(planned.runs)
        for damaged_run in _report_damage(planned.runs):  # without its outputs Snakemake makes it again
            for output in (MANIFEST, "notebook.ipynb"):
                (files.home() / damaged_run.dir / output).unlink(missing_ok=True)
        with _opened(None if verbose else log_file) as log:
            if any(Path(".snakemake/locks").glob("*")):  # this is the only command, so a dead one left them
                unlock = [*snakemake.COMMAND, "--unlock", "--quiet", "all", *options[len(targets) :]]
                subprocess.run(unlock, stdout=log, stderr=log)
            code = _run_snakemake([*snakemake.COMMAND, *options], lock, log, planned.runs, settings)
        if code > 128:
            _report_failures(planned.runs, earlier, None)
            _print(
                f"studykit: stopped; the same command continues it, `studykit report {file}` shows what there is",
                sys.stderr,
            )
            return code
        index = pages.write_report(planned).relative_to(files.home()) if report else None  # also after a failure
        if index and not code and (made := progress.finished_since(planned.runs, began)):
            studies.keep_wall_time(file, len(made), time.time() - began)
    if _digest(file) != content:
        _print(
            f"studykit: {file} was edited meanwhile; the runs and the report are those of the study as it was when "
            "the command began; the same command makes those of the edited study",
            sys.stderr,
        )
    if code:
        _report_failures(planned.runs, earlier, None if verbose else log_file)
        shown = f"the report shows what did: {index}" if index else "the same command tries the rest again"
        _print(f"studykit: not everything ran; {shown}", sys.stderr)
    else:
        if shares := progress.describe_shares(planned.runs, began):
            _print(f"studykit: {shares}, in {format_duration(time.time() - began, rounded=True)}", sys.stdout)
        if index:
            _print(f"studykit: the report is {index}", sys.stdout)
    return code


def _dry_run(planned: StudyPlan, options: list[str], verbose: bool) -> int:
    """Prints what Snakemake would run, each run with the reason; returns Snakemake's exit code."""
    statuses = runs_status.study_status(planned.runs)
    damaged = [f"{run.dir}/{MANIFEST}" for run in _report_damage(planned.runs)]
    force = [FORCE[0], *damaged] if damaged and not any(option in options for option in FORCE) else []
    command = [*snakemake.COMMAND, "--dry-run", *options, *force, "--quiet", "host"]
    if verbose:
        return subprocess.run(command).returncode
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        _print(done.stdout, sys.stderr)
        return done.returncode
    made = {f"{stage}/{name}" for stage, name in JOB.findall(done.stdout)}
    todo = [run for run in planned.runs if run.name in made]
    for run in todo:
        status = statuses[run]
        is_new = any(need in todo for need in run.needs)
        asked = "an input is run again" if is_new else "an option of Snakemake asks for it"
        _print(f"{run.name}\n    {status.error or runs_status.VERBS.get(status.state, asked)}", sys.stdout)
    _print(f"{len(todo)} of {len(planned.runs)} runs would be made, then the report.", sys.stdout)
    return 0


def _provide_cache() -> None:
    """Gives Snakemake a directory for its caches where the user's home directory is absent or cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or expanduser("~/.cache"))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            return
    except OSError:
        own = files.home() / ".snakemake" / "cache"
        own.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("HF_HOME", str(cache / "huggingface"))  # what the hub's library has there can be read
        os.environ["XDG_CACHE_HOME"] = str(own)


def _digest(file: str) -> str | None:
    return files.sha256(files.home() / file)


def _report_damage(planned: list[Run]) -> list[Run]:
    """Prints a sentence for every damaged run of a plan and returns these runs."""
    statuses = runs_status.study_status(planned)
    damaged = [run for run, status in statuses.items() if status.state == "damaged"]
    for run in damaged:
        _print(f"studykit: {run.name} is damaged ({statuses[run].error}) and is run again", sys.stderr)
    return damaged


def _print(line: str, to: TextIO) -> None:
    """Prints a line. A reader that is gone (`| head`, a closed terminal) fails no study: later lines go nowhere."""
    try:
        print(line, file=to, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())


@contextmanager
def _opened(log_file: Path | None) -> Iterator[BinaryIO | None]:
    """The file for Snakemake's own messages; None leaves them to the terminal."""
    if log_file is None:
        yield None
        return
    log_file.parent.mkdir(exist_ok=True)
    with open(log_file, "wb") as log:
        yield log


def _run_snakemake(
    command: list[str], lock: Lock, log: BinaryIO | None, planned: list[Run], settings: snakemake.SnakemakeOptions
) -> int:
    """Runs Snakemake and shows how it goes; returns its exit code, or 128 + the signal that stopped this process."""

    def stop(number: int, _) -> None:
        raise SystemExit(128 + number)

    # Under nohup the end of the terminal is ignored, and stays so. Ctrl-C never is: see `snakemake`.
    stopping = [signal.SIGTERM, signal.SIGINT]
    stopping += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    before = {number: signal.signal(number, stop) for number in stopping}
    # It inherits the lock: no other command can start while anything of this one still writes.
    process = subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=lock.descriptors
    )
    try:
        return process.wait() if log is None else _show(process, log, planned, settings)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # stopping is under way
        _stop(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(process: subprocess.Popen, log: BinaryIO, planned: list[Run], settings: snakemake.SnakemakeOptions) -> int:
    """Shows how Snakemake goes until it ends; returns its exit code. An error of the display does not end the study."""
    try:
        return display.follow(process, planned, settings.places, sys.stdout, settings.gpus)
    except Exception as error:
        message = (
            f"studykit: the study goes on, but its progress can no longer be shown ({type(error).__name__}: {error})"
        )
        log.write(f"{message}\n{traceback.format_exc()}".encode())
        log.flush()
        _print(message, sys.stderr)
        return process.wait()


def _stop(process: subprocess.Popen) -> None:
    """Interrupts whatever still runs, as Ctrl-C in a terminal would; kills what has not ended in time."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _, alive = psutil.wait_procs(below, timeout=2)
    for child in alive:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue  # it has ended by itself meanwhile
    psutil.wait_procs(alive, timeout=2)


def _log_times(planned: list[Run]) -> dict[Run, float]:
    return {run: steps.modified(files.home() / f"logs/{run.name}.txt") for run in planned}


def _report_failures(planned: list[Run], earlier: dict[Run, float], log_file: Path | None) -> None:
    """Prints the error of every notebook that failed under this command.

    Where none did, it prints Snakemake's own error from its log, if there is one.

    Args:
        earlier: when the logs had last been written before: a failure of then is not the reason of this one.
    """
    times = _log_times(planned)
    failures = {
        run: status
        for run, status in runs_status.study_status(planned).items()
        if status.state in ("failed", "stopped") and times[run] != earlier[run]
    }
    for run, status in failures.items():
        log = status.log.relative_to(files.home()) if status.log else f"logs/{run.name}.txt"
        _print(f"studykit: {run.name}: {status.error}\n    see {log}", sys.stderr)
    if not failures and log_file:
        _print(f"studykit: Snakemake: {last_error(log_file)}\n    see {log_file}", sys.stderr)


def last_error(log_file: Path) -> str:
    """Returns the sentence in which Snakemake says what is wrong: its last line about an error, else its last line."""
    text = log_file.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.replace(EMPTY_ERROR, "").split("\n") if line.strip()]
    last = max((i for i, line in enumerate(lines) if re.search(r"(Error|Exception)\b", line)), default=len(lines) - 1)
    count = 2 if lines and lines[last].endswith(":") else 1
    return printable(" ".join(lines[last : last + count]))[:400] or "it printed nothing."

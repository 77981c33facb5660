"""Drives a study from the command to its report: one engine per project, Snakemake under it, an end that is clean.

    this process (the engine)  --- Snakemake --- papermill --- kernel

Snakemake runs in a session of its own, so that Ctrl-C and SIGTERM reach this process alone, which then stops the rest
in order: notebooks are interrupted, saved as far as they came, and end; what does not end in time is killed. If this
process is killed itself, everything below it ends within about a second (see `engine.watch`).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import psutil

from studykit.errors import UserError
from studykit.report import pages
from studykit.runs import files
from studykit.runs import process as runs_process
from studykit.runs import status as runs_status
from studykit.study import plan
from studykit.study.file import load_study
from studykit.workflow import progress, slurm, snakemake, studies
from studykit.workflow.lock import only_engine, wait_for_orphans

GRACE = 20.0  # seconds that interrupted notebooks get to be saved


def run(file: str, cores: int | None, dry_run: bool, verbose: bool, extra: list[str]) -> int:
    """Make everything of a study that is missing or out of date, then its report; the exit code."""
    study = load_study(file)
    pages.require_unique_name(file, study)
    planned = plan.plan(study)
    if "--config" in extra or "-C" in extra:
        raise UserError("--config turns numbers into text; write the value into the study file, or a copy of it.")
    options = [*extra, "--cores", str(cores)] if cores else extra
    asked = snakemake.asked(options)
    options = ["--configfile", file, *options, *asked.options]
    # The index is also written after a failure or a stop; it must not pass for a sign that all runs are there.
    if any(not (files.home() / run.dir / "notebook.ipynb").is_file() for run in planned):
        options += ["--forcerun", "index"] if "--forcerun" not in extra and "-R" not in extra else []
    if dry_run:
        return subprocess.run([*snakemake.COMMAND, "--dry-run", *options]).returncode
    chatter = Path("logs", f"{study.study}.snakemake.txt")
    with only_engine() as lock:
        studies.remember(file)
        os.environ["STUDYKIT_ENGINE"] = runs_process.name()
        if cancelled := slurm.cancel_left_jobs(asked.executor):
            _tell(f"studykit: {cancelled}", sys.stderr)
        wait_for_orphans(planned)
        with _told(None if verbose else chatter) as log:
            if any(Path(".snakemake/locks").glob("*")):  # ours is the only engine, so it was left by a dead one
                subprocess.run([*snakemake.COMMAND, "--unlock", "--quiet", "all", *options], stdout=log, stderr=log)
            code = _follow([*snakemake.COMMAND, *options], lock, log, planned, asked)
        index = pages.write_report(file).relative_to(files.home())  # also when something failed, or only prose has changed
    if code:
        _say_what_failed(planned, None if verbose or code > 128 else chatter)
        _tell(f"studykit: not everything ran; what there is stands in {index}", sys.stderr)
    else:
        _tell(f"studykit: the report is {index}", sys.stdout)
    return code


def _tell(line: str, to: TextIO) -> None:
    """Print a line. A reader that is gone (`| head`, a closed terminal) fails no study: the rest is told to nobody."""
    try:
        print(line, file=to, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())


@contextmanager
def _told(chatter: Path | None) -> Iterator[BinaryIO | None]:
    """Where Snakemake's own messages go: a file, or the terminal."""
    if chatter is None:
        yield None
        return
    chatter.parent.mkdir(exist_ok=True)
    with open(chatter, "wb") as log:
        yield log


def _follow(command: list[str], lock: BinaryIO, log: BinaryIO | None, planned: list[plan.Run],
            asked: snakemake.Asked) -> int:  # fmt: skip
    """Run Snakemake and show how it goes; its exit code, or 128 + the signal that stopped this process."""

    def stop(number: int, _) -> None:
        raise SystemExit(128 + number)

    # Under nohup the end of the terminal is ignored, and stays so. Ctrl-C never is: see `snakemake`.
    stopping = [signal.SIGTERM, signal.SIGINT]
    stopping += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    before = {number: signal.signal(number, stop) for number in stopping}
    # It inherits the lock: a new engine cannot start while anything of this one still writes.
    process = subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock.fileno()]
    )
    try:
        return process.wait() if log is None else _shown(process, log, planned, asked)
    except SystemExit as told:
        return int(told.code or 0)
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # stopping is under way
        _stop(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _shown(process: subprocess.Popen, log: BinaryIO, planned: list[plan.Run], asked: snakemake.Asked) -> int:
    """Show how it goes until Snakemake ends; its exit code. Whatever goes wrong with that, hours of computing go on."""
    try:
        return progress.follow(process, planned, asked.places, sys.stdout, asked.gpus)
    except Exception as error:
        said = f"studykit: the study goes on, but how it goes can no longer be shown ({type(error).__name__}: {error})"
        log.write(f"{said}\n{traceback.format_exc()}".encode())
        log.flush()
        _tell(said, sys.stderr)
        return process.wait()


def _stop(process: subprocess.Popen) -> None:
    """Interrupt what still runs, as Ctrl-C in a terminal would; kill what has not ended in time."""
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
    for one in alive:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue  # it has ended by itself meanwhile
    psutil.wait_procs(alive, timeout=2)


def _say_what_failed(planned: list[plan.Run], chatter: Path | None) -> None:
    """The error of every notebook that failed; where none did, Snakemake's own from its log, if there is one."""
    told = False
    for run, status in runs_status.of_study(planned).items():
        if status.state in ("failed", "stopped"):
            told = True
            see = status.log.relative_to(files.home()) if status.log else f"logs/{run.name}.txt"
            _tell(f"studykit: {run.name}: {status.error}\n    see {see}", sys.stderr)
    if not told and chatter:
        _tell(f"studykit: Snakemake: {last_error(chatter)}\n    see {chatter}", sys.stderr)


SAYS_NOTHING = "WorkflowError:\nAt least one job did not complete successfully."


def last_error(chatter: Path) -> str:
    """The sentence in which Snakemake said what was wrong: its last line that speaks of an error, else its last."""
    text = chatter.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.replace(SAYS_NOTHING, "").split("\n") if line.strip()]
    at = max((i for i, line in enumerate(lines) if re.search(r"(Error|Exception)\b", line)), default=len(lines) - 1)
    said = lines[at : at + 2] if lines and lines[at].endswith(":") else lines[at : at + 1]
    return " ".join(said)[:400] or "it said nothing."

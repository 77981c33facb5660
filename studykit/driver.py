"""Drives a study from the command to its report: one engine per project, Snakemake under it, an end that is clean.

    this process (the engine)  --- Snakemake --- papermill --- kernel

Snakemake runs in a session of its own, so that Ctrl-C and SIGTERM reach this process alone, which then stops the rest
in order: notebooks are interrupted, saved as far as they came, and end; what does not end in time is killed. If this
process is killed itself, everything below it ends within about a second (see `engine.watch`).
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import psutil

from studykit import engine, plan, progress, reports, runs, standing
from studykit.params import UserError
from studykit.study import load_study

WAIT = 15.0  # seconds that notebooks of a dead engine get to end; their watchdog needs about one
GRACE = 20.0  # seconds that interrupted notebooks get to be saved


def run(file: str, cores: int | None, dry_run: bool, verbose: bool, extra: list[str]) -> int:
    """Make everything of a study that is missing or out of date, then its report; the exit code."""
    study = load_study(file)
    planned = plan.plan(study)
    if "--config" in extra or "-C" in extra:
        raise UserError("--config turns numbers into text; write the value into the study file, or a copy of it.")
    options = ["--configfile", file, *extra]
    options += ["--cores", str(cores)] if cores else []
    options += ["--resources", f"gpu={len(engine.gpus())}"] if engine.gpus() and "--resources" not in extra else []
    # The index is also written after a failure or a stop; it must not pass for a sign that all runs are there.
    if any(not (runs.home() / run.dir / "notebook.ipynb").is_file() for run in planned):
        options += ["--forcerun", "index"] if "--forcerun" not in extra and "-R" not in extra else []
    if dry_run:
        return subprocess.run([*SNAKEMAKE, "--dry-run", *options]).returncode
    chatter = Path("logs", f"{study.study}.snakemake.txt")
    with only_engine() as lock:
        os.environ["STUDYKIT_ENGINE"] = engine.name()
        _wait_for_orphans(planned)
        with _told(None if verbose else chatter) as log:
            if any(Path(".snakemake/locks").glob("*")):  # ours is the only engine, so it was left by a dead one
                subprocess.run([*SNAKEMAKE, "--unlock", "--quiet", "all", *options], stdout=log, stderr=log)
            code = _follow([*SNAKEMAKE, *options], lock, log, planned, cores or progress.cores())
        index = reports.write(file).relative_to(runs.home())  # also when something failed, or only prose has changed
    if code:
        _say_what_failed(planned, None if verbose or code > 128 else chatter)
        print(f"studykit: not everything ran; what there is stands in {index}", file=sys.stderr)
    else:
        print(f"studykit: the report is {index}")
    return code


SNAKEMAKE = [sys.executable, "-m", "studykit.snakemake"]


@contextmanager
def _told(chatter: Path | None) -> Iterator[BinaryIO | None]:
    """Where Snakemake's own messages go: a file, or the terminal."""
    if chatter is None:
        yield None
        return
    chatter.parent.mkdir(exist_ok=True)
    with open(chatter, "wb") as log:
        yield log


def _follow(command: list[str], lock: BinaryIO, log: BinaryIO | None, planned: list[plan.Run], cores: int) -> int:
    """Run Snakemake and show how it goes; its exit code, or 128 + the signal that stopped this process."""

    def stop(number: int, _) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    # It inherits the lock: a new engine cannot start while anything of this one still writes.
    process = subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock.fileno()]
    )
    try:
        if log is None:
            return process.wait()
        return progress.follow(process, planned, cores, sys.stdout)
    except SystemExit as asked:
        return int(asked.code or 0)
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # stopping is under way
        _stop(process)
        for number, handler in before.items():
            signal.signal(number, handler)


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
    for run, status in standing.of_study(planned).items():
        if status.state in ("failed", "stopped"):
            told = True
            print(f"studykit: {run.name}: {status.error}", file=sys.stderr)
            print(f"    see {status.log.relative_to(runs.home()) if status.log else 'logs/' + run.name + '.txt'}",
                  file=sys.stderr)  # fmt: skip
    if not told and chatter:
        print(f"studykit: Snakemake: {last_error(chatter)}\n    see {chatter}", file=sys.stderr)


SAYS_NOTHING = "WorkflowError:\nAt least one job did not complete successfully."


def last_error(chatter: Path) -> str:
    """The sentence in which Snakemake said what was wrong: its last line that speaks of an error, else its last."""
    text = chatter.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.replace(SAYS_NOTHING, "").split("\n") if line.strip()]
    at = max((i for i, line in enumerate(lines) if re.search(r"(Error|Exception)\b", line)), default=len(lines) - 1)
    said = lines[at : at + 2] if lines and lines[at].endswith(":") else lines[at : at + 1]
    return " ".join(said)[:400] or "it said nothing."


@contextmanager
def only_engine() -> Iterator[BinaryIO]:
    """Holds runs/.engine.lock: a lock that ends with its process, unlike Snakemake's, which a kill leaves behind."""
    lock = runs.home() / "runs" / ".engine.lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "ab+") as file:
        until = time.monotonic() + WAIT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                other = runs.holder(lock)
                if other is None or (_is_gone(other) and time.monotonic() < until):  # what is below it ends too
                    time.sleep(0.2)
                    continue
                raise UserError(f"{other} is running a study in this project; wait for it or stop it.") from None
        if plain := _plain_snakemakes():
            raise UserError(f"Snakemake (process {plain[0]}) is running in this project; wait for it or stop it.")
        file.truncate(0)
        file.write(f"Process {os.getpid()} on {os.uname().nodename}".encode())
        file.flush()
        yield file


def _is_gone(holder: str) -> bool:
    """Whether a holder ("Process 12 on host") was of this host and has ended."""
    named = re.fullmatch(r"Process (\d+) on (\S+)", holder)
    return bool(named) and named[2] == os.uname().nodename and not psutil.pid_exists(int(named[1]))


def _plain_snakemakes() -> list[int]:
    """Other processes that run Snakemake in this project, started without the `studykit` command."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if (process.pid != os.getpid() and any(Path(w).name == "snakemake" for w in words[:3])
                    and process.cwd() == str(runs.home())):  # fmt: skip
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def _wait_for_orphans(planned: list[plan.Run]) -> None:
    """Notebooks of a killed engine end by themselves; one that does not (on another host) is named."""
    for run in planned:
        runs.wait_for_writer(f"{run.stage}/{Path(run.dir).name}", WAIT)

"""One command per project: its lock, and the processes of an earlier one that must end first."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from studykit.errors import UserError
from studykit.runs import files, locks
from studykit.study import plan

WAIT = 15.0  # seconds that notebooks of a dead command get to end; their watchdog needs about one


@contextmanager
def only_command() -> Iterator[locks.Lock]:
    """Holds runs/.command.lock: a lock that ends with its process, unlike Snakemake's, which a kill leaves behind."""
    file = files.home() / "runs" / ".command.lock"
    until = time.monotonic() + WAIT
    while (held := locks.acquire(file, f"Process {os.getpid()} on {os.uname().nodename}")) is None:
        other = locks.holder(file)
        if other and not (_is_gone(other) and time.monotonic() < until):  # what is below a dead one ends too
            raise UserError(f"{other} is running a study in this project; wait for it or stop it.")
        time.sleep(0.2)
    try:
        while plain := _plain_snakemakes():
            if time.monotonic() > until:
                raise UserError(
                    f"Snakemake (process {plain[0]} on {os.uname().nodename}) is running in this project; "
                    "wait for it or stop it."
                )
            time.sleep(0.2)
        yield held
    finally:
        held.release()


def _is_gone(holder: str) -> bool:
    """Returns whether a holder ("Process 12 on host") was on this host and has ended."""
    named = re.fullmatch(r"Process (\d+) on (\S+)", holder)
    return named is not None and named[2] == os.uname().nodename and not psutil.pid_exists(int(named[1]))


def _plain_snakemakes() -> list[int]:
    """Returns the other processes that run Snakemake in this project, started without the `studykit` command.

    One that was started for a single job, as Slurm does, does not count: it ends with its job, and the run's lock
    guards the run.
    """
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if (
                process.pid != os.getpid()
                and any(Path(w).name == "snakemake" for w in words[:3])
                and "--target-jobs" not in words
                and process.cwd() == str(files.home())
            ):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def wait_for_orphans(planned: list[plan.Run]) -> None:
    """Waits until the notebooks of a killed command have ended. Raises UserError with one that does not end."""
    for run in planned:
        locks.wait_for_writer(f"{run.stage}/{Path(run.dir).name}", WAIT)

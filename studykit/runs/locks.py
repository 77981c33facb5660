"""Locks on files, which the system lets go of when their holder dies: one writer for a run, one engine for a project."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from studykit.errors import UserError
from studykit.runs.files import home

TOLD = 1.0  # seconds of waiting after which one is told: those who only ask hold a lock for less


def take(file: BinaryIO, shared: bool = False) -> bool:
    """Lock an open file, until it is closed, unless another process holds it. UserError where nothing can be locked."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(f"{file.name} cannot be locked ({error.strerror}): its file system has no locks; a local disk "
                        "or a mount with flock is accepted.") from None  # fmt: skip
    return True


@contextmanager
def locked(staging: Path, name: str, wait: float) -> Iterator[None]:
    """Hold the lock of a run, opened anew at every try: `clean` may have moved it away with its directory."""
    lock, began, told = staging / "lock", time.monotonic(), False
    while True:
        staging.mkdir(parents=True, exist_ok=True)
        with open(lock, "ab+") as file:
            if take(file) and lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
                yield
                return
            file.seek(0)
            by = file.read().decode(errors="replace") or "a process that has not yet said which"
        if (waited := time.monotonic() - began) >= wait:
            raise UserError(f"{name} is being written by {by}; wait for it or stop it.")
        if waited >= TOLD and not told:
            print(f"{name}: waiting for {by} ...", flush=True)
            told = True
        time.sleep(0.2)


def holder(lock: Path) -> str | None:
    """Who holds a lock file ("process 12 on host"), or None when nobody does."""
    try:
        with open(lock, "rb") as file:
            free = take(file, shared=True)
            return None if free else file.read().decode(errors="replace") or "a process"
    except FileNotFoundError:
        return None


def wait_for_writer(name: str, wait: float) -> None:
    """Return when nobody writes the run `stage/label-key`; UserError with its process and host after `wait` seconds."""
    staging = home() / "runs" / ".staging" / name
    if holder(staging / "lock"):
        with locked(staging, name, wait):
            pass

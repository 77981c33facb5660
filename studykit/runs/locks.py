"""Locks that the system releases when their holder dies: one writer for a run, one command for a project.

A lock is held twice: on a file, which names the holder, and on the directory of that file. Deleting the file while it
is held therefore admits no second holder. Where a file system cannot lock directories (NFS), only the file counts.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from studykit.errors import UserError
from studykit.runs.files import staging_dir

NOTICE_AFTER = 1.0  # seconds of waiting before a notice is printed; status checks hold a lock for less than this
RETRY = 0.2  # seconds between two attempts
UNNAMED = "another process"


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds, until it is released or the process ends."""

    file: BinaryIO
    directory: int  # descriptor

    @property
    def descriptors(self) -> list[int]:
        """Returns the descriptors that a child must inherit to hold the lock as well."""
        return [self.file.fileno(), self.directory]

    def is_at(self, file: Path) -> bool:
        """Returns whether file and directory still are those at this path: they may have been removed meanwhile."""
        try:
            return os.path.samestat(os.fstat(self.file.fileno()), file.stat()) and os.path.samestat(
                os.fstat(self.directory), file.parent.stat()
            )
        except FileNotFoundError:
            return False

    def release(self) -> None:
        self.file.close()
        os.close(self.directory)


def acquire(file: Path, holder: str) -> Lock | None:
    """Takes the lock of a file and of its directory, and writes the holder's name into the file.

    Creates both if they are missing. Returns None while another process holds either. Raises UserError on a file
    system without locks.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(open(file, "ab+"), os.open(file.parent, os.O_RDONLY))
    except FileNotFoundError:  # `clean` has just removed the directory
        return None
    held = False
    try:
        held = take_directory(lock.directory) and take(lock.file) and lock.is_at(file)
    finally:
        if not held:
            lock.release()
    if not held:
        return None
    lock.file.truncate(0)
    lock.file.write(holder.encode())
    lock.file.flush()
    return lock


def take(file: BinaryIO, shared: bool = False) -> bool:
    """Locks an open file until it is closed; False if another process holds it.

    Raises UserError where nothing can be locked.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{file.name} cannot be locked ({error.strerror}): its file system has no locks; use a local "
            "disk, or mount the file system with flock."
        ) from None
    return True


def take_directory(descriptor: int, shared: bool = False) -> bool:
    """Locks an open directory until it is closed; False if another process holds it.

    Where directories cannot be locked the answer is True: the lock of the file decides.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def locked(staging: Path, name: str, wait: float) -> Iterator[None]:
    """Holds the lock of a run. Raises UserError with the holder if it is not free after `wait` seconds."""
    file, began, noticed = staging / "lock", time.monotonic(), False
    while (lock := acquire(file, f"process {os.getpid()} on {socket.gethostname()}")) is None:
        writer = holder(file) or UNNAMED
        if (waited := time.monotonic() - began) >= wait:
            raise UserError(f"{name} is being written by {writer}; wait for it or stop it.")
        if waited >= NOTICE_AFTER and not noticed:
            print(f"{name}: another notebook or command makes this run ({writer}); waiting for it ...", flush=True)
            noticed = True
        time.sleep(RETRY)
    try:
        yield
    finally:
        lock.release()


def holder(file: Path) -> str | None:
    """Returns who holds the lock of a file and its directory ("process 12 on host"); None if nobody does."""
    if named := file_holder(file):
        return named
    try:
        directory = os.open(file.parent, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if take_directory(directory, shared=True) else UNNAMED
    finally:
        os.close(directory)


def file_holder(file: Path) -> str | None:
    """Returns what the holder of a locked file has written into it; None if nobody holds it."""
    try:
        with open(file, "rb") as opened:
            free = take(opened, shared=True)
            return None if free else opened.read().decode(errors="replace") or UNNAMED
    except FileNotFoundError:
        return None


def wait_for_writer(name: str, wait: float) -> None:
    """Returns when nobody writes the run `stage/label-key`; raises UserError with the writer after `wait` seconds."""
    staging = staging_dir(name)
    if holder(staging / "lock"):
        with locked(staging, name, wait):
            pass

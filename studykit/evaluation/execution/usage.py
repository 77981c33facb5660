"""What a program uses: processes, processor time and memory of the whole of it, as /proc shows them.

Part of the text that `runner.py` sends into the sandbox, so standard library only.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")  # clock ticks per second


class Process(NamedTuple):
    """One process: its number and its parent's, its state (a letter), seconds of processor time with those of the
    children that it has collected, and its number of threads."""

    pid: int
    parent: int
    state: str
    seconds: float
    threads: int


def processes() -> list[Process]:
    """Returns all processes that /proc shows; none where there is no /proc."""
    names = os.listdir("/proc") if os.path.isdir("/proc") else ()
    return [row for name in names if name.isdigit() and (row := process(int(name)))]


def process(pid: int) -> Process | None:
    """Returns one process, or None when it is gone."""
    if not (fields := stat(f"/proc/{pid}/stat")):
        return None
    return Process(pid, int(fields[1]), fields[0], sum(map(int, fields[11:15])) / TICK, int(fields[17]))


def stat(path: str) -> list[str]:
    """Returns the fields of a stat file behind the name, beginning with the state; none when the process is gone."""
    try:
        with open(path, "rb", 0) as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def family(root: int, everything: list[Process]) -> list[Process]:
    """Returns the process `root` and all its descendants."""
    children: dict[int, list[Process]] = {}
    for item in everything:
        children.setdefault(item.parent, []).append(item)
    members = [item for item in everything if item.pid == root]
    for item in members:  # grows while it is walked through
        members += children.get(item.pid, ())
    return members


def waits(process: Process) -> bool:
    """Says whether no thread of the process runs, could run, or waits for a disk."""
    if process.state in "RD" or process.threads == 1:
        return process.state not in "RD"
    try:
        threads = os.listdir(f"/proc/{process.pid}/task")
    except OSError:
        return True
    return not any("".join(stat(f"/proc/{process.pid}/task/{name}/stat")[:1]) in ("R", "D") for name in threads)


def memory(pid: int, exact: bool = False) -> int:
    """Returns the bytes of a process that no file on a disk holds, private and shared, with those of its page tables.

    It is 0 when the process is gone.

    exact: a page that several processes share counts once in all (the kernel's "proportional" sizes), which is slower.
    """
    files = ["smaps_rollup", "status"] if exact else ["status"]
    pattern = rb"Pss_Anon|Pss_Shmem|VmPTE" if exact else rb"RssAnon|RssShmem|VmPTE"
    text = b""
    try:
        for name in files:
            with open(f"/proc/{pid}/{name}", "rb", 0) as file:
                text += file.read(65536)
    except ProcessLookupError:
        return 0
    except OSError as error:
        return memory(pid) if exact and not isinstance(error, FileNotFoundError) else 0
    return sum(int(size) << 10 for size in re.findall(rb"^(?:" + pattern + rb"):\s+(\d+)", text, re.MULTILINE))

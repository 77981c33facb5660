"""papermill as the command starts it: `python -m studykit.workflow.papermill NOTEBOOK LOG ...`, options as papermill's.

It ends when the command dies (see `process`). It holds a lock on the text file that it writes next to LOG, and its
kernel inherits the lock, so `status` can distinguish a notebook at work from one that has ended, however it ended.

Under `studykit run` it leaves the work to a fork of a process that has imported everything, and waits (see `warm`).

A cold start takes a third of papermill's usual time: papermill imports jsonschema, which imports `rfc3987_syntax`,
which compiles a grammar of URLs for about a second; no schema of notebooks asks for it. jsonschema does without a
package that is absent, so here it is made to look absent.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

ADDRESS = "STUDYKIT_WARM_ADDRESS"  # of the server that forks, for its clients: an abstract socket of Linux
KILLED = 128 + signal.SIGKILL


def execute(arguments: list[str]) -> int | None:
    """Executes papermill with these arguments in a fork of the server, and returns its exit code.

    Returns None where papermill has to start cold, before anything has been done.
    """
    address = os.environ.pop(ADDRESS, "")
    if not address or not os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return None
    request = {"arguments": arguments, "environment": dict(os.environ), "directory": os.getcwd()}
    content = json.dumps(request).encode()
    streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(f"\0{address}")
            if not is_mine(server):
                return None
            server.sendmsg([len(content).to_bytes(8, "big")], streams)
            server.sendall(content)
            answers = server.makefile("r", encoding="ascii")
            forked = answers.readline()
        except OSError:
            return None  # the server has died
        if not forked:
            return None  # it does not fork
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the fork itself, which is of the same group
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(int(forked), number))
        with contextlib.suppress(ConnectionError):
            return int(answers.readline() or KILLED)
        return KILLED


def save_sparingly() -> None:
    """Lets papermill save a notebook when a code cell begins, every few seconds within it, and at the end.

    papermill itself saves it at both ends of every cell, and of prose too: for a notebook with figures that adds up to
    a second, in which its kernel waits. What a cell has written is saved when the next one begins, an instant later.
    """
    engines: Any = importlib.import_module("papermill.engines")

    class SparingManager(engines.NotebookExecutionManager):
        """papermill's record of a notebook that is executed; it does not save while `waits`."""

        waits = False

        def cell_start(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
            self.waits = cell.cell_type != "code"
            super().cell_start(cell, cell_index, **kwargs)
            self.waits = False

        def cell_complete(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
            self.waits = True
            super().cell_complete(cell, cell_index, **kwargs)
            self.waits = False

        def save(self, **kwargs: Any) -> None:
            if not self.waits:
                super().save(**kwargs)

    engines.NotebookExecutionManager = SparingManager


def is_mine(connection: socket.socket) -> bool:
    """Returns whether the process at the other end of a connection is of the same user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
    return int.from_bytes(credentials[4:8], sys.byteorder) == os.getuid()


if __name__ == "__main__":
    fcntl.flock(1, fcntl.LOCK_EX)  # waits for a status check, which holds it for a moment
    if (code := execute(sys.argv[1:])) is not None:
        sys.exit(code)
    from studykit.runs import process

    process.watch()
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    from papermill.__main__ import papermill

    save_sparingly()
    papermill()

"""The process inside the sandbox that runs model-written programs, one at a time.

Standard library only: `runner.py` sends the text of this module and of those that it imports as `python -c`, so that
it needs no file of the project in there. Three kinds of process:

- the **supervisor** is process 1 of the sandbox. It answers requests, measures, and ends what exceeds its limits. No
  program sees it: it is in none of their namespaces, and they have no file of it.
- a **keeper** per program (`keeper.py`) is process 1 of fresh namespaces (processes, files, network, IPC, users), with
  an empty /tmp and /dev/shm and a /proc of its own. It starts the program and ends with it, which ends all of it.
- the **program** itself, once per run, and its compiler before; with fresh files as stdin, stdout and stderr.

Where a sandbox is renewed for each program (`bwrap-renewed`) the keeper needs no namespaces; without isolation
(`rlimits`) it has none, and the supervisor sweeps up behind it.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import sys
import tempfile
import time

from studykit.evaluation.execution import confinement, keeper, usage

SAMPLE_SECONDS = 0.01  # between two measurements of a program
IDLE_SECONDS = 0.5  # of waiting beyond its time limit, after which a program is not thought to wait for a processor
HEADER = struct.Struct(">II")  # of a message: lengths of its JSON object and of the bytes behind it


def receive(file: int) -> tuple[dict, bytes] | None:
    """Reads one message, a JSON object and bytes; None at the end of the file."""

    def exactly(length: int) -> bytes:
        data = bytearray()
        while len(data) < length and (part := os.read(file, min(1 << 20, length - len(data)))):
            data += part
        return bytes(data)

    if len(header := exactly(HEADER.size)) < HEADER.size:
        return None
    lengths = HEADER.unpack(header)
    return json.loads(exactly(lengths[0])), exactly(lengths[1])


def send(file: int, message: dict, data: bytes = b"") -> None:
    """Writes one message."""
    text = json.dumps(message).encode()
    write_all(file, HEADER.pack(len(text), len(data)) + text + data)


def write_all(file: int, data: bytes) -> None:
    """Writes all of the data, of which one call may take a part only."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


class Program:
    """A program between its arrival and its end: its keeper, and the directories in memory that it may write to."""

    def __init__(self, setup: dict, job: dict, inherited: list[int]):
        self.setup, self.job = setup, job
        self.control, theirs = socket.socketpair()
        if setup["isolated"]:
            confinement.unshare(confinement.NEW_PID)  # of the next child
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for file in (self.control.detach(), *inherited):
                    os.close(file)
                keeper.keep(setup, job, theirs)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        theirs.close()
        if setup["isolated"]:
            confinement.libc("setns", setup["namespace"], confinement.NEW_PID)
        try:
            word, self.places, _, _ = socket.recv_fds(self.control, 16, 4)
        except ConnectionResetError:
            word = b""
        if not word:
            sys.exit(1)  # the keeper has written the reason

    def close(self) -> None:
        """Ends the program with everything that it started, and removes what it left."""
        self.control.close()
        os.kill(self.pid, signal.SIGKILL)
        if self.setup["isolated"]:
            os.waitpid(self.pid, 0)  # process 1 of its namespace takes all others with it
        else:
            keeper.sweep(self.pid)
        for place in self.places:
            os.close(place)
        if self.setup["level"] == "rlimits":
            for name in set(os.listdir(self.setup["box"])) - {"cache"}:
                remove(os.path.join(self.setup["box"], name))

    def disk(self) -> tuple[int, int]:
        """Bytes and files in the directories in memory."""
        spaces = [os.fstatvfs(place) for place in self.places] if self.setup["level"] != "rlimits" else []
        used = sum((space.f_blocks - space.f_bfree) * space.f_frsize for space in spaces)
        return used, sum(space.f_files - space.f_ffree for space in spaces)

    def family(self) -> list[usage.Process]:
        """Returns the keeper and all processes of the program."""
        return usage.family(self.pid, usage.processes())

    def run(self, step_name: str, stdin: bytes = b"", token: bytes = b"") -> tuple[str, float, list[int]]:
        """Runs one step, `build` or `run`, and returns its outcome, its wall time and its three files.

        The outcome is one of ok, exit, killed, timeout, memory, output, or "could not start: ..." with the reason.
        """
        step, files = self.job[step_name], [open_file(self.setup["box"]) for _ in range(3)]
        write_all(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        before, began = self.disk(), time.monotonic()
        keeper_alone = usage.process(self.pid)  # nothing else of the program is alive between two steps
        spent = keeper_alone.seconds if keeper_alone else 0.0
        given = [reopened(file, writing=at > 0) for at, file in enumerate(files)] + (once(token) if token else [])
        socket.send_fds(self.control, [step_name.encode()], given)
        for file in given:
            os.close(file)
        outcome = self._watch(step, began, spent, before, files)
        seconds = time.monotonic() - began
        if outcome == "ended":
            outcome = self._ending(step, files)
        return outcome, seconds, files

    def _watch(self, step: dict, began: float, spent: float, before: tuple[int, int], files: list[int]) -> str:
        """Waits for a step to end, and ends it when it exceeds a limit."""
        pause, idle, last = SAMPLE_SECONDS, 0.0, began
        while not select.select([self.control], [], [], pause)[0]:
            now, own = time.monotonic(), time.process_time()
            members = self.family()
            used, count = (now_ - then for now_, then in zip(self.disk(), before, strict=True))
            if used > self.job["box"][0] * 0.98 or count > self.job["box"][1] * 0.98:
                return "output"
            others = [process.pid for process in members if process.pid != self.pid]
            if used + sum(map(usage.memory, others)) > step["memory_bytes"]:
                memory = sum(usage.memory(pid, exact=True) for pid in others)
                if used + memory > step["memory_bytes"]:
                    return "output" if used > memory else "memory"
            if now - began > step["seconds"]:
                idle += now - last if all(usage.waits(p) for p in members) else 0.0
                cpu = sum(process.seconds for process in members) - spent
                if cpu > step["seconds"] or idle > IDLE_SECONDS or now - began > step["wall_seconds"]:
                    return "timeout"
            last, pause = now, max(SAMPLE_SECONDS, 5 * (time.process_time() - own))  # not of time spent in a queue
        return "ended"

    def _ending(self, step: dict, files: list[int]) -> str:
        """How a step ended that its keeper reports on."""
        report = self.control.recv(65536)
        if not report:
            os.write(2, b"a program ended its keeper\n")
            sys.exit(1)
        report = json.loads(report)
        if report["trouble"]:
            return f"could not start: {report['trouble']}"
        code = report["code"]
        if code == -signal.SIGXFSZ or any(os.fstat(file).st_size >= step["file_bytes"] for file in files[1:3]):
            return "output"
        if code == -signal.SIGXCPU:
            return "timeout"
        return "ok" if code == 0 else "killed" if code == -signal.SIGKILL else "exit"


def open_file(box: str) -> int:
    """Returns a new empty file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("studykit")
    with tempfile.TemporaryFile(dir=box) as file:
        return os.dup(file.fileno())


def reopened(file: int, writing: bool) -> int:
    """Returns a second descriptor of a file, which only reads where a program must not write."""
    if sys.platform != "linux":
        return os.dup(file)
    return os.open(f"/proc/self/fd/{file}", os.O_RDWR if writing else os.O_RDONLY)


def once(data: bytes) -> list[int]:
    """Returns a descriptor from which the data can be read once: a pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.fchmod(reading, 0o644)  # a program of another user may open it by name
    write_all(writing, data)
    os.close(writing)
    return [reading]


def tail(file: int, length: int = 2000) -> bytes:
    """Returns the last bytes of an open file."""
    return os.pread(file, length, max(0, os.fstat(file).st_size - length))


def build(program: Program) -> dict:
    """Compiles a program where its language needs it; the reply has a status: ok, error, timeout or memory."""
    if not program.job["build"]:
        return {"status": "ok"}
    outcome, _, files = program.run("build")
    message = (tail(files[2]) or tail(files[1])).decode("utf-8", "replace")
    for file in files:
        os.close(file)
    if outcome.startswith("could not start"):
        return {"status": "could not start", "stderr": outcome}
    return {"status": outcome if outcome in ("ok", "timeout", "memory") else "error", "stderr": message}


def run_once(program: Program, request: dict, stdin: bytes) -> tuple[dict, bytes]:
    """Runs a program that was built.

    The reply has a status (ok, error, timeout, memory or output) and is followed by the stdout.
    """
    outcome, seconds, files = program.run("run", stdin, request["token"].encode())
    status = outcome
    if outcome.startswith("could not start"):
        return {"status": "could not start", "seconds": 0.0, "stderr": outcome}, b""
    if outcome in ("exit", "killed"):
        # Some runtimes name the reason first and then print long stacks.
        text = (os.pread(files[2], 2000, 0) + b"\n" + tail(files[2])).decode("utf-8", "replace")
        out_of_memory = outcome == "killed" or re.search(program.job["memory_error"], text, re.MULTILINE)
        status = "memory" if out_of_memory else "error"
    stdout = tail(files[1], request["stdout_bytes"])
    stderr = tail(files[2]) or (b"" if status == "ok" else tail(files[1]))  # some say there what went wrong
    for file in files:
        os.close(file)
    return {"status": status, "seconds": seconds, "stderr": stderr.decode("utf-8", "replace")}, stdout


def remove(path: str) -> None:
    """Removes what a program left, however deep it is and whatever is locked in it."""
    for words in (["chmod", "-R", "u+rwx", path], ["rm", "-rf", path]):
        os.waitpid(os.posix_spawnp(words[0], words, os.environ), 0)


def own_state() -> list:
    """Returns everything that a program could change in this process: limits, priority, processors, mask, directory."""
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    mask = os.umask(0o022)
    os.umask(mask)
    limits = [resource.getrlimit(getattr(resource, name)) for name in names]
    return [limits, os.getpriority(os.PRIO_PROCESS, 0), processors, mask, os.getcwd()]


def serve() -> None:
    """Sets the sandbox up, says so, and answers requests until stdin ends."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as process 1 it then cannot be interrupted
    if sys.platform == "linux":
        with open("/proc/self/oom_score_adj", "w") as file:  # if memory runs out, this and its programs end first
            file.write("1000")
    # Programs see the standard library only, whatever is installed next to it.
    sys.path = [path for path in sys.path if not path.endswith(("site-packages", "dist-packages"))]
    opening = receive(requests)
    assert opening is not None
    setup = opening[0]
    if setup["level"] == "unshare":
        confinement.enter_sandbox(setup)
    if setup["level"] == "bwrap-renewed":
        os.chmod("/tmp", 0o1777)
    if setup["isolated"]:
        os.chmod("/cache", 0o1777)
        setup["namespace"] = os.open("/proc/self/ns/pid", os.O_RDONLY)
        confinement.libc("prctl", confinement.DUMPABLE, 0, 0, 0, 0)
    elif sys.platform == "linux":
        confinement.libc("prctl", confinement.SUBREAPER, 1, 0, 0, 0)
        confinement.libc("prctl", confinement.PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        confinement.libc("prctl", confinement.DUMPABLE, 0, 0, 0, 0)
    if setup["uid"] is not None and not setup["isolated"]:
        os.chown(setup["box"], setup["uid"], setup["uid"])
    if setup["lupa"]:
        sys.path.insert(0, setup["lupa"])
        from lupa.lua54 import LuaRuntime

        keeper.LUA = LuaRuntime
        sys.path.pop(0)
    gc.freeze()  # else every fork copies what a collection touches
    send(replies, {"ready": True})
    state, own = own_state(), [requests, replies, null]
    program: Program | None = None  # of the last request that had a source
    while request := receive(requests):
        message, data = request
        if "source" in message:
            if program:
                program.close()
                program = None
            if own_state() != state:
                sys.exit("the supervisor's own limits were changed from outside")
            program = Program(setup, message, own)
            send(replies, build(program))
        else:
            assert program is not None
            send(replies, *run_once(program, message, data))
    if program:
        program.close()


if __name__ == "__main__":
    serve()

"""A runner: the handle on one sandbox, to which programs are sent one after the other.

The other side, inside the sandbox, is `supervisor.py`.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from studykit.errors import UserError
from studykit.evaluation.execution import mounts, runtimes, seccomp
from studykit.evaluation.execution.supervisor import HEADER

INSIDE = ("confinement", "usage", "keeper", "supervisor")  # modules whose text goes into the sandbox, in this order
ANSWER_SECONDS = 15.0  # that the supervisor itself may take, on top of its program
SWEEP_SECONDS = 10.0  # that it has to end what programs left, where no namespace ends it
WALL_FACTOR, WALL_SECONDS = 10, 20  # a program's wall time is limited to its time limit so many times, and so much more
BOOTSTRAP = """
import sys, types
names = "studykit", "studykit.evaluation", "studykit.evaluation.execution"
for name in names: sys.modules[name] = types.ModuleType(name)
for name, text in {texts!r}:
    module = types.ModuleType(f"{{names[2]}}.{{name}}")
    sys.modules[module.__name__] = module
    setattr(sys.modules[names[2]], name, module)
    exec(compile(text, f"<{{name}}>", "exec"), module.__dict__)
for name in [*sys.modules]:
    if name.startswith("studykit"): del sys.modules[name]
module.serve()
"""


class RunnerDied(Exception):
    """The supervisor, or the sandbox around it, is gone or does not answer. `slow`: it did not answer in time."""

    def __init__(self, reason: str, slow: bool = False):
        super().__init__(reason)
        self.slow = slow


@dataclass(frozen=True)
class Sandbox:
    """A level of isolation, and whether root's programs become nobody's in it."""

    level: str  # bwrap | unshare | bwrap-renewed | rlimits
    drop: bool = False

    @property
    def isolated(self) -> bool:
        """Tells whether each program gets namespaces of its own inside."""
        return self.level in ("bwrap", "unshare")

    def __str__(self) -> str:
        return self.level + (" as root" if is_root() and not self.drop else "")


@dataclass(frozen=True)
class Reply:
    """How one step of a program ended."""

    status: str  # ok | error | timeout | memory | output
    seconds: float  # of wall time
    stderr: str  # its last 2,000 bytes
    stdout: str  # its end


def is_root() -> bool:
    """Says whether this process is the machine's root.

    In a user namespace that does not know `nobody`, user 0 is somebody else.
    """
    if os.getuid() != 0:
        return False
    try:
        ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return True
    return any(first <= nobody() < first + length for first, _, length in ranges)


def nobody() -> int:
    """Returns the user number of nobody."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


class Runner:
    """One sandbox with its supervisor, which runs one program at a time.

    Close it, or use it as a context manager, to end everything in it.
    """

    def __init__(self, sandbox: Sandbox):
        self.sandbox, bubblewrap = sandbox, sandbox.level in ("bwrap", "bwrap-renewed")
        self.folder = None if bubblewrap else os.path.realpath(tempfile.mkdtemp(prefix="studykit-box-"))
        self.cache = f"{self.folder}/cache" if sandbox.level == "rlimits" else "/cache"
        self.prepared: set[str] = set()
        # Before Linux 5.14 RLIMIT_NPROC counts a user's processes and threads over all namespaces.
        counted = not sandbox.isolated or _linux_release() < (5, 14)
        self.others = _tasks_of(nobody() if sandbox.drop else os.getuid()) if counted else 0
        self.errors = tempfile.TemporaryFile()
        here = Path(__file__)
        texts = [(name, here.with_name(f"{name}.py").read_text(encoding="utf-8")) for name in INSIDE]
        words = mounts.bwrap(sandbox.drop) if bubblewrap else []
        python = runtimes.find("python")
        assert python is not None  # it is this interpreter
        words += [python.path, "-sP", "-c", BOOTSTRAP.format(texts=texts)]
        self.process = subprocess.Popen(
            words,
            env=mounts.environment(),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
        )
        assert self.process.stdin and self.process.stdout
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self.buffer = bytearray()
        lua, code = runtimes.find("lua"), seccomp.program()
        setup = {
            "level": sandbox.level,
            "isolated": sandbox.isolated,
            "drop": sandbox.drop,
            "uid": nobody() if sandbox.drop else None,
            "box": self.folder if sandbox.level == "rlimits" else "/tmp",
            "folder": self.folder,
            "visible": mounts.visible() if sandbox.level == "unshare" else [],
            "devices": mounts.DEVICES,
            "links": mounts.LINKS,
            "seccomp": code.hex() if code else None,
            "lupa": os.path.dirname(lua.path) if lua and lua.name == "lupa" else None,
        }
        try:
            if sandbox.level != "rlimits" and not code:
                raise RunnerDied(
                    f"the numbers of system calls on {platform.machine()} are unknown, so none can be closed"
                )
            self._ask(setup, b"", 30)
        except BaseException:
            self.close()
            raise

    def build(self, language: str, source: str, timeout: float, memory_mb: int, judged: bool = False) -> Reply:
        """Takes a program in and compiles it. RunnerDied when no answer came back.

        timeout, memory_mb: the limits of each `run`. judged: under the conditions of ExecEval, see `runtimes`.
        """
        about = runtimes.LANGUAGES[language]
        if about.prepare and language not in self.prepared and self.sandbox.level != "bwrap-renewed":
            self.prepared.add(language)
            self._build(language, about.prepare, 60.0, 1024, False, prepares=True)
        return self._build(language, source, timeout, memory_mb, judged)

    def _build(
        self, language: str, source: str, timeout: float, memory_mb: int, judged: bool, prepares: bool = False
    ) -> Reply:
        runtime, about = runtimes.require(language), runtimes.LANGUAGES[language]
        run, build = (
            (about.judged_run or about.run, about.judged_build or about.build) if judged else (about.run, about.build)
        )
        in_process = runtime.name in ("python", "lupa")
        seconds = timeout + about.start_seconds
        self.wall_seconds = WALL_FACTOR * seconds + WALL_SECONDS
        build_wall = WALL_FACTOR * about.build_seconds + WALL_SECONDS
        compiler = {
            "argv": runtimes.command(build, runtime, memory_mb, source),
            "seconds": about.build_seconds,
            "wall_seconds": build_wall,
            "file_bytes": runtimes.BUILD_MB << 17,
            "memory_bytes": runtimes.BUILD_MB << 20,
            "address_space": False,
        }
        program = {
            "argv": [] if in_process else runtimes.command(run, runtime, memory_mb, source),
            "seconds": seconds,
            "wall_seconds": self.wall_seconds,
            "file_bytes": about.output_mb << 20,
            "memory_bytes": (memory_mb + about.overhead_mb) << 20,
            "address_space": about.address_space,
        }
        job = {
            "language": language,
            "file": about.file,
            "source": source,
            "env": {name: value.format(cache=self.cache) for name, value in about.env.items()},
            "build": compiler if build else None,
            "run": program,
            "processes": about.processes + self.others,
            "box": (runtimes.BOX_MB << 20, runtimes.BOX_FILES),
            "memory_error": about.memory_error,
            "prepares": prepares,
        }
        return self._ask(job, b"", ANSWER_SECONDS + (build_wall if build else 0))

    def run(self, stdin: str = "", stdout_bytes: int = 2000, token: str = "") -> Reply:
        """Runs the program that was built last. RunnerDied when no answer came back.

        stdout_bytes: how much of the end of its stdout comes back. token: what it can read from descriptor 3.
        """
        message = {"stdout_bytes": stdout_bytes, "token": token}
        data = stdin.encode("utf-8", "surrogatepass")
        return self._ask(message, data, ANSWER_SECONDS + self.wall_seconds)

    def reason(self) -> str:
        """Returns the last line that the sandbox wrote to stderr."""
        self.errors.seek(0)
        return (self.errors.read().decode("utf-8", "replace").strip().splitlines() or ["it was killed"])[-1]

    def close(self) -> None:
        """Ends the supervisor, and with it whatever still runs in its sandbox; removes its directory."""
        self.requests.close()  # the supervisor ends by itself, and its sandbox with it
        try:
            self.process.wait(SWEEP_SECONDS if self.sandbox.level == "rlimits" else 0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.replies.close()
        self.errors.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ask(self, message: dict, data: bytes, seconds: float) -> Reply:
        """Sends one message and reads one, within `seconds`."""
        deadline = time.monotonic() + seconds
        text = json.dumps(message).encode()
        view = memoryview(HEADER.pack(len(text), len(data)) + text + data)
        try:
            while view:
                view = view[self.requests.write(view) :]
            lengths = HEADER.unpack(self._read(HEADER.size, deadline))
            reply = json.loads(self._read(lengths[0], deadline))
            stdout = self._read(lengths[1], deadline).decode("utf-8", "replace")
        except TimeoutError as error:
            raise RunnerDied(f"no answer for {seconds:.0f} s", slow=True) from error
        except (OSError, ValueError) as error:
            raise RunnerDied(self.reason()) from error
        if reply.get("status") == "could not start":
            raise UserError(f"a program {reply['stderr']}; nothing is scored, because the program is not at fault.")
        return Reply(reply.get("status", "ok"), reply.get("seconds", 0.0), reply.get("stderr", ""), stdout)

    def _read(self, length: int, deadline: float) -> bytes:
        """Reads so many bytes; TimeoutError at the deadline, however much has come by then."""
        poll = select.poll()
        poll.register(self.replies, select.POLLIN)
        while len(self.buffer) < length:
            if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))) or time.monotonic() > deadline:
                raise TimeoutError
            if not (part := self.replies.read(1 << 20)):
                raise BrokenPipeError
            self.buffer += part
        data = bytes(self.buffer[:length])
        del self.buffer[:length]
        return data


def _linux_release() -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", platform.release()) if sys.platform == "linux" else None
    return tuple(map(int, match.groups())) if match else (0, 0)


def _tasks_of(uid: int) -> int:
    """Processes and threads of a user."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid:
                total += len(os.listdir(path / "task"))
        except OSError:  # it ended meanwhile
            continue
    return total

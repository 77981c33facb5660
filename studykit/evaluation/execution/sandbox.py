"""Where model-written programs run: the isolation that works on this machine, and runner processes inside it.

The chain, best first. `probe` finds out by running a program, never by looking for a file:

- `bwrap`: bubblewrap; no network, own processes, of the file system only the system's and the runtimes' directories,
  read-only.
- `unshare`: the same namespaces made by the runner itself; no network, own processes; the user's files can be read,
  not written.
- `apptainer`, `podman`: a container without an image that shows what bubblewrap shows.
- `rlimits`: a bare child process with limits on time, memory, files and processes. NOT isolated, so only by explicit
  opt-in.

As root the runner becomes `nobody` where that works (RLIMIT_NPROC does not hold for root), else the level's name ends
in ` as root`.
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from studykit.errors import UserError
from studykit.evaluation.execution import isolation, runtimes
from studykit.evaluation.execution.isolation import LEVELS

OWN_FILES = ("bwrap", "unshare", "podman")
ANSWER_SECONDS = 15.0  # that the runner itself may take, on top of its program


class RunnerDied(Exception):
    """The runner, or the sandbox around it, is gone or does not answer."""


@dataclass(frozen=True)
class Sandbox:
    """A level of `LEVELS`, and whether root becomes `nobody` in it."""

    level: str
    drop: bool = False

    def __str__(self) -> str:
        return self.level + (" as root" if os.getuid() == 0 and not self.drop else "")


class Runner:
    """One runner process in a sandbox.

    `run` one program at a time; close it (or use it as a context manager) to end everything.
    """

    def __init__(self, sandbox: Sandbox):
        uid = _nobody() if sandbox.drop else None
        self.folder = None if sandbox.level == "bwrap" else os.path.realpath(tempfile.mkdtemp(prefix="studykit-box-"))
        outside = isolation.command(sandbox.level, sandbox.drop, self.folder)
        self.box = "/tmp" if outside else self.folder
        # Where the box is a file system of its own, in memory: others write to a disk too.
        self.space = (runtimes.BOX_MB << 20, runtimes.BOX_FILES) if sandbox.level in OWN_FILES else (0, 0)
        self.others = _tasks_of(os.getuid() if uid is None else uid)
        self.errors = tempfile.TemporaryFile()
        self.buffer = b""
        source = Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
        inside = [runtimes.find("python").path, "-sP", "-c", source]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "bufsize": 0}
        # Containers do not pass their environment on, and need the user's.
        env = dict(os.environ) if sandbox.level in ("apptainer", "podman") else isolation.environment()
        self.process = subprocess.Popen(outside + inside, env=env, cwd="/", **pipes)
        lua = runtimes.find("lua")
        setup = {
            "box": self.box,
            "uid": uid,
            "unshare": sandbox.level == "unshare",
            "contained": bool(outside),
            "hidden": self.folder if outside else None,
        }
        setup["lupa"] = os.path.dirname(lua.path) if lua and lua.name == "lupa" else None
        try:
            self.contained = self._ask(setup, 30)["contained"]
        except BaseException:
            self.close()
            raise

    def build(self, language: str, source: str, timeout: float, memory_mb: int) -> dict:
        """Take a program in, and compile it: {"status": "ok"}, or error or timeout with "seconds" and "stderr".

        The limits are those of each `run`. RunnerDied when no answer came back.
        """
        runtime, about = runtimes.require(language), runtimes.LANGUAGES[language]
        in_runner = runtime.name in ("python", "lupa")
        compiler = {
            "argv": runtimes.command(about.build, runtime, memory_mb),
            "seconds": runtimes.BUILD_SECONDS,
            "file_bytes": runtimes.BUILD_MB << 17,
            "memory_bytes": runtimes.BUILD_MB << 20,
            "address_space": False,
        }
        program = {
            "argv": [] if in_runner else runtimes.command(about.run, runtime, memory_mb),
            "seconds": timeout + about.start_seconds,
            "file_bytes": about.output_mb << 20,
            "memory_bytes": (memory_mb + about.overhead_mb) << 20,
            "address_space": about.address_space,
        }
        self.seconds = program["seconds"]
        job = {
            "language": language,
            "file": about.file,
            "source": source,
            "env": {name: value.format(box=self.box) for name, value in about.env.items()},
            "build": compiler if about.build else None,
            "run": program,
            "processes": about.processes + self.others,
            "box": self.space,
            "memory_error": about.memory_error,
        }
        return self._ask(job, ANSWER_SECONDS + (runtimes.BUILD_SECONDS if about.build else 0))

    def run(self, stdin: str = "", stdout_bytes: int = 2000) -> dict:
        """Run the program that was built last: {"status", "seconds", "stderr", "stdout"}.

        status: ok | error | timeout | memory | output; stdout: the end of what an ok program wrote. RunnerDied when no
        answer came back.
        """
        return self._ask({"stdin": stdin, "stdout_bytes": stdout_bytes}, ANSWER_SECONDS + self.seconds)

    def reason(self) -> str:
        """The last thing that the sandbox said on stderr."""
        self.errors.seek(0)
        return (self.errors.read().decode("utf-8", "replace").strip().splitlines() or ["it was killed"])[-1]

    def close(self) -> None:
        """Kill the runner, and with it whatever still runs in its sandbox; remove its directory."""
        self.process.stdin.close()  # the runner ends by itself, and its sandbox with it
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        for _ in range(20 if self.folder else 0):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not os.path.exists(self.folder):
                break
            time.sleep(0.05)  # podman cleans up behind itself after it has ended

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ask(self, message: dict, seconds: float) -> dict:
        """Send one line, read one line, within `seconds`."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        try:
            self._send(json.dumps(message).encode() + b"\n")
            while b"\n" not in self.buffer:
                if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
                    raise RunnerDied(f"no answer for {seconds:.0f} s")
                if not (data := self.process.stdout.read(65536)):
                    raise BrokenPipeError
                self.buffer += data
            line, _, self.buffer = self.buffer.partition(b"\n")
            return json.loads(line)
        except (OSError, ValueError) as error:
            raise RunnerDied(self.reason()) from error

    def _send(self, data: bytes) -> None:
        """Write all of it: an unbuffered pipe may take a part only."""
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]


@functools.cache
def probe(sandbox: Sandbox) -> str:
    """Run a program in `sandbox`: "" when it passes, else the reason why it does not work here."""
    if sandbox.level not in ("unshare", "rlimits") and not shutil.which(sandbox.level):
        return "not installed"
    if sandbox.level != "rlimits" and sys.platform != "linux":
        return "needs Linux"
    try:
        with Runner(sandbox) as runner:
            runner.build("python", "import decimal, random\nprint('works')", 10.0, 512)
            reply = runner.run()
    except (RunnerDied, OSError) as error:
        return str(error)
    return "" if reply["status"] == "ok" else f"{reply['status']}: {reply['stderr'].strip()[-200:]}"


def choose(allow_unsandboxed: bool = False) -> Sandbox:
    """The best sandbox that works on this machine;

    UserError when that is none, or only `rlimits` and it was not allowed.
    """
    reasons = {}
    for level in LEVELS if allow_unsandboxed else LEVELS[:-1]:
        for drop in (True, False) if os.getuid() == 0 else (False,):
            sandbox = Sandbox(level, drop)
            if not (reason := probe(sandbox)):
                return sandbox
            reasons[level] = reason
    tried = "; ".join(f"{level}: {reason}" for level, reason in reasons.items())
    advice = "" if allow_unsandboxed else ", or set allow_unsandboxed=True to run them with resource limits only"
    raise UserError(
        f"no sandbox for model-written programs works on this machine ({tried}): install bubblewrap{advice}"
    )


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


def _tasks_of(uid: int) -> int:
    """Processes and threads of a user: RLIMIT_NPROC counts them all, so a program's own share comes on top."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid:
                total += len(os.listdir(path / "task"))
        except OSError:  # it ended meanwhile
            continue
    return total

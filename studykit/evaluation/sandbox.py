"""Where model-written programs run: the isolation that works on this machine, and runner processes inside it.

The chain, best first. `probe` finds out by running a program, never by looking for a file:

- `bwrap`: bubblewrap; no network, own processes, of the file system only the system's and the runtimes' directories,
  read-only.
- `unshare`: the same namespaces made by the runner itself; no network, own processes; the user's files can be read,
  not written.
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

from studykit.evaluation import runtimes
from studykit.params import UserError

LEVELS = ("bwrap", "unshare", "rlimits")
OUTPUT_BYTES = 8 << 20  # what a program may write to stdout, and to any one file
OVERHEAD_MB = 256  # what V8, Go and Julia map for themselves before a program has anything
BUILD_SECONDS = 120
PROCESSES = 64  # processes and threads of one program, beyond those that its user already has
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix")
SYSTEM_FILES = ("/etc/alternatives", "/etc/ld.so.cache")


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
        self.box = "/tmp" if sandbox.level == "bwrap" else os.path.realpath(tempfile.mkdtemp(prefix="studykit-box-"))
        self.processes = PROCESSES + _tasks_of(os.getuid() if uid is None else uid)
        self.errors = tempfile.TemporaryFile()
        self.buffer = b""
        source = Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
        inside = [runtimes.find("python").path, "-sP", "-c", source]
        outside = _bwrap(sandbox.drop) if sandbox.level == "bwrap" else []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "bufsize": 0}
        self.process = subprocess.Popen(outside + inside, env=_environment(), cwd="/", **pipes)
        lua = runtimes.find("lua")
        setup = {
            "box": self.box,
            "uid": uid,
            "unshare": sandbox.level == "unshare",
            "contained": sandbox.level == "bwrap",
        }
        setup["lupa"] = os.path.dirname(lua.path) if lua and lua.name == "lupa" else None
        try:
            self.contained = self._ask(setup, 30)["contained"]
        except BaseException:
            self.close()
            raise

    def run(self, language: str, source: str, nonce: str, timeout: float, memory_mb: int) -> dict:
        """Run one program: {"status", "seconds", "stderr"}. RunnerDied when no verdict came back."""
        runtime, about = runtimes.require(language), runtimes.LANGUAGES[language]
        in_runner = runtime.name in ("python", "lupa")
        job = {
            "language": language,
            "source": source,
            "nonce": nonce,
            "suffix": about.suffix,
            "env": about.env,
            "build": runtimes.command(about.build, runtime, memory_mb),
            "run": [] if in_runner else runtimes.command(about.run, runtime, memory_mb),
            "build_seconds": BUILD_SECONDS,
            "timeout": timeout,
            "processes": self.processes,
            "file_bytes": OUTPUT_BYTES,
            "memory_bytes": (memory_mb + (0 if about.address_space else OVERHEAD_MB)) << 20,
            "address_space": about.address_space,
            "memory_error": about.memory_error,
        }
        return self._ask(job, timeout + (BUILD_SECONDS if about.build else 0) + 15)

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
        if self.box != "/tmp":
            shutil.rmtree(self.box, ignore_errors=True)

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
    if sandbox.level == "bwrap" and not shutil.which("bwrap"):
        return "not installed"
    if sandbox.level != "rlimits" and sys.platform != "linux":
        return "needs Linux"
    try:
        with Runner(sandbox) as runner:
            reply = runner.run("python", "import decimal, random\nprint('works')", "works", 10.0, 512)
    except (RunnerDied, OSError) as error:
        return str(error)
    return "" if reply["status"] == "passed" else f"{reply['status']}: {reply['stderr'].strip()[-200:]}"


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


def _bwrap(drop: bool) -> list[str]:
    """The command line of bubblewrap.

    With `drop`, root makes the mounts without a user namespace and the runner becomes nobody.
    """
    command = ["bwrap", "--die-with-parent", "--as-pid-1", "--new-session", "--cap-drop", "ALL"]
    if drop:
        command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        command += [word for name in ("CHOWN", "SETUID", "SETGID") for word in ("--cap-add", f"CAP_{name}")]
    else:
        command += ["--unshare-all"]
    for path in SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            command += ["--ro-bind", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in (*map(Path, SYSTEM_FILES), *_runtime_directories()):
        # Made by --ro-bind-try, the parents would be for their owner only.
        command += [word for parent in reversed(path.parents[:-1]) for word in ("--dir", str(parent))]
        command += ["--ro-bind-try", str(path), str(path)]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp"]


def _runtime_directories() -> list[Path]:
    """Directories outside the system's that the runtimes need."""
    private = (Path.home(), *Path.home().parents)
    wanted = [os.path.realpath(sys.base_prefix), *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    for language in runtimes.LANGUAGES:
        if (runtime := runtimes.find(language)) is None:
            continue
        folder = Path(runtime.path) if runtime.name == "lupa" else Path(runtime.path).parent
        # <prefix>/bin/lua needs <prefix>/lib; but ~/bin/lua must not bring the home directory in.
        wanted += [str(folder.parent)] if folder.name == "bin" and folder.parent not in private else [str(folder)]
    paths = [Path(path) for path in dict.fromkeys(wanted) if path.startswith("/")]
    return [path for path in paths if path not in private and not any(path.is_relative_to(base) for base in SYSTEM)]


def _environment() -> dict[str, str]:
    """What a program sees of the environment:

    nothing of the user's but the linker's path, which some clusters' runtimes need.
    """
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    return env | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


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

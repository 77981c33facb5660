"""The isolation that works on this machine. `probe` finds out by running a program, never by looking for a file.

The levels, best first:

- `bwrap`: bubblewrap makes the sandbox: no network, own processes, and of the file system only the directories of the
  system and of the runtimes, read-only.
- `unshare`: the supervisor makes the same sandbox by itself.
- `bwrap-renewed`: bubblewrap again, one sandbox per program, where no namespaces can be made inside it. It is slower.
- `rlimits`: a bare child process with limits on time, memory, files and processes. It is NOT isolated, so it is used
  only where `allow_unsandboxed` asks for it.

Root's programs run as `nobody`. Where that does not work, nothing runs, unless the environment variable
STUDYKIT_ISOLATION names the level, for instance "rlimits as root".
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

from studykit.errors import UserError
from studykit.evaluation.execution import mounts, runtimes, seccomp
from studykit.evaluation.execution.runner import Runner, RunnerDied, Sandbox, is_root

LEVELS = ("bwrap", "unshare", "bwrap-renewed", "rlimits")  # best first
ADVICE = {
    "bwrap": "install bubblewrap",
    "unshare": "allow unprivileged user namespaces",
    "bwrap-renewed": "install bubblewrap",
}
NAMED = "STUDYKIT_ISOLATION"  # environment variable
PROBES = 3  # times that a level which does not answer in time is tried


class NoSandboxError(UserError):
    """No sandbox that is allowed works on this machine."""


@functools.cache
def probe(sandbox: Sandbox) -> str:
    """Runs a program in `sandbox` and returns "" when it passes, else the reason why it does not work here.

    UserError where it is too slow to tell: a machine that is busy for a moment must not choose a weaker level.
    """
    if sandbox.level in ("bwrap", "bwrap-renewed") and not mounts.bubblewrap():
        return "not installed"
    if sandbox.level != "rlimits" and sys.platform != "linux":
        return "needs Linux"
    if sandbox.level == "rlimits" and sandbox.drop and (folder := closed_folder()):
        return f"root's programs run as nobody, who cannot enter {folder}, which holds this Python"
    for _ in range(PROBES):
        try:
            with Runner(sandbox) as runner:
                runner.build("python", "import decimal, random\nprint('works')", 10.0, 512)
                reply = runner.run()
        except RunnerDied as death:
            if death.slow:
                continue
            return str(death)
        except (UserError, OSError) as error:
            return str(error)
        if reply.status != "timeout":
            return "" if reply.status == "ok" else f"{reply.status}: {reply.stderr.strip()[-200:]}"
    raise UserError(
        f"the sandbox {sandbox} did not answer in time in any of {PROBES} attempts; try again when this machine "
        f"is less busy, or name another level in {NAMED}."
    )


def closed_folder() -> str | None:
    """Returns the first directory above the Python of programs that not every user may enter, or None."""
    python = runtimes.require("python")
    return next((str(above) for above in reversed(Path(python.path).parents) if not above.stat().st_mode & 0o001), None)


def about(sandbox: Sandbox) -> str:
    """Returns one line on what a program in this sandbox gets, for a reader who wonders."""
    fresh = "a sandbox of its own" if sandbox.level == "bwrap-renewed" else "namespaces of its own"
    if sandbox.level == "rlimits":
        return "no isolation, only limits on time, memory, files and processes"
    user = "nobody" if sandbox.drop else "the user, without privileges"
    closed = len(seccomp.REFUSED) + len(seccomp.COMMON)
    return (
        f"runs in {fresh}, as {user}; sees no network and no file of the user's; {closed} system calls are closed; its "
        "memory is summed over its processes and files, because no cgroup limits it"
    )


def candidates(allow_unsandboxed: bool = False) -> list[Sandbox]:
    """Returns the sandboxes that may be used here, best first; UserError for a level by a name that is not one."""
    levels = LEVELS if allow_unsandboxed else LEVELS[:-1]
    if not (named := os.environ.get(NAMED)):
        return [Sandbox(level, is_root()) for level in levels]
    sandboxes = {str(box): box for level in LEVELS for box in (Sandbox(level, is_root()), Sandbox(level))}
    if named not in sandboxes:
        raise UserError(f"{NAMED} is {named!r}; accepted here are {', '.join(sandboxes)}.")
    if sandboxes[named].level not in levels:
        raise UserError(f"{NAMED} is {named!r}, which isolates nothing; it needs allow_unsandboxed: true as well.")
    return [sandboxes[named]]


def choose(allow_unsandboxed: bool = False) -> Sandbox:
    """Returns the best sandbox that works on this machine.

    NoSandboxError where none works, or only `rlimits` and that is not allowed; UserError where one is too slow to tell.
    """
    reasons = {}
    for sandbox in candidates(allow_unsandboxed):
        if not (reason := probe(sandbox)):
            return sandbox
        reasons[str(sandbox)] = reason
    tried = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    advice = (
        "" if allow_unsandboxed else ", or set allow_unsandboxed: true to run them with limits but without isolation"
    )
    raise NoSandboxError(
        f"no sandbox for model-written programs works on this machine ({tried}): install bubblewrap{advice}"
    )

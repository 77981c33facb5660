"""What a sandbox shows of the file system, and bubblewrap's command line that shows it.

Every isolating level shows the same: the system's directories and those of the runtimes, read-only; a fresh /proc and
/dev; /tmp and /cache in memory. The user's home, root's, and the project are in none of them.
"""

from __future__ import annotations

import os
import shutil
import sys
from os.path import expanduser
from pathlib import Path

from studykit.evaluation.execution import runtimes

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix")
SYSTEM_FILES = ("/etc/alternatives", "/etc/ld.so.cache", *sorted(map(str, Path("/etc").glob("java-*-openjdk"))))
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}

# The supervisor makes namespaces and mounts, and measures processes of other users; programs keep none of these.
CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SETFCAP")
ROOT_CAPABILITIES = ("CHOWN", "FOWNER", "KILL", "SETGID", "SETUID")  # with which its keepers become nobody


def bubblewrap() -> str | None:
    """Returns the path of bubblewrap on the user's PATH, or None."""
    return shutil.which("bwrap")


def bwrap(drop: bool) -> list[str]:
    """Returns the words that precede the supervisor's command line; with `drop`, root needs no user namespace."""
    words = [bubblewrap() or "bwrap", "--die-with-parent", "--as-pid-1", "--new-session", "--cap-drop", "ALL"]
    if drop:
        words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    else:
        words += ["--unshare-all"]
    for name in CAPABILITIES + (ROOT_CAPABILITIES if drop else ()):
        words += ["--cap-add", f"CAP_{name}"]
    for directory in SYSTEM:
        if os.path.islink(directory):
            words += ["--symlink", os.readlink(directory), directory]
        elif os.path.isdir(directory):
            words += ["--ro-bind", directory, directory]
    words += ["--proc", "/proc", "--tmpfs", "/dev"]  # its --dev would take the right to make namespaces away
    words += [word for name in DEVICES for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
    words += [word for name, target in LINKS.items() for word in ("--symlink", target, f"/dev/{name}")]
    words += ["--tmpfs", "/dev/shm", "--tmpfs", "/tmp", "--tmpfs", "/cache"]
    for path in (*map(Path, SYSTEM_FILES), *runtime_directories()):
        # If --ro-bind-try made them, the parents would be for their owner only.
        words += [word for parent in reversed(path.parents[:-1]) for word in ("--dir", str(parent))]
        words += ["--ro-bind-try", str(path), str(path)]
    return [*words, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", "/tmp"]


def visible() -> list[str]:
    """Returns the files, directories and links of this machine that a sandbox shows."""
    paths = [path for path in (*SYSTEM, *SYSTEM_FILES) if os.path.lexists(path)]
    return [*paths, *map(str, runtime_directories())]


def runtime_directories() -> list[Path]:
    """Returns the directories outside the system's that the runtimes need."""
    home = Path(expanduser("~"))
    private = (home, *home.parents)
    wanted = [os.path.realpath(sys.base_prefix), *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    for language in runtimes.LANGUAGES:
        if (runtime := runtimes.find(language)) is None:
            continue
        folder = Path(runtime.path) if runtime.name == "lupa" else Path(runtime.path).parent
        # <prefix>/bin/lua needs <prefix>/lib; but ~/bin/lua must not bring the home directory in.
        wanted += [str(folder.parent)] if folder.name == "bin" and folder.parent not in private else [str(folder)]
    paths = [Path(path) for path in dict.fromkeys(wanted) if path.startswith("/")]
    return [path for path in paths if path not in private and not any(path.is_relative_to(base) for base in SYSTEM)]


def environment() -> dict[str, str]:
    """Returns the environment of the supervisor and so of programs.

    It holds nothing of the user's but the linker's path, which the runtimes of some clusters need.
    """
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    return env | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}

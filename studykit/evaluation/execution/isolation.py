"""The command lines that put the runner into a sandbox, and what of the file system is visible in there.

All three programs show the same: the system's directories and those of the runtimes, read-only, a fresh /proc and
/dev, and one writable directory in memory; no network. Containers need no image: their root is an empty directory.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from studykit.evaluation.execution import runtimes

# Best first. Those from `bwrap` to `podman` isolate; each is a program, or for `unshare` the runner itself.
LEVELS = ("bwrap", "unshare", "apptainer", "podman", "rlimits")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix")
SYSTEM_FILES = ("/etc/alternatives", "/etc/ld.so.cache", *sorted(map(str, Path("/etc").glob("java-*-openjdk"))))
CAPABILITIES = ("CHOWN", "SETUID", "SETGID")  # with which root's runner becomes nobody


def command(level: str, drop: bool, folder: str | None) -> list[str]:
    """What precedes the runner's own command line at a level; nothing for the levels without a program of their own.

    With `drop` the runner starts as root, to become nobody. folder: a directory for the files of a container.
    """
    return {"bwrap": bwrap, "apptainer": apptainer, "podman": podman}.get(level, lambda *_: [])(drop, folder)


def bwrap(drop: bool, folder: str | None = None) -> list[str]:
    """With `drop`, root makes the mounts without a user namespace."""
    words = ["bwrap", "--die-with-parent", "--as-pid-1", "--new-session", "--cap-drop", "ALL"]
    if drop:
        words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        words += [word for name in CAPABILITIES for word in ("--cap-add", f"CAP_{name}")]
    else:
        words += ["--unshare-all"]
    for path in SYSTEM:
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in (*map(Path, SYSTEM_FILES), *runtime_directories()):
        # Made by --ro-bind-try, the parents would be for their owner only.
        words += [word for parent in reversed(path.parents[:-1]) for word in ("--dir", str(parent))]
        words += ["--ro-bind-try", str(path), str(path)]
    return [*words, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", "/tmp"]


def podman(drop: bool, folder: str) -> list[str]:
    """Its own storage in `folder`: nothing is left in the user's."""
    store = ["--root", f"{folder}/store", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
    words = ["podman", *store, "--cgroup-manager", "cgroupfs", "run", "--rm", "--interactive", "--log-driver", "none"]
    words += ["--network", "none", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    words += [word for name in CAPABILITIES if drop for word in ("--cap-add", name)]
    for name in ("nofile", "nproc"):  # by itself podman asks for the most there is, which not everyone may
        most = min(4096, *(n for n in resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}")) if n > 0))
        words += ["--ulimit", f"{name}={most}:{most}"]
    words += [word for path in visible() for word in ("--volume", f"{path}:{path}:ro")]
    words += ["--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:rw,exec,mode=1777"]
    return [*words, "--workdir", "/tmp", "--env-host=false", *environment_options(), "--rootfs", root(folder)]


def apptainer(drop: bool, folder: str) -> list[str]:
    """`--containall` hides the home, the processes and the environment of the user."""
    words = ["apptainer", "--silent", "exec", "--containall", "--no-home", "--no-init", "--net", "--network", "none"]
    words += ["--keep-privs"] if drop else ["--no-privs"] if os.getuid() == 0 else []
    words += [word for path in visible() for word in ("--bind", f"{path}:{path}:ro")]
    os.makedirs(f"{folder}/tmp", exist_ok=True)  # the one that apptainer makes by itself holds 64 MB
    words += ["--bind", f"{folder}/tmp:/tmp", "--pwd", "/tmp", *environment_options(), root(folder)]
    return words


def root(folder: str) -> str:
    """The root of a container: a directory with the system's links, and mount points that a container adds to it."""
    os.makedirs(f"{folder}/rootfs/tmp", exist_ok=True)
    for path in SYSTEM:
        if os.path.islink(path) and not os.path.islink(inside := f"{folder}/rootfs{path}"):
            os.symlink(os.readlink(path), inside)
    return f"{folder}/rootfs"


def visible() -> list[str]:
    """Files and directories of this machine that a container shows."""
    system = [path for path in SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
    return [*system, *filter(os.path.exists, SYSTEM_FILES), *map(str, runtime_directories())]


def runtime_directories() -> list[Path]:
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


def environment() -> dict[str, str]:
    """What a program sees of the environment:

    nothing of the user's but the linker's path, which some clusters' runtimes need.
    """
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    return env | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def environment_options() -> list[str]:
    return [word for name, value in environment().items() for word in ("--env", f"{name}={value}")]

"""The circumstances of a run, for its manifest: commit, versions, threads, device, memory."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from studykit.runs.manifest import Commit

PACKAGES = ("studykit", "torch", "transformers", "peft", "numpy")
CODE = ("studykit", "notebooks", "params", "Snakefile")  # a change in any of these makes a commit dirty


def commit(home: Path) -> Commit | None:
    """Returns the commit of the project and whether code, notebooks or studies differ from it; None outside of git."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=home, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return Commit(id=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain", "--", *CODE)))
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide numbers, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def threads() -> int:
    """Returns the number of threads that compute."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def device() -> str:
    """Returns the name of the GPU once CUDA is in use, else cpu."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else "cpu"


def peak_memory_mb() -> int:
    """Returns the most memory that this process has held so far, in MB."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) // 1024
    except (OSError, KeyError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most // (1024**2 if sys.platform == "darwin" else 1024)

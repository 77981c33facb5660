"""Where and with what a run was made: commit, versions, threads, device, memory - what its manifest says of it."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from studykit.runs.manifest import Commit

PACKAGES = ("studykit", "torch", "transformers", "peft", "numpy")
CODE = ("studykit", "notebooks", "params", "Snakefile")  # a change in any of these makes a commit dirty


def commit(home: Path) -> Commit | None:
    """The commit of the project in `home` and whether code, notebooks or studies differ from it; None outside git."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=home, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return Commit(id=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain", "--", *CODE)))
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and the packages that make the numbers, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def threads() -> int:
    """Threads that the numbers were computed with."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def device() -> str:
    """The GPU's name once CUDA is in use, else cpu."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else "cpu"


def peak_memory_mb() -> int:
    """Most memory that this process ever held, MB."""
    try:
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
    except (OSError, TypeError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most // (1024**2 if sys.platform == "darwin" else 1024)

"""The tie between a notebook and the command that started it: they end together, and share the host's GPUs.

The command names itself in STUDYKIT_COMMAND. Without that variable (JupyterLab, plain papermill) nothing here acts.

A process is identified by its pid and its time of birth. The kernel counts that in ticks since boot, which do not move
when the clock is set; a time of day would move, and every watchdog would take its command for dead.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import psutil

from studykit.errors import UserError
from studykit.runs.locks import take

COMMAND = "STUDYKIT_COMMAND"  # variable that names the command whose end ends a notebook
# What notebooks of a batch find in their environment, unless the user has set it: set before torch is imported.
ENVIRONMENT = {
    # Nothing here is compiled by torch, but with its compiler off a library less is imported: a second a notebook.
    "TORCHDYNAMO_DISABLE": "1",
    # Threads of OpenMP that wait would spin: beside other work two notebooks are then many times slower.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel `python3` of this very environment
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
GPU_STAGES = ("base_model", "adapter", "fusion", "evaluate", "fusion_attention")
GPU_NAMES = 16  # that the lock file of a GPU may have
BOOT = Path("/proc/sys/kernel/random/boot_id")


def name(pid: int | None = None) -> str:
    """Returns this process (or `pid`) as host|pid|birth, since a pid may be reused."""
    process = psutil.Process(pid)
    return f"{socket.gethostname()}|{process.pid}|{_birth(process)}"


def alive(command: str) -> bool:
    """Returns whether a command still runs; one on another host is assumed to."""
    host, pid, born = command.split("|")
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and _birth(process) == born
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False


def _birth(process: psutil.Process) -> str:
    """When a process began: ticks since which boot; where there is no /proc, the time of day."""
    if sys.platform != "linux":
        return f"{process.create_time():.0f}"
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()  # a name may hold spaces
    return f"{fields[19]} of {BOOT.read_text().strip() if BOOT.is_file() else 'this boot'}"


def is_under_command() -> bool:
    """Returns whether Snakemake started this notebook; False in JupyterLab and for papermill by hand."""
    return bool(os.environ.get(COMMAND))


_watching: list[threading.Thread] = []
_gpu: list[BinaryIO] = []  # the lock file of this process's GPU, kept open while the process lives


def watch(every: float = 0.5) -> None:
    """Ends this process when the command that started it is gone; papermill and its kernel watch each."""
    command = os.environ.get(COMMAND)
    if not command or _watching:
        return

    def stop_if_orphaned() -> None:
        if not alive(command):
            os.kill(os.getpid(), signal.SIGKILL)  # whatever it is doing, and without a last word to the log

    def keep_watching() -> None:
        while True:
            stop_if_orphaned()
            time.sleep(every)

    stop_if_orphaned()
    _watching.append(threading.Thread(target=keep_watching, name="studykit-watchdog", daemon=True))
    _watching[0].start()


def gpus() -> list[str]:
    """Returns the GPUs that this process may use: CUDA_VISIBLE_DEVICES, else all NVIDIA devices of the host."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    return [str(i) for i, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def _gpu_lock(gpu: str) -> BinaryIO:
    """Opens the lock file of a GPU, which all projects of a user share.

    In /tmp anybody may have taken its name before, for a pipe or a link, so a file that is not the user's is passed
    over for the next name. Raises UserError if there are only such files.
    """
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = folder if os.path.isabs(folder) and os.access(folder, os.W_OK) else "/tmp"
    for number in range(GPU_NAMES):
        path = f"{folder}/studykit-gpu-{os.getuid()}-{gpu.replace('/', '_')}{f'-{number}' if number else ''}.lock"
        try:
            file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600), "r+b", 0)
        except OSError:  # a link, or a file that others have made
            continue
        about = os.fstat(file.fileno())
        if stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid():
            return file
        file.close()
    raise UserError(f"{path} and {number} files of similar names are not yours; set XDG_RUNTIME_DIR to a directory.")


def claim_gpu(stage: str) -> None:
    """Takes a GPU that no other run has, under Snakemake on a host with several: it counts GPUs but assigns none.

    To be called before CUDA is first used; the claim ends with the process.
    """
    free = gpus()
    if not os.environ.get(COMMAND) or stage not in GPU_STAGES or len(free) < 2 or _gpu:
        return
    while True:
        for gpu in free:
            file = _gpu_lock(gpu)
            if not take(file):
                file.close()
                continue
            _gpu.append(file)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return
        time.sleep(1)

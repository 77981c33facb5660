"""What a notebook owes the workflow engine that started it: to end with it, and to share the host's GPUs.

The engine names itself in STUDYKIT_COMMAND. Without that variable (JupyterLab, plain papermill) nothing here acts.

A process is known by its pid and its birth. The kernel tells that in ticks since boot, which a clock that is set right
does not move; a time of day would move with it, and every watchdog would take its engine for dead.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import psutil

from studykit.runs.locks import take

COMMAND = "STUDYKIT_COMMAND"  # variable that names the command whose end ends a notebook
GPU_STAGES = ("base_model", "adapter", "fusion", "evaluate", "fusion_attention")
BOOT = Path("/proc/sys/kernel/random/boot_id")


def name(pid: int | None = None) -> str:
    """This process (or `pid`) as host|pid|birth: a pid alone may be reused."""
    process = psutil.Process(pid)
    return f"{socket.gethostname()}|{process.pid}|{_birth(process)}"


def alive(engine: str) -> bool:
    """Whether the engine still runs; an engine on another host is taken to."""
    host, pid, born = engine.split("|")
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and _birth(process) == born
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False


def _birth(process: psutil.Process) -> str:
    """When a process began: ticks since boot, of which boot; where there is no /proc, the time of day."""
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
    """End this process when the engine that started it is gone. papermill and its kernel each watch for themselves."""
    engine = os.environ.get(COMMAND)
    if not engine or _watching:
        return

    def stop_if_orphaned() -> None:
        if not alive(engine):
            os.kill(os.getpid(), signal.SIGKILL)  # whatever it is doing, and without a last word to the log

    def keep_watching() -> None:
        while True:
            stop_if_orphaned()
            time.sleep(every)

    stop_if_orphaned()
    _watching.append(threading.Thread(target=keep_watching, name="studykit-watchdog", daemon=True))
    _watching[0].start()


def gpus() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES, else all NVIDIA devices of the host."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    return [str(i) for i, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def claim_gpu(stage: str) -> None:
    """Under an engine on a host with several GPUs: take one that no other run has. The engine counts GPUs but gives
    none by name. Must come before CUDA is first used; the claim ends with the process."""
    free = gpus()
    if not os.environ.get(COMMAND) or stage not in GPU_STAGES or len(free) < 2 or _gpu:
        return
    while True:
        for gpu in free:
            file = open(f"/tmp/studykit-gpu-{os.getuid()}-{gpu}.lock", "ab")
            if not take(file):
                file.close()
                continue
            _gpu.append(file)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return
        time.sleep(1)

"""A real Slurm on this machine alone, for tests: munged, slurmctld and slurmd of Debian's packages, one node.

apt-get install --no-install-recommends munge slurmctld slurmd slurm-client
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

DEFAULT = Path("/etc/slurm/slurm.conf")  # srun inside a job asks here: Snakemake's plugin clears the environment
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
CONF = """
ClusterName=tests
SlurmctldHost={host}
AuthType=auth/munge
AuthInfo=socket={at}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
ReturnToService=2
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here, or ""."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"{', '.join(absent)} not installed"
    if DEFAULT.exists():
        return f"{DEFAULT} is there: this machine has a Slurm of its own"
    return "" if os.geteuid() == 0 else "starting Slurm's daemons needs root"


@contextlib.contextmanager
def cluster(at: Path) -> Iterator[None]:
    """A running cluster of one node, its files in `at`, its configuration where commands look for it."""
    for name in ("state", "spool"):
        (at / name).mkdir(parents=True)
    key = at / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    port, node_port = _free_port(), _free_port()
    host = socket.gethostname().split(".")[0]
    conf = at / "slurm.conf"
    conf.write_text(CONF.format(at=at, host=host, port=port, node_port=node_port, cpus=os.cpu_count()))
    DEFAULT.parent.mkdir(exist_ok=True)
    DEFAULT.unlink(missing_ok=True)  # a link that a killed test left
    DEFAULT.symlink_to(conf)
    commands = [
        ["munged", "--force", "--foreground", f"--key-file={key}", f"--socket={at}/munge.socket",
         f"--pid-file={at}/munged.pid", f"--log-file={at}/munged.log", f"--seed-file={at}/munged.seed"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-c"],
    ]  # fmt: skip
    daemons = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT))
            time.sleep(1)
        _wait_for_node(at)
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], capture_output=True)
        for daemon in reversed(daemons):
            below = psutil.Process(daemon.pid).children(recursive=True) if daemon.poll() is None else []
            daemon.terminate()
            daemon.wait(20)
            for process in below:
                with contextlib.suppress(psutil.NoSuchProcess):  # steps end with their daemon, most of them
                    process.kill()
        DEFAULT.unlink()


def _wait_for_node(at: Path) -> None:
    until = time.monotonic() + 60
    while True:
        said = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
        if said.stdout.strip() in ("idle", "mixed"):
            return
        if time.monotonic() > until:
            logs = "".join(log.read_text()[-1500:] for log in at.glob("*.log"))
            raise RuntimeError(f"Slurm did not start: {said.stdout}{said.stderr}\n{logs}")
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

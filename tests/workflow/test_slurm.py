"""A study on a real Slurm of one node: run by sbatch, its driver killed, gone on with. `make test-slurm`"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import project
from tests.project import environment, stamps
from tests.workflow import slurm

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "-")]
# A checkpoint in the adapter, which then waits while the file `slow` exists.
HANGING = """import time
resumed = (run.checkpoints / 'step').exists()
(run.checkpoints / 'step').write_text(str(run.attempt))
while (files.home() / 'slow').exists(): time.sleep(0.1)
value = {'resumed': resumed, 'attempt': run.attempt}"""
COMMAND = ["run", "params/tiny.yaml", "--workflow-profile", "profiles/slurm", "--default-resources",
           "slurm_partition=main", "mem_mb=0", "runtime=30", "tasks=1"]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, request):
    """The daemons; where they do not start, a reason to skip among all tests, and an error in `make test-slurm`."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(slurm.cluster(tmp_path_factory.mktemp("slurm")))
        except RuntimeError as error:
            if "slurm" in request.config.option.markexpr:
                raise
            pytest.skip(str(error).split("\n")[0])
        yield


@pytest.fixture
def start():
    """Starts the driver in a project; none outlives the test."""
    started: list[subprocess.Popen] = []

    def begin(home: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "studykit.cli", *COMMAND]
        options = dict(cwd=home, env=environment(home), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        started.append(subprocess.Popen(command, **options, start_new_session=True))
        return started[-1]

    yield begin
    for driver in started:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)


class Table:
    """What happened when; printed for who runs the test by hand."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        print("| after (s) | what | jobs in the queue |\n|---|---|---|")

    def row(self, what: str) -> None:
        jobs = ", ".join(f"{job} {state}" for job, state in queued().items()) or "-"
        print(f"| {time.monotonic() - self.began:.1f} | {what} | {jobs} |")


def queued() -> dict[str, str]:
    """The state of every job in the queue, by its number."""
    said = subprocess.run(["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True)
    return dict(line.split() for line in said.stdout.splitlines())


def set_node(state: str) -> None:
    """`drain`: it takes no further job; `resume`."""
    node = os.uname().nodename.split(".")[0]
    subprocess.run(["scontrol", "update", f"nodename={node}", f"state={state}", "reason=test"], check=True)


def made(home: Path) -> dict[str, str]:
    """The manifests of finished runs: they say when each was computed."""
    return {file.parent.name: file.read_text() for file in home.glob("runs/*/*/manifest.json")}


def wait_until(condition, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"after {seconds} s: {what}"
        time.sleep(0.2)


def test_a_study_runs_by_sbatch_and_goes_on_after_its_driver_was_killed(tmp_path, cluster, start):
    home = project.make(tmp_path / "project")
    project.notebook(home, "adapter", work=HANGING)
    (home / "slow").touch()
    table = Table()
    set_node("drain")
    driver = start(home)
    wait_until(lambda: "PENDING" in queued().values(), 60, "nothing was submitted")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    (left,) = queued()
    table.row("the driver is killed while its first job waits, and started again at once")
    driver = start(home)

    def waits_anew() -> bool:
        jobs = queued()
        return list(jobs.values()) == ["PENDING"] and left not in jobs

    wait_until(waits_anew, 60, "a job that waited outlived its driver, or there is not one of each")
    table.row(f"job {left} is cancelled, the same work waits anew; the node is opened")

    set_node("resume")
    wait_until(lambda: list(home.glob("runs/.staging/adapter/*/checkpoints/step")) or driver.poll() is not None, 300,
               "the adapter has not begun")  # fmt: skip
    assert driver.poll() is None, driver.stdout.read()
    assert "RUNNING" in queued().values(), "it runs as a job"
    done, begun = made(home), set(queued())
    table.row(f"{len(done)} runs are finished, an adapter trains: the driver is killed, and started again at once")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert f"cancelled the jobs that a dead command left in Slurm's queue: {left}" in driver.stdout.read()

    driver = start(home)  # at once, while its jobs still end
    wait_until(lambda: any(step.read_text() == "2" for step in home.glob("runs/.staging/adapter/*/checkpoints/step"))
               or driver.poll() is not None, 300, "the adapter has not gone on")  # fmt: skip
    assert driver.poll() is None, driver.stdout.read()
    assert not begun & queued().keys(), "jobs of the killed one still run"
    table.row("the adapter has gone on from its checkpoint, in another job")
    (home / "slow").unlink()
    said = driver.communicate(timeout=600)[0]
    assert driver.returncode == 0, said + (home / "logs/tiny.snakemake.txt").read_text()[-3000:]
    table.row(f"the command ends with {driver.returncode}: {len(made(home))} runs are finished")
    assert done and done.items() <= made(home).items(), "what had finished was not made again"
    assert len(stamps(home)) == 6 and re.search(r"adapter lua-bottleneck-s0 done", said)
    (value,) = home.glob("runs/adapter/*/value.json")
    assert '"resumed": true' in value.read_text(), "the killed one went on from its checkpoint"

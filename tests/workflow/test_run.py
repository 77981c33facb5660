"""What the driver owes a study that runs: no end by its display or its terminal, no second command beside it."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from studykit.errors import UserError
from studykit.report import pages
from studykit.runs import locks
from studykit.study.family import load_plan
from studykit.study.file import load_study
from studykit.workflow import lock, run, slurm, snakemake
from tests.project import ROOT, STUDY

# Follows a child that takes 1.5 s and ends with 3, as Snakemake would be followed; what the driver says goes to a pipe.
FOLLOWING = """
import signal, sys
from pathlib import Path
from studykit.runs import locks
from studykit.workflow import run, snakemake
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
child = [sys.executable, "-c", "import sys, time; time.sleep(1.5); sys.exit(3)"]
lock = locks.acquire(Path("lock"), "a test")
with open("log", "wb") as log:
    code = run._run_snakemake(child, lock, log, [], snakemake.SnakemakeOptions("local", 1, ()))
run._print("the end", sys.stdout)
sys.exit(code)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    for folder in ("params", "runs", "profiles/default", "profiles/far"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "profiles/default/config.yaml").write_text("cores: 3\nresources: {mem_mb: 900}\n")
    (tmp_path / "profiles/far/config.yaml").write_text("executor: slurm\njobs: 8\n")
    return tmp_path


def following(hangup: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", FOLLOWING, hangup], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip


@pytest.mark.parametrize("hangup, code", [("SIG_IGN", 3), ("SIG_DFL", 129)])
def test_a_closed_terminal_ends_it_unless_nohup_says_otherwise(home, hangup, code):
    process = following(hangup)
    assert "0 runs exist" in process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == code


def test_a_reader_that_goes_away_ends_nothing(home):
    """As `studykit run x | head -1` does."""
    process = following("SIG_DFL")
    process.stdout.close()
    assert process.wait(30) == 3, "the exit code is the study's own"
    said = process.stderr.read()
    assert said.count("\n") == 1 and "its progress can no longer be shown (BrokenPipeError" in said
    assert "can no longer be shown" in (home / "log").read_text()


def test_an_error_of_the_display_ends_nothing(home, monkeypatch, capsys):
    def broken(*_):
        raise ValueError("no such number")

    monkeypatch.setattr("studykit.workflow.display.follow", broken)
    child = subprocess.Popen([sys.executable, "-c", "import sys, time; time.sleep(0.5); sys.exit(3)"])
    with open(home / "log", "wb") as log:
        assert run._show(child, log, [], snakemake.SnakemakeOptions("local", 1, ())) == 3
    assert "(ValueError: no such number)" in capsys.readouterr().err
    assert "Traceback" in (home / "log").read_text()


FAR = ["--workflow-profile", "profiles/far"]


@pytest.mark.parametrize("options, executor, places", [
    ([], "local", 3), (["--cores", "7"], "local", 7), (["-j", "5"], "local", 3), (FAR, "slurm", 8),
    (["--workflow-profile=far", "--jobs=2"], "slurm", 2), ([*FAR, "-e", "local", "-c4"], "local", 4),
    (["--workflow-profile", "none", "-j", "5"], "local", 5), (["--profile", "profiles/far", "-R", "x"], "slurm", 8),
])  # fmt: skip
def test_options_go_before_profiles(home, options, executor, places):
    found = snakemake.read_options(options)
    assert (found.executor, found.places) == (executor, places)


def test_the_limit_of_gpus_stands_beside_other_limits_and_only_on_this_machine(home, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for options, limits in [([], ["mem_mb=900"]), (["--resources", "mem_mb=7", "x=1"], ["mem_mb=7", "x=1"])]:
        assert snakemake.read_options(options).options == ["--resources", *limits, "gpu=2"]
    assert snakemake.read_options(["--res", "gpu=1"]).options == [], "the user's own"
    assert (
        snakemake.read_options(FAR).options[:1] == ["--slurm-jobname-prefix"] and snakemake.read_options(FAR).gpus == 0
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert snakemake.read_options([]).options == []


def test_a_wrong_profile_and_a_taken_option_are_told_in_a_sentence(home):
    with pytest.raises(UserError, match="slurm-jobname-prefix is set by studykit"):
        snakemake.read_options([*FAR, "--slurm-jobname-prefix", "mine"])
    (home / "profiles/far/config.yaml").write_text("jobs: [8")
    with pytest.raises(UserError, match="profiles/far/config.yaml is not YAML"):
        snakemake.read_options(FAR)


@pytest.fixture
def plain(home):
    """Starts a process that looks like Snakemake in this project."""
    (home / "snakemake").write_text("import sys, time\ntime.sleep(float(sys.argv[1]))\n")
    started: list[subprocess.Popen] = []

    def start(seconds: float, *more: str) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "snakemake", str(seconds), *more], cwd=home))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_another_snakemake_is_waited_for_and_then_named(home, plain, monkeypatch):
    monkeypatch.setattr(lock, "WAIT", 1.0)
    process = plain(60)
    with pytest.raises(UserError, match=rf"Snakemake \(process {process.pid} on {os.uname().nodename}\) is running"):
        with lock.only_command():
            pass
    process.kill()
    plain(0.5)
    with lock.only_command():
        assert locks.holder(home / "runs/.command.lock") == f"Process {os.getpid()} on {os.uname().nodename}"


def test_the_snakemake_of_a_single_job_is_no_engine(home, plain):
    process = plain(60, "--target-jobs", "adapter:run=x", "--mode", "remote")
    began = time.monotonic()
    with lock.only_command():
        assert process.poll() is None and time.monotonic() - began < 5


# Slurm's queue: `squeue` and `scancel` made up, a line per job.


@pytest.fixture
def queue(home, tmp_path_factory, monkeypatch):
    tools = tmp_path_factory.mktemp("tools")
    for name, text in (("squeue", "test -f queue || echo 'no  controller' >&2; cat queue 2> /dev/null"),
                       ("scancel", 'for id; do test $id = 99 || sed -i "/^$id /d" queue; done')):  # fmt: skip
        (tools / name).write_text(f"#!/bin/sh\ncd {tools}\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    return tools / "queue"


def job(number: int, name: str, uid: int | None = None, user: str = "me") -> str:
    return f"{number} {os.getuid() if uid is None else uid} {user} {name}\n"


def test_what_a_dead_engine_left_in_the_queue_is_cancelled_and_nothing_else(home, queue):
    mine, others = f"{slurm.job_name()}_0f1e", job(3, "studykit-0123456789_77") + job(4, "bash", 0, "root")
    queue.write_text(job(1, mine) + job(2, mine) + others)
    assert slurm.cancel_left_jobs("slurm") == "cancelled the jobs that a dead command left in Slurm's queue: 1 2"
    assert queue.read_text() == others
    assert slurm.cancel_left_jobs("slurm") == ""
    queue.write_text(job(5, mine))
    assert slurm.cancel_left_jobs("local") == "", "this project has never used Slurm"
    (home / ".snakemake/slurm_logs").mkdir(parents=True)
    assert slurm.cancel_left_jobs("local").endswith("queue: 5")


def test_jobs_of_others_and_jobs_that_stay_are_named(home, queue, monkeypatch):
    mine = slurm.job_name()
    queue.write_text(job(1, mine) + job(2, mine, os.getuid() + 1, "anna"))
    with pytest.raises(UserError, match="anna has jobs of this project in Slurm's queue: 2; have them cancelled"):
        slurm.cancel_left_jobs("slurm")
    assert len(queue.read_text().splitlines()) == 2
    monkeypatch.setattr(slurm, "ENDS", 0.5)
    queue.write_text(job(99, mine))
    with pytest.raises(UserError, match="has not ended the cancelled jobs 99"):
        slurm.cancel_left_jobs("slurm")


def test_a_slurm_that_does_not_answer_is_told_to_who_wants_it(home, queue):
    (home / ".snakemake/slurm_logs").mkdir(parents=True)
    with pytest.raises(UserError, match="Slurm does not answer: no controller."):
        slurm.cancel_left_jobs("slurm")
    assert slurm.cancel_left_jobs("local") == ""


def test_an_older_failure_is_not_the_reason_of_a_new_one(home, capsys):
    (home / "params/tiny.yaml").write_text(STUDY)
    planned = load_plan("params/tiny.yaml").runs
    failed, log = planned[0], home / "logs/tiny.snakemake.txt"
    text = home / f"logs/{failed.name}.txt"
    text.parent.mkdir(parents=True)
    text.write_text("Traceback\nnbclient.exceptions.DeadKernelError: Kernel died")
    log.write_text("FileNotFoundError: [Errno 2] No such file or directory: '/proc/none'\n")
    earlier = run._log_times(planned)
    run._report_failures(planned, earlier, log)
    printed = capsys.readouterr().err
    assert "Snakemake: FileNotFoundError" in printed and "memory ran out" not in printed
    os.utime(text, (1, 1))  # it has failed again
    run._report_failures(planned, earlier, log)
    printed = capsys.readouterr().err
    assert f"{failed.name}: its kernel died: it was killed" in printed and "Snakemake" not in printed


def test_a_home_directory_that_cannot_be_written_stops_nothing(home, monkeypatch):
    for name in ("XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home / "user"))
    run._provide_cache()
    assert "XDG_CACHE_HOME" not in os.environ and (home / "user/.cache").is_dir()
    monkeypatch.setenv("HOME", "/proc/none")
    run._provide_cache()
    assert os.environ["XDG_CACHE_HOME"] == str(home / ".snakemake/cache") and (home / ".snakemake/cache").is_dir()
    assert os.environ["HF_HOME"] == "/proc/none/.cache/huggingface"


@pytest.mark.parametrize("command", [
    lambda: run.run(load_plan("params/copy.yaml"), None, True, False, []), lambda: pages.write_report(load_plan("params/copy.yaml")),
])  # fmt: skip
def test_two_studies_of_one_name_are_refused(home, command):
    (home / "params/broken.yaml").write_text("study: [")
    for name in ("tiny", "copy"):
        (home / f"params/{name}.yaml").write_text(STUDY)
    with pytest.raises(UserError, match=r"params/copy.yaml and params/tiny.yaml both have the name study: tiny"):
        command()
    assert not (home / "reports").exists()
    (home / "params/tiny.yaml").write_text(STUDY.replace("study: tiny", "study: tiny_2"))
    pages.require_unique_name("params/copy.yaml", load_study("params/copy.yaml"))


def test_a_look_at_waiting_jobs_is_asked_for_once_at_a_time():
    """Or each job that ends adds one more that repeats each second, and Snakemake takes the core from the notebooks."""
    scheduler = SimpleNamespace(_open_jobs=threading.Semaphore(0))
    for _ in range(9):
        snakemake.ask_once(scheduler, 0.05)
    assert scheduler._open_jobs.acquire(timeout=5) and not scheduler._open_jobs.acquire(timeout=0.3)
    snakemake.ask_once(scheduler, 0.05)
    assert scheduler._open_jobs.acquire(timeout=5), "and again when that one has been"


def test_snakemake_asks_where_it_is_expected_to():
    source = inspect.getsource(JobScheduler.schedule)
    assert "self._schedule_reevalutation(self.job_rate_limiter.timespan)" in source
    assert "self._open_jobs.release()" in inspect.getsource(JobScheduler._schedule_reevalutation)

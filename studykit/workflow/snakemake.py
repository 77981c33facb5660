"""Snakemake as the command starts it: `python -m studykit.workflow.snakemake ...`, with Snakemake's options.

It ends when the command dies (see `process`), and it can be interrupted: a shell starts background jobs with Ctrl-C
ignored, and notebooks would inherit that.

The command must know beforehand what options and profiles ask for; `read_options` finds it out. Snakemake's own parser
would take a second, and 100 MB of a process that lives as long as the study.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from difflib import get_close_matches
from os.path import expanduser
from pathlib import Path
from typing import Any

import yaml

from studykit.errors import UserError
from studykit.runs import files as run_files
from studykit.runs import process
from studykit.workflow import warm
from studykit.workflow.slurm import job_name

COMMAND = [sys.executable, "-m", "studykit.workflow.snakemake"]
PREFIX = "--slurm-jobname-prefix"
UNLIMITED = 10**6  # jobs
OWN = ("--cores", "--dry-run", "--verbose")  # options of `studykit run` itself
PARSE = """
import sys
from snakemake.cli import get_argument_parser
parser = get_argument_parser()
print(*parser._option_string_actions)
sys.stdout.flush()
parser.parse_args(sys.argv[1:])
"""


@dataclass(frozen=True)
class SnakemakeOptions:
    """The settings in options and profiles that the command needs to know."""

    executor: str  # local, slurm, ...
    places: int  # jobs at a time: cores on this machine, else jobs in the queue
    resources: tuple[str, ...]  # limits over all jobs: name=number

    @property
    def gpus(self) -> int:
        """Returns the number of GPUs that jobs share among themselves; 0 on a cluster, which assigns them itself."""
        return len(process.gpus()) if self.executor == "local" else 0

    @property
    def options(self) -> list[str]:
        """Returns the options to add to the user's.

        They limit jobs to one per GPU, repeating the other limits, since only the last list counts; and they name
        Slurm's jobs after the project.
        """
        if self.executor == "slurm":
            return [PREFIX, job_name()]
        if self.gpus and not any(limit.startswith("gpu=") for limit in self.resources):
            return ["--resources", *self.resources, f"gpu={self.gpus}"]
        return []


def read_options(options: list[str]) -> SnakemakeOptions:
    """Returns the settings of `options`; where they are silent, of the workflow's profile (profiles/default unless
    another is named), and last of a general profile.

    Raises UserError for a profile that is not YAML, and for an option that only the command may set.
    """
    parser = argparse.ArgumentParser(prog="studykit run", add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", nargs="+", default=os.environ.get("SNAKEMAKE_PROFILE", "").split())
    parser.add_argument("--workflow-profile", default="default")
    parser.add_argument(PREFIX)
    for names in (("--executor", "-e"), ("--cores", "-c"), ("--jobs", "-j")):
        parser.add_argument(*names, nargs="?", const="all")
    parser.add_argument("--resources", "--res", nargs="+")
    given = vars(parser.parse_known_args(options)[0])
    if given[PREFIX.strip("-").replace("-", "_")]:
        raise UserError(f"{PREFIX} is set by studykit, which finds the jobs of a project by it; leave it out.")
    settings: dict[str, Any] = {}
    for name in (*given["profile"], given["workflow_profile"]):
        settings |= _profile(name)
    settings |= {name: value for name, value in given.items() if value is not None}
    executor, limits = settings.get("executor", "local"), settings.get("resources", [])
    limits = [f"{k}={v}" for k, v in limits.items()] if isinstance(limits, dict) else limits
    cores = settings.get("cores") or settings.get("jobs", 1)
    places = _count(cores if executor == "local" else settings.get("jobs", 1))
    return SnakemakeOptions(executor, places, tuple(map(str, limits)))


def check_options(options: list[str]) -> None:
    """Raises UserError for options that Snakemake does not know or cannot read, before it has started anything.

    Its parser works in a process of its own, which ends at once.
    """
    done = subprocess.run([sys.executable, "-c", PARSE, *options], capture_output=True, text=True, cwd=run_files.home())
    if done.returncode == 2:
        problem = done.stderr.strip().rpartition("error: ")[2]
        known = done.stdout.split()
        wrong = [word.split("=")[0] for word in problem.split() if word.startswith("-")]
        close = [found for word in wrong for found in get_close_matches(word, [*known, *OWN], 1) if word not in known]
        way_out = f"did you mean {close[0]}?" if close else "`snakemake --help` lists its options."
        raise UserError(f"Snakemake says: {problem}; {way_out}")


def _profile(name: str) -> dict[str, Any]:
    """The settings of a profile, found where Snakemake looks: a path, profiles/NAME, the user's, the machine's."""
    places = (Path(), Path("profiles"), Path(expanduser("~/.config/snakemake")), Path("/etc/xdg/snakemake"))
    for at in (run_files.home() / place / name for place in places):
        files = [at] if at.is_file() else sorted([*at.glob("profile*.yaml"), *at.glob("config*.yaml")])
        if files:
            try:
                return yaml.safe_load(files[0].read_text(encoding="utf-8")) or {}
            except yaml.YAMLError as error:
                raise UserError(f"{files[0]} is not YAML: {' '.join(str(error).split())}.") from None
    return {}


def _count(value: Any) -> int:
    """A number of cores or jobs; `all` are the cores of this machine, and any other text means no limit."""
    if str(value).isdigit():
        return max(1, int(value))
    return len(os.sched_getaffinity(0)) if value == "all" else UNLIMITED


def ask_once(scheduler: Any, delay: float) -> None:
    """Asks Snakemake's scheduler for another look at the jobs that wait, unless one is due; stands for its own method.

    Each look at jobs that wait while all cores are taken asks for another one a second later, and so does every job
    that ends, and none of these chains stops: after 300 jobs Snakemake (9.27) looks 150 times a second and takes most
    of a core from the notebooks (its issues 200 and 3744). One look a second finds the same jobs.
    """
    if getattr(scheduler, "look_is_due", False):
        return
    scheduler.look_is_due = True

    def look() -> None:
        scheduler.look_is_due = False
        scheduler._open_jobs.release()

    timer = threading.Timer(delay, look)
    timer.daemon = True  # or Snakemake's end waits for it
    timer.start()


if __name__ == "__main__":
    process.watch()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server = warm.start()
    gc.disable()  # while it imports: what is imported stays
    from snakemake.cli import main
    from snakemake.scheduling.job_scheduler import JobScheduler

    gc.freeze()
    gc.enable()
    JobScheduler._schedule_reevalutation = ask_once  # its name, with its spelling
    main()

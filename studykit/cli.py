"""The `studykit` command: run a study, render its report, show its plan.

    studykit run params/quickstart.yaml             make everything that is missing or out of date, then the report
    studykit run params/quickstart.yaml --dry-run   only say what would run
    studykit report params/quickstart.yaml          render the report of what there is
    studykit plan params/quickstart.yaml            list the runs and how they stand
    studykit estimate params/x.yaml --gpu 24GB      memory of every stage, and whether such a GPU is large enough
    studykit check-references PATH                  run a benchmark's own solutions against its tests
    studykit doctor                                 list runtimes, sandbox and GPU libraries here, and try them

Unknown options of `run` go to Snakemake (`--workflow-profile profiles/slurm`, `--forcerun compare`). The command can be
given again at any time: after Ctrl-C, a kill or a power cut it goes on where it was.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from studykit import engine, plan, reports, runs, standing
from studykit.params import UserError
from studykit.study import load_study

WAIT = 15.0  # seconds that notebooks of a dead engine get to end; their watchdog needs about one


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="studykit", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, about in (("run", "run a study and render its report"), ("report", "render the report of what there is"),
                        ("plan", "list a study's runs and how they stand"),
                        ("estimate", "say how much memory a study takes, from its base's config alone")):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("study", help="a study file, for instance params/quickstart.yaml")
        if name == "run":
            command.add_argument("--cores", type=int, metavar="N", help="notebooks at a time (default: the profile's)")
            command.add_argument("--dry-run", "-n", action="store_true", help="only say what would run")
        if name == "estimate":
            command.add_argument("--gpu", metavar="SIZE", help="such as 24GB (default: what this machine has)")
    about = "run the references of a data run or of HumanEval-X against their own tests"
    command = commands.add_parser("check-references", help=about, description=about)
    command.add_argument("path", help="a data run, a .jsonl file of rows, or a folder or file of HumanEval-X")
    command.add_argument("--language", action="append", default=[], help="only this one; may be repeated")
    command.add_argument("--allow-unsandboxed", action="store_true", help="also where nothing isolates the programs")
    about = "list this machine's runtimes, sandbox and GPU libraries, and try them"
    commands.add_parser("doctor", help=about, description=about)
    args, extra = parser.parse_known_args(argv)
    if extra and args.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        if args.command == "doctor":
            from studykit import doctor

            print(doctor.report())
            return 0
        if args.command == "check-references":
            return _check_references(args.path, args.language, args.allow_unsandboxed)
        file = _from_home(args.study)
        os.chdir(runs.home())
        if args.command == "run":
            return _run(file, args.cores, args.dry_run, extra)
        if args.command == "report":
            print(reports.write(file).relative_to(runs.home()))
            return 0
        if args.command == "estimate":
            from studykit import estimate  # torch and transformers are slow to import: the others do without

            print(estimate.report(load_study(file), args.gpu))
            return 0
        return _plan(file)
    except UserError as error:
        print(f"studykit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _from_home(study: str) -> str:
    """The study file as seen from the project's home, where every command runs."""
    file = Path(study)
    if not file.is_file():
        return study  # load_study says what is wrong with it
    file = file.resolve()
    return str(file.relative_to(runs.home())) if file.is_relative_to(runs.home()) else str(file)


def _check_references(path: str, languages: list[str], allow_unsandboxed: bool) -> int:
    from studykit.evaluation import references  # execution and metrics: the other commands do without

    rows = references.read(path, languages)
    print(references.table(references.verify_references(rows, allow_unsandboxed=allow_unsandboxed)))
    return 0


def _plan(file: str) -> int:
    for run, status in standing.of_study(plan.plan(load_study(file))).items():
        seconds = f"{status.manifest['seconds']:8.1f} s" if status.manifest else " " * 10
        print(f"{status.state:8} {seconds}  {run.name}" + (f"  {status.error}" if status.error else ""))
    return 0


def _run(file: str, cores: int | None, dry_run: bool, extra: list[str]) -> int:
    planned = plan.plan(load_study(file))
    if "--config" in extra or "-C" in extra:
        raise UserError("--config turns numbers into text; write the value into the study file, or a copy of it.")
    options = ["--configfile", file, *extra]
    options += ["--cores", str(cores)] if cores else []
    options += ["--resources", f"gpu={len(engine.gpus())}"] if engine.gpus() and "--resources" not in extra else []
    # The index is also written after a failure or a stop; it must not pass for a sign that all runs are there.
    if any(not (runs.home() / run.dir / "notebook.ipynb").is_file() for run in planned):
        options += ["--forcerun", "index"] if "--forcerun" not in extra and "-R" not in extra else []
    if dry_run:
        return _snakemake(["--dry-run", *options])
    with _only_engine():
        os.environ["STUDYKIT_ENGINE"] = engine.name()
        _wait_for_orphans(planned)
        if any(Path(".snakemake/locks").glob("*")):  # ours is the only engine, so it was left by a dead one
            _snakemake(["--unlock", "--quiet", "all", *options])
        code = _snakemake(options)
        index = reports.write(file).relative_to(runs.home())  # also when something failed, or only prose has changed
    if code:
        for run, status in standing.of_study(planned).items():
            if status.state in ("failed", "stopped"):
                print(f"studykit: {run.name}: {status.error}", file=sys.stderr)
                print(f"    see {status.log.relative_to(runs.home()) if status.log else 'logs/' + run.name + '.txt'}",
                      file=sys.stderr)  # fmt: skip
        print(f"studykit: not everything ran; what there is stands in {index}", file=sys.stderr)
    else:
        print(f"studykit: the report is {index}")
    return code


def _snakemake(options: list[str]) -> int:
    from snakemake.cli import main as snakemake  # slow to import: `plan` and `report` do without

    try:
        snakemake(options)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextmanager
def _only_engine() -> Iterator[None]:
    """Holds runs/.engine.lock: a lock that ends with its process, unlike Snakemake's, which a kill leaves behind."""
    lock = runs.home() / "runs" / ".engine.lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = runs.holder(lock)
            raise UserError(f"{other} is running a study in this project; wait for it or stop it.") from None
        if plain := _plain_snakemakes():
            raise UserError(f"Snakemake (process {plain[0]}) is running in this project; wait for it or stop it.")
        file.truncate(0)
        file.write(f"Process {os.getpid()} on {os.uname().nodename}".encode())
        file.flush()
        yield


def _plain_snakemakes() -> list[int]:
    """Other processes that run Snakemake in this project, started without the `studykit` command."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if (process.pid != os.getpid() and any(Path(w).name == "snakemake" for w in words[:3])
                    and process.cwd() == str(runs.home())):  # fmt: skip
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def _wait_for_orphans(planned: list[plan.Run]) -> None:
    """Notebooks of a killed engine end by themselves; one that does not (on another host) is named."""
    for run in planned:
        runs.wait_for_writer(f"{run.stage}/{Path(run.dir).name}", WAIT)


if __name__ == "__main__":
    sys.exit(main())

"""The `studykit` command: run a study, see how it goes, render its report, show its plan.

    studykit run params/quickstart.yaml             make everything that is missing or out of date, then the report
    studykit run params/quickstart.yaml --dry-run   only say what would run
    studykit status params/quickstart.yaml          how far it is, while it runs or after
    studykit report params/quickstart.yaml --zip    render the report of what there is, and pack it for mailing
    studykit plan params/quickstart.yaml            list the runs and how they stand
    studykit explore runs/fusion_attention/x        the explorer of a run's fusion weights as one HTML file
    studykit clean                                  list the runs that no study needs; --yes removes them
    studykit estimate params/x.yaml --gpu 24GB      memory of every stage, and whether such a GPU is large enough
    studykit check-references PATH                  run a benchmark's own solutions against its tests
    studykit doctor                                 list runtimes, sandbox and GPU libraries here, and try them

Unknown options of `run` go to Snakemake (`--workflow-profile profiles/slurm`, `--forcerun compare`), whose messages are
kept in logs/<study>.snakemake.txt. The command can be given again at any time: after Ctrl-C, a kill or a power cut it
goes on where it was.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

from studykit.errors import UserError
from studykit.report import pages
from studykit.runs import files
from studykit.runs import status as runs_status
from studykit.study import plan
from studykit.study.file import load_study
from studykit.workflow import clean, progress
from studykit.workflow import run as workflow_run

NO_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}  # no space, no right


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="studykit", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, about in (("run", "run a study and render its report"),
                        ("status", "say how far a study is, while it runs or after"),
                        ("report", "render the report of what there is"),
                        ("plan", "list a study's runs and how they stand"),
                        ("estimate", "say how much memory a study takes, from its base's config alone")):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("study", help="a study file, for instance params/quickstart.yaml")
        if name == "run":
            command.add_argument("--cores", type=int, metavar="N", help="notebooks at a time (default: the profile's)")
            command.add_argument("--dry-run", "-n", action="store_true", help="only say what would run")
            command.add_argument("--verbose", action="store_true", help="show Snakemake's own messages instead")
        if name == "report":
            command.add_argument("--zip", action="store_true", help="also pack it into reports/<study>.zip")
        if name == "estimate":
            command.add_argument("--gpu", metavar="SIZE", help="such as 24GB (default: what this machine has)")
    about = "write the explorer of fusion weights as one HTML file; several runs stand side by side"
    command = commands.add_parser("explore", help=about, description=about)
    command.add_argument("runs", nargs="+", help="a fusion_attention or fusion run, or a record (.npz)")
    command.add_argument("--out", default="explorer.html", metavar="FILE", help="default: explorer.html")
    about = "list the runs that no study needs, with their sizes"
    command = commands.add_parser("clean", help=about, description=about)
    command.add_argument("--yes", action="store_true", help="remove them")
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
            from studykit.evaluation.execution import doctor

            print(doctor.report())
            return 0
        if args.command == "explore":
            return _explore(args.runs, Path(args.out))
        if args.command == "check-references":
            return _check_references(args.path, args.language, args.allow_unsandboxed)
        if args.command == "clean":
            os.chdir(files.home())
            print(clean.remove() if args.yes else clean.listing())
            return 0
        file = _from_home(args.study)
        os.chdir(files.home())
        if args.command == "run":
            return workflow_run.run(file, args.cores, args.dry_run, args.verbose, extra)
        if args.command == "status":
            print(progress.table(plan.plan(load_study(file))))
            return 0
        if args.command == "report":
            index = pages.write_report(file)
            print((pages.pack_report(index.parent) if args.zip else index).relative_to(files.home()))
            return 0
        if args.command == "estimate":
            from studykit.training import estimate  # torch and transformers are slow to import: the others do without

            print(estimate.report(load_study(file), args.gpu))
            return 0
        return _plan(file)
    except UserError as error:
        print(f"studykit: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in NO_WRITING:
            raise
        print(f"studykit: {error.filename or 'a file of the project'} cannot be written ({error.strerror}); put that "
              "right and give the same command again.", file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        return 130


def _from_home(study: str) -> str:
    """The study file as seen from the project's home, where every command runs."""
    file = Path(study)
    if not file.is_file():
        return study  # load_study says what is wrong with it
    file = file.resolve()
    return str(file.relative_to(files.home())) if file.is_relative_to(files.home()) else str(file)


def _explore(places: list[str], out: Path) -> int:
    from studykit.report.explorer import explore  # numpy and matplotlib: the other commands do without

    names = [Path(place).stem for place in places]
    title = f"Fusion weights, {names[0]}" if len(names) == 1 else "Fusion weights"
    print(explore(dict(zip(names, places, strict=True)) if len(names) > 1 else places[0], title=title).save(out))
    return 0


def _check_references(path: str, languages: list[str], allow_unsandboxed: bool) -> int:
    from studykit.evaluation import references  # execution and metrics: the other commands do without

    rows = references.read(path, languages)
    print(references.table(references.verify_references(rows, allow_unsandboxed=allow_unsandboxed)))
    return 0


def _plan(file: str) -> int:
    for run, status in runs_status.of_study(plan.plan(load_study(file))).items():
        seconds = f"{status.manifest['seconds']:8.1f} s" if status.manifest else " " * 10
        print(f"{status.state:8} {seconds}  {run.name}" + (f"  {status.error}" if status.error else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())

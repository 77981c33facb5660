"""The `studykit` command: run a study, see how it goes, render its report, show its plan.

    studykit run params/quickstart.yaml             make everything that is missing or out of date, then the report
    studykit run params/quickstart.yaml --dry-run   only list what would run
    studykit status params/quickstart.yaml          show how far it is, while it runs or after
    studykit report params/quickstart.yaml --zip    render the report of what has run, and pack it for mailing
    studykit plan params/quickstart.yaml            list the runs and their status; --full prints every key of the study
    studykit explore runs/fusion_attention/x        write the explorer of a run's fusion weights as one HTML file
    studykit gather params/a.yaml params/b.yaml --over base   run studies and pool their differences
    studykit studies                                list the studies in params/ and what they ask
    studykit clean                                  list the runs that no study needs; --yes removes them
    studykit estimate params/x.yaml --gpu 24GB      estimate the memory of every stage, and whether such a GPU suffices
    studykit power params/x.yaml --difference 5     how many seeds and test rows find a true difference of 5
    studykit check-references PATH                  run a benchmark's own solutions against its tests
    studykit doctor                                 list runtimes, sandbox and GPU libraries here, and try them

Unknown options of `run` go to Snakemake (`--workflow-profile profiles/slurm`, `--forcerun compare`), whose messages are
kept in logs/<study>.snakemake.txt. The command can be given again at any time: after Ctrl-C, a kill or a power cut it
continues where it was.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from studykit.errors import UserError, printable
from studykit.report import pages
from studykit.runs import files
from studykit.runs import status as runs_status
from studykit.study import questions
from studykit.study.family import load_plan
from studykit.study.tiny_values import warnings
from studykit.workflow import clean, progress, studies
from studykit.workflow import run as workflow_run
from studykit.workflow import tune as workflow_tune

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}  # no space, or no right to write


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code: 2 for a mistake of the user's, which one sentence explains."""
    parser = _parser()
    args, extra = parser.parse_known_args(argv)
    if extra and args.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    args.extra = extra
    try:
        if hasattr(args, "study"):
            args.study = _from_home(args.study)
        code = args.execute(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"studykit: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        file = printable(str(error.filename or "a file of the project"))
        print(
            f"studykit: {file} cannot be written ({error.strerror}); correct that and give the same command again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="studykit", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, execute: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(execute=execute)
        return command

    def add_of_study(name: str, execute: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        command = add(name, execute, about)
        command.add_argument("study", help="a study file, for instance params/quickstart.yaml")
        return command

    command = add_of_study("run", _run, "run a study and render its report")
    command.add_argument("--cores", type=int, metavar="N", help="notebooks at a time (default: the profile's)")
    command.add_argument("--dry-run", "-n", action="store_true", help="only list what would run")
    command.add_argument("--verbose", action="store_true", help="show Snakemake's own messages instead")
    command = add("gather", _gather, "run several studies and pool their differences in one report")
    command.add_argument("studies", nargs="+", metavar="study", help="study files")
    command.add_argument(
        "--over",
        action="append",
        required=True,
        metavar="KEY",
        help="in what the studies are a sample: base, quantization, target, task, target_examples, data.seed, or any "
        "key of a study; may be repeated, the first makes the lines of the forest plot",
    )
    command.add_argument("--covariate", metavar="NAME", help="take the slope on parameters, target_rows or a KEY")
    command.add_argument("--cores", type=int, metavar="N", help="notebooks at a time (default: the profile's)")
    add("studies", _studies, "list the studies in params/, with their questions and how far they are")
    add_of_study("status", _status, "show how far a study is, while it runs or after")
    command = add_of_study("report", _report, "render the report of what has run")
    command.add_argument("--zip", action="store_true", help="also pack it into reports/<study>.zip")
    command = add_of_study("plan", _plan, "list the runs of a study and their status")
    command.add_argument(
        "--full", action="store_true", help="print the study file with every key and its value instead"
    )
    command = add_of_study("tune", _tune, "try values for every method and write a study file with the best ones")
    command.add_argument("--cores", type=int, metavar="N", help="notebooks at a time (default: the profile's)")
    command.add_argument("--verbose", action="store_true", help="show Snakemake's own messages instead")
    command = add_of_study("estimate", _estimate, "estimate the memory of a study from only the config of its base")
    command.add_argument("--gpu", metavar="SIZE", help="such as 24GB (default: what this machine has)")
    command = add_of_study("power", _power, "say how many seeds and test rows find a difference between methods")
    command.add_argument("--from", dest="run", metavar="RUN", help="a compare run (default: that of the study)")
    command.add_argument("--difference", type=float, metavar="D", help="in the unit of the study's main score")
    command = add("explore", _explore, "write the explorer of fusion weights as one HTML file")
    command.add_argument(
        "runs", nargs="+", help="fusion_attention or fusion runs, or records (.npz), shown side by side"
    )
    command.add_argument("--out", default="explorer.html", metavar="FILE", help="default: explorer.html")
    command = add("clean", _clean, "list the runs that no study needs, with their sizes")
    command.add_argument(
        "runs", nargs="*", metavar="RUN", help="only these; a run made by hand is removed only if named"
    )
    command.add_argument("--yes", action="store_true", help="remove them")
    command = add(
        "check-references",
        _check_references,
        "run the references of a data run or of HumanEval-X against their own tests",
    )
    command.add_argument("path", help="a data run, a .jsonl file of rows, or a folder or file of HumanEval-X")
    command.add_argument("--language", action="append", default=[], help="only this one; may be repeated")
    command.add_argument("--allow-unsandboxed", action="store_true", help="also where nothing isolates the programs")
    add("doctor", _doctor, "list this machine's runtimes, sandbox and GPU libraries, and try them")
    return parser


def _from_home(study: str) -> str:
    """The study file as seen from the project's home, where the command then works."""
    file = Path(study)
    home = files.home()
    if file.is_file():
        file = file.resolve()
        study = str(file.relative_to(home)) if file.is_relative_to(home) else str(file)
    os.chdir(home)
    return study


def _run(args: argparse.Namespace) -> int:
    return workflow_run.run(load_plan(args.study), args.cores, args.dry_run, args.verbose, args.extra)


def _gather(args: argparse.Namespace) -> int:
    places = [str(Path(study).absolute()) for study in args.studies]  # before the command changes to the home
    file = studies.gathering([_from_home(place) for place in places], args.over, args.covariate)
    return workflow_run.run(load_plan(file), args.cores, False, False, [])


def _studies(args: argparse.Namespace) -> int:
    os.chdir(files.home())
    print(studies.listing())
    return 0


def _status(args: argparse.Namespace) -> int:
    print(progress.status_table(load_plan(args.study).runs))
    return 0


def _report(args: argparse.Namespace) -> int:
    index = pages.write_report(load_plan(args.study, check_paths=False))
    print((pages.pack_report(index.parent) if args.zip else index).relative_to(files.home()))
    return 0


def _plan(args: argparse.Namespace) -> int:
    planned = load_plan(args.study)
    for warning in warnings(planned.study):
        print(f"studykit: {args.study}: {warning}", file=sys.stderr)
    if args.full:
        print(planned.dump(), end="")
        return 0
    for run, status in runs_status.study_status(planned.runs).items():
        seconds = f"{status.manifest.seconds:8.1f} s" if status.manifest else " " * 10
        print(f"{status.state:8} {seconds}  {run.name}" + (f"  {status.error}" if status.error else ""))
    return 0


def _tune(args: argparse.Namespace) -> int:
    return workflow_tune.tune(load_plan(args.study), args.cores, args.verbose)


def _estimate(args: argparse.Namespace) -> int:
    from studykit.training import fit  # torch and transformers are slow to import: other commands do without

    print(fit.report(load_plan(args.study).study, args.gpu))
    return 0


def _power(args: argparse.Namespace) -> int:
    from studykit.evaluation import power  # numpy: other commands do without

    planned = load_plan(args.study, check_paths=False)
    study, compare = planned.study, next(run for run in planned.runs if run.stage == "compare")
    pairs = compare.params["contrasts"] or questions.method_pairs(study.methods, study.baseline, study.target)
    seeds, confidence = len(study.seeds), compare.params["confidence"]
    print(power.report(args.run or compare.dir, pairs, seeds, confidence, args.difference))
    return 0


def _explore(args: argparse.Namespace) -> int:
    from studykit.report.explorer import explore  # numpy and matplotlib: other commands do without

    names = [Path(place).stem for place in args.runs]
    title = f"Fusion weights, {names[0]}" if len(names) == 1 else "Fusion weights"
    runs = dict(zip(names, args.runs, strict=True)) if len(names) > 1 else args.runs[0]
    print(explore(runs, title=title).save(Path(args.out)))
    return 0


def _clean(args: argparse.Namespace) -> int:
    os.chdir(files.home())
    print(clean.remove_leftovers(args.runs) if args.yes else clean.list_leftovers(args.runs))
    return 0


def _check_references(args: argparse.Namespace) -> int:
    from studykit.evaluation import references  # execution and metrics: other commands do without

    rows = references.read_references(args.path, args.language)
    print(references.format_references(references.verify_references(rows, allow_unsandboxed=args.allow_unsandboxed)))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from studykit.evaluation.execution import doctor

    print(doctor.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())

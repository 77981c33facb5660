"""The `studykit` command: run a study, see how it goes, render its report, show its plan.

Unknown options of `run` go to Snakemake (`--workflow-profile profiles/slurm`, `--forcerun compare`), whose messages are
kept in logs/<study>.snakemake.txt. The command can be given again at any time: after Ctrl-C, a kill or a power cut it
continues where it was.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from studykit.errors import UserError, printable
from studykit.report import pages
from studykit.runs import files
from studykit.runs import status as runs_status
from studykit.study.family import StudyPlan, load_plan
from studykit.study.fields import Task
from studykit.study.tiny_values import warnings
from studykit.workflow import clean, names, new_study, progress
from studykit.workflow import run as workflow_run
from studykit.workflow import studies as workflow_studies
from studykit.workflow import tune as workflow_tune
from studykit.workflow.guard import guarded

WATCH = 2.0  # seconds between two tables of `status --watch`


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code: 2 for a mistake of the user's, which one sentence explains."""
    try:
        return studykit.main(argv, prog_name="studykit", standalone_mode=False) or 0
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "studykit"
        print(f"studykit: {printable(error.format_message())} See `{path} --help`.", file=sys.stderr)
        return 2
    except click.Abort:
        return 130


@click.group(
    invoke_without_command=True,
    epilog="Most begin with: studykit run quickstart. A study is named by its file, or by the file's name in params/.",
)
@click.version_option(package_name="studykit", message="%(prog)s %(version)s")
@click.pass_context
def studykit(context: click.Context) -> None:
    """Runs studies of adapters and their fusions, and shows the results.

    \b
    Tab completes names after:
      eval "$(_STUDYKIT_COMPLETE=bash_source studykit)"
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _command(example: str, **settings: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command of its function's name, whose help ends with an example and whose errors are sentences."""

    def add(function: Callable[..., int | None]) -> click.Command:
        name = function.__name__.strip("_").replace("_", "-")
        return studykit.command(name, epilog=f"\b\nExample:\n  studykit {example}", **settings)(guarded(function))

    return add


def _completing(known: Callable[[], list[str]]) -> Callable[..., list[str]]:
    return lambda _context, _parameter, begun: [name for name in known() if name.startswith(begun)]


_complete_study, _complete_run = _completing(names.study_names), _completing(names.run_names)
_study = click.argument("study", shell_complete=_complete_study)
_cores = click.option(
    "--cores", type=click.IntRange(min=1), metavar="N", help="Notebooks at a time (default: the profile's)."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


def _load(study: str, check_paths: bool = True) -> StudyPlan:
    """The plan of a study file, which is named as seen from the project's home, where the command then works."""
    file = names.find_study(study)
    os.chdir(files.home())
    return load_plan(file, check_paths=check_paths)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


@_command("run quickstart --cores 2", context_settings={"ignore_unknown_options": True})
@_study
@_cores
@click.option("--dry-run", "-n", is_flag=True, help="Only list what would run, and why.")
@click.option("--verbose", is_flag=True, help="Show Snakemake's own messages instead.")
@click.argument("snakemake", nargs=-1, type=click.UNPROCESSED)
def run(study: str, cores: int | None, dry_run: bool, verbose: bool, snakemake: tuple[str, ...]) -> int:
    """Runs what is missing or out of date, then the report.

    Options that are not listed here go to Snakemake.
    """
    return workflow_run.run(_load(study), cores, dry_run, verbose, list(snakemake))


@_command("status quickstart --watch")
@_study
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until everything is done.")
@_json
def status(study: str, watch: bool, as_json: bool) -> None:
    """Shows how far a study is, while it runs or after."""
    planned = _load(study).runs
    if as_json:
        _print_json(progress.status_data(planned))
        return
    while True:
        table = progress.status_table(planned)
        if watch:
            click.clear()  # does nothing in a pipe
        print(table, flush=True)
        if not watch or all(status.state == "done" for status in runs_status.study_status(planned).values()):
            return
        time.sleep(WATCH)


@_command("report quickstart --zip")
@_study
@click.option("--zip", "packed", is_flag=True, help="Also pack it into reports/<study>.zip.")
def report(study: str, packed: bool) -> None:
    """Renders the report of what has run."""
    index = pages.write_report(_load(study, check_paths=False))
    print((pages.pack_report(index.parent) if packed else index).relative_to(files.home()))


@_command("open quickstart")
@_study
def open_(study: str) -> None:
    """Opens the report of a study in the browser."""
    name = _load(study, check_paths=False).study.study
    index = files.home() / "reports" / name / "index.html"
    if not index.is_file():
        raise UserError(f"{study} has no report yet; `studykit report {study}` renders one of what has run.")
    print(index.relative_to(files.home()))
    if not webbrowser.open(index.as_uri()):
        raise UserError(f"there is no browser here; open {index} in one.")


@_command("plan quickstart")
@_study
@click.option("--full", is_flag=True, help="Print the study file with every key and its value instead.")
@_json
def plan(study: str, full: bool, as_json: bool) -> None:
    """Lists the runs of a study and their status."""
    planned = _load(study)
    for warning in warnings(planned.study):
        print(f"studykit: {planned.file}: {warning}", file=sys.stderr)
    if full:
        print(planned.dump(), end="")
        return
    statuses = runs_status.study_status(planned.runs)
    if as_json:
        _print_json([progress.run_data(run, status) for run, status in statuses.items()])
        return
    for run, found in statuses.items():
        seconds = f"{found.manifest.seconds:8.1f} s" if found.manifest else " " * 10
        print(f"{found.state:8} {seconds}  {run.name}" + (f"  {found.error}" if found.error else ""))


@_command("new mine --base owner/name --data rows --member go --target ruby")
@click.argument("file")
@click.option("--base", default="scratch", show_default=True, help="A hub id, a directory, or scratch.")
@click.option("--data", metavar="PATH", help="Directory of rows, one file per language (default: built-in rows).")
@click.option("--member", "members", multiple=True, required=True, help="A source language; may be repeated.")
@click.option("--target", required=True, help="The language that has few examples.")
@click.option("--task", type=click.Choice(get_args(Task)), default="generation", show_default=True)
@click.option("--method", "methods", multiple=True, default=("base", "bottleneck", "adapterfusion", "advfusion_zero"),
              show_default=True, help="A method to compare; may be repeated.")  # fmt: skip
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
def new(file: str, data: str | None, **keys: Any) -> None:
    """Writes a new study file.

    FILE lies in params/ if only a name is given."""
    order = ("task", "base", "members", "target", "methods", "seeds")
    values = {key: list(keys[key]) if isinstance(keys[key], tuple) else keys[key] for key in order}
    written = new_study.write_study(file, values | ({"data": {"path": data}} if data else {}))
    print(f"{written}: `studykit plan {written}` lists its runs.")


@_command("tune rivals --cores 2")
@_study
@_cores
@click.option("--verbose", is_flag=True, help="Show Snakemake's own messages instead.")
def tune(study: str, cores: int | None, verbose: bool) -> int:
    """Tries values for every method, writes the best ones.

    They are written as a study file.
    """
    return workflow_tune.tune(_load(study), cores, verbose)


@_command("estimate quickstart --gpu 24GB")
@_study
@click.option("--gpu", metavar="SIZE", help="Such as 24GB (default: what this machine has).")
@_json
def estimate(study: str, gpu: str | None, as_json: bool) -> None:
    """Estimates the memory of a study, and what fits a GPU.

    Only the config of its base is read."""
    say = functools.partial(print, file=sys.stderr, flush=True)
    planned = _load(study)
    say(f"Measuring passes of {planned.study.study} on tensors without content ...")
    from studykit.training import fit  # torch and transformers are slow to import: other commands do without

    if as_json:
        _print_json(fit.as_data(planned.study, gpu, say))
    else:
        print(fit.report(planned.study, gpu, say))


@_command("fetch smollm2_ruby")
@_study
def fetch(study: str) -> None:
    """Puts the hub files of a study below data/, once."""
    from studykit.training import downloads  # torch and transformers: other commands do without

    planned = _load(study, check_paths=False)
    for line in downloads.fetch([member.study for member in planned.members] or [planned.study]):
        print(line, flush=True)


@_command("power quickstart --difference 5")
@_study
@click.option("--from", "run", metavar="RUN", help="A compare run (default: that of the study).")
@click.option("--difference", type=float, metavar="D", help="In the unit of the study's main score.")
def power(study: str, run: str | None, difference: float | None) -> None:
    """Says how many seeds and test rows find a difference."""
    from studykit.evaluation import power  # numpy: other commands do without

    planned = _load(study, check_paths=False)
    contents, compare = planned.study, next(run for run in planned.runs if run.stage == "compare")
    seeds, confidence = len(contents.seeds), compare.params["confidence"]
    place = names.find_run(run, ["compare"]) if run else compare.dir
    print(power.report(place, contents.compared, seeds, confidence, difference))


@_command("rate quickstart --pairs 60")
@_study
@click.argument("answers", nargs=-1, metavar="[FILE]...")
@click.option("--pairs", type=click.IntRange(min=2), default=60, show_default=True)
@click.option("--method", "methods", multiple=True, help="To be compared; may be repeated (default: all).")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another one draws other pairs.")
@click.option("--output", metavar="PAGE", help="The file of the page (default: one below ratings/).")
@click.option("--read", is_flag=True, help="Read the files that raters have saved instead.")
@click.option("--unfinished", is_flag=True, help="Read files that leave pairs without an answer, too.")
def rate(study: str, answers: tuple[str, ...], read: bool, unfinished: bool, **options: Any) -> None:
    """Lets people compare completions, without names.

    Writes a page for raters; with --read, each FILE is what it saved, and notebook 06 shows what people prefer.
    """
    from studykit.report.rating import session  # numpy and matplotlib: other commands do without

    if read != bool(answers):
        raise UserError(f"--read and the files that raters saved go together: `studykit rate {study} --read FILE`.")
    here, planned = Path.cwd(), _load(study, check_paths=False)
    if read:
        lines = session.read_back(planned, [Path(os.path.relpath(here / file)) for file in answers], unfinished)
    else:
        lines = session.write_page(planned, here, **options)
    print("\n".join(lines))


@_command("explore advfusion_zero adapterfusion --out weights.html")
@click.argument("runs", nargs=-1, required=True, shell_complete=_complete_run)
@click.option("--out", default="explorer.html", show_default=True, metavar="FILE")
def explore(runs: tuple[str, ...], out: str) -> None:
    """Writes the explorer of fusion weights as one HTML file.

    RUNS are runs of fusion_attention or fusion, or the beginnings of their names, or records (.npz), shown side by
    side and named by their methods.
    """
    from studykit.report.explorer import explore  # numpy and matplotlib: other commands do without
    from studykit.report.explorer.runs import shown_runs

    found = [names.find_run(run, ["fusion_attention", "fusion"]) for run in runs]
    places = [place if Path(place).exists() else str(files.project_path(place)) for place in found]
    shown = shown_runs(places)
    title = "Fusion weights" if len(places) > 1 else f"Fusion weights, {next(iter(shown.places))}"
    print(explore(shown.places, title=title, looks=shown.looks, training=shown.training).save(Path(out)))


@_command("gather mine mine_large --over base")
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...", shell_complete=_complete_study)
@click.option(
    "--over",
    multiple=True,
    required=True,
    metavar="KEY",
    help="In what the studies are a sample: base, quantization, target, task, target_examples, data.seed, or any "
    "key of a study; may be repeated, the first makes the lines of the forest plot.",
)
@click.option(
    "--covariate",
    metavar="NAME",
    help="Take the slope on parameters, target_rows, tokens (or another similarity of sources and target) or a KEY.",
)
@_cores
def gather(studies: tuple[str, ...], over: tuple[str, ...], covariate: str | None, cores: int | None) -> int:
    """Runs several studies and pools their differences."""
    found = [names.find_study(study) for study in studies]
    os.chdir(files.home())
    file = workflow_studies.gathering(found, list(over), covariate)
    return workflow_run.run(load_plan(file), cores, False, False, [])


@_command("studies")
def studies() -> None:
    """Lists the studies in params/ and what they ask."""
    os.chdir(files.home())
    print(workflow_studies.listing())


@_command("clean --yes")
@click.argument("runs", nargs=-1, shell_complete=_complete_run)
@click.option("--yes", is_flag=True, help="Remove them.")
def clean_(runs: tuple[str, ...], yes: bool) -> None:
    """Lists the runs that no study needs, with their sizes.

    With RUNS, or the beginnings of their names, it is about these only; a run made by hand is removed only if named.
    """
    os.chdir(files.home())
    named = [names.find_run(run) for run in runs]
    print(clean.remove_leftovers(named) if yes else clean.list_leftovers(named))


@_command("check-references data/humaneval-x --language go")
@click.argument("path")
@click.option("--language", multiple=True, help="Only this one; may be repeated.")
@click.option("--allow-unsandboxed", is_flag=True, help="Also where nothing isolates the programs.")
def check_references(path: str, language: tuple[str, ...], allow_unsandboxed: bool) -> None:
    """Runs a benchmark's references against their own tests.

    PATH is a data run, a .jsonl file of rows, or a folder or file of HumanEval-X.
    """
    from studykit.evaluation import references  # execution and metrics: other commands do without

    rows = references.read_references(path, language)
    print(references.format_references(references.verify_references(rows, allow_unsandboxed=allow_unsandboxed)))


@_command("doctor")
def doctor() -> None:
    """Tries the runtimes, sandbox and GPU libraries here."""
    from studykit.evaluation.execution import doctor

    print(doctor.report())


if __name__ == "__main__":
    sys.exit(main())

"""The study files of a project, wherever they lie, and the runs that they need."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from studykit.errors import UserError
from studykit.runs import files as run_files
from studykit.runs.manifest import read_manifest
from studykit.runs.text import format_duration
from studykit.study import family


def remember(file: str | Path) -> None:
    """Remembers a study file that is run, wherever it lies, so that its runs do not count as left over.

    Only the one command of a project may call it, while it holds the project's lock.
    """
    at = (run_files.home() / file).resolve()
    if at not in _here() and at not in remembered():
        write_list([*remembered(), at])


def remembered() -> list[Path]:
    """Returns the study files outside of params/ that were run, including those that no longer exist."""
    return [Path(file) for file in run_files.read_json(_list())] if _list().is_file() else []


def needed() -> set[str]:
    """Returns the runs of all study files by name; those of a remembered file that is gone are no longer needed.

    Raises UserError for a file that cannot be read, and where there is none at all: what is needed is then not known,
    so nothing counts as left over.
    """
    files = [
        *(file.relative_to(run_files.home()) for file in _here()),
        *(file for file in remembered() if file.is_file()),
    ]
    if not files:
        raise UserError(
            "params/ holds no study file, and no study elsewhere has been run, so all of runs/ would count as left "
            "over; put the study files that you keep into params/."
        )
    return {run.name for file in files for run in family.load_plan(file, run_files.home(), check_paths=False).runs}


def gathering(files: Sequence[str], over: Sequence[str], covariate: str | None) -> str:
    """Writes the family of the studies in these files below runs/, and returns its path from the project's home."""
    text = family.combine(files, over, covariate, run_files.home())
    name = text.partition("\n")[0].removeprefix("study: ")
    file = run_files.home() / "runs" / ".families" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(file.relative_to(run_files.home()))


def keep_wall_time(file: str, made: int, seconds: float) -> None:
    """Keeps how long a command took that finished a study file and made some of its runs; the last such time stays.

    Only the one command of a project may call it, while it holds the project's lock.
    """
    write = {**_wall_times(), file: {"made": made, "seconds": seconds}}
    run_files.write_json(run_files.home() / "runs" / ".wall_times", write)


def _wall_times() -> dict[str, dict[str, float]]:
    file = run_files.home() / "runs" / ".wall_times"
    return run_files.read_json(file) if file.is_file() else {}


def listing() -> str:
    """Returns the studies in params/: what each asks, how many of its runs are done, and how long they took."""
    lines = []
    wall_times = _wall_times()
    for file in _here():
        planned = family.load_plan(file.relative_to(run_files.home()), run_files.home(), check_paths=False)
        manifests = [found for run in planned.runs if (found := read_manifest(run_files.home() / run.dir))]
        took = f", which took {format_duration(sum(m.seconds for m in manifests))} of computing" if manifests else ""
        many = f"{len(planned.members)} studies, " if planned.members else ""
        question = textwrap.fill(planned.study.question or "-", 80, initial_indent="    ", subsequent_indent="    ")
        lines.append(f"{planned.file}\n{question}\n    {many}{len(manifests)} of {len(planned.runs)} runs done{took}")
        if last := wall_times.get(planned.file):
            took = format_duration(last["seconds"], rounded=True)
            lines.append(f"    the last command that finished it made {last['made']:.0f} runs in {took}")
    return "\n".join(lines) or "params/ holds no study file."


def _here() -> list[Path]:
    return sorted((run_files.home() / "params").glob("**/*.y*ml"))


def _list() -> Path:
    return run_files.home() / "runs" / ".studies"


def write_list(files: list[Path]) -> None:
    """Returns a line per file, in JSON, since a name may hold any character."""
    run_files.write_json(_list(), [str(file) for file in files])

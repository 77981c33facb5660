"""The study files of a project, wherever they lie, and the runs that they need."""

from __future__ import annotations

from pathlib import Path

from studykit.errors import UserError
from studykit.runs import files as run_files
from studykit.study import plan
from studykit.study.file import load_study


def remember(file: str | Path) -> None:
    """Keep in mind a study file that is run, wherever it lies: what it needs is not left over. For the one engine of a
    project, while it holds its lock."""
    at = (run_files.home() / file).resolve()
    if at not in _here() and at not in remembered():
        write_list([*remembered(), at])


def remembered() -> list[Path]:
    """Study files elsewhere than in params/ that were run, also those that are gone by now."""
    return [Path(file) for file in run_files.read_json(_list())] if _list().is_file() else []


def needed() -> set[str]:
    """The runs of all study files by name; those of a remembered file that is gone are needed no more.

    Raises UserError for a file that cannot be read, and where there is none at all: what is needed is then not known,
    so nothing counts as left over.
    """
    files = [
        *(file.relative_to(run_files.home()) for file in _here()),
        *(file for file in remembered() if file.is_file()),
    ]
    if not files:
        raise UserError(
            "params/ holds no study file, and none elsewhere was run, so all of runs/ would count as left "
            "over; put the study files that you keep into params/."
        )
    studies = [load_study(file, run_files.home(), check_paths=False) for file in files]
    return {run.name for study in studies for run in plan.plan(study)}


def _here() -> list[Path]:
    return sorted((run_files.home() / "params").glob("*.y*ml"))


def _list() -> Path:
    return run_files.home() / "runs" / ".studies"


def write_list(files: list[Path]) -> None:
    """A line per file, in JSON: a name may hold anything."""
    run_files.write_json(_list(), [str(file) for file in files])

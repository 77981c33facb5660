"""Names that a user types for study files and runs: short, and close where they are mistaken."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from studykit.errors import UserError, show
from studykit.runs import files
from studykit.study.parameters import STAGES


def study_files() -> dict[str, str]:
    """Returns the study files in params/ and below by their names without an ending, as seen from the project."""
    params = files.home() / "params"
    here = (file.relative_to(params) for file in sorted(params.glob("**/*.y*ml")))
    return {file.with_suffix("").as_posix(): f"params/{file.as_posix()}" for file in here}


def study_names() -> list[str]:
    """Returns what may name a study file in params/: short names and paths."""
    known = study_files()
    return [*known, *known.values()]


def run_names(stages: Collection[str] = tuple(STAGES)) -> list[str]:
    """Returns the names of the runs of some stages that have been published, `label-key`."""
    return sorted(place.name for stage in stages for place in (files.home() / "runs" / stage).glob("*"))


def find_study(name: str) -> str:
    """Returns a study file as seen from the project's directory: `params/x.yaml`, a path from here, or only `x`.

    Raises UserError for a name that is close to that of a study file; any other name is returned as it is.
    """
    file, home = Path(name), files.home()
    if file.is_file():
        file = file.resolve()
        return str(file.relative_to(home)) if file.is_relative_to(home) else str(file)
    known = study_files()
    word = file.with_suffix("").as_posix().removeprefix("params/")
    if file.suffix in ("", *(Path(path).suffix for path in known.values())) and word in known:
        return known[word]
    if close := get_close_matches(word, known, 1):
        raise UserError(f"{name} is no study file; did you mean {known[close[0]]}?")
    return name


def find_run(name: str, stages: Collection[str] = tuple(STAGES)) -> str:
    """Returns the run whose name alone begins like this: `runs/stage/label-key`, `stage/label-key` or `label-key`.

    A path that exists, and a name with which no run begins, are returned as they are. Raises UserError where several
    runs begin with a name that is none of a whole label, and for a name that is close to a run's.
    """
    if Path(name).exists() or (files.home() / name).exists():
        return name
    home = files.home()
    stage, _, label = name.strip("/").removeprefix("runs/").rpartition("/")
    names = sorted(
        f"runs/{of}/{place.name}"
        for of in stages
        if stage in ("", of)
        for root in ("runs", "runs/.staging")
        for place in (home / root / of).glob("*")
        if place.is_dir() and place.name.startswith(label)
    )
    whole = [run for run in names if run.rpartition("/")[2].rpartition("-")[0] == label]
    found = list(dict.fromkeys(whole or names)) if label else []
    if len(found) > 1:
        several = ", ".join(run.removeprefix("runs/") for run in found[:6])
        more = ", ..." * (len(found) > 6)
        raise UserError(f"{show(name)} begins the names of {len(found)} runs; type more of one: {several}{more}.")
    labels = {name.rpartition("-")[0]: name for name in run_names(stages)}
    if not found and (close := get_close_matches(label, labels, 1)):
        raise UserError(f"no run's name begins with {show(label)}; did you mean {labels[close[0]]}?")
    return found[0] if found else name

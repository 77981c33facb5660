"""What lies in runs/ and logs/ that no study needs: found, listed with sizes, removed when asked.

Needed is every run that a plan of any study file names, with what is staged for it: that is what a killed run goes on
from. Study files are those in params/ and those elsewhere that were run (see `remember`). A run that is being written
is never touched, nor what it stands on, and nothing is removed while a study runs.

What is removed is first moved to the trash, each directory in one step, so that an interrupted removal leaves no run
that is half there; the next one empties the trash.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from studykit.runs import files as run_files
from studykit.runs import locks, store
from studykit.runs.text import format_bytes, plural
from studykit.study.parameters import STAGES
from studykit.workflow.studies import needed, remembered, write_list

LOCK = 4096  # bytes: a finished run's staging directory holds its lock file and nothing else


@dataclass(frozen=True)
class Leftover:
    """A run that nothing needs; or only what was staged for a run, when that is needed no more."""

    name: str  # stage/label-key
    paths: tuple[Path, ...]  # its directory, its logs, its staging directory
    size: int  # bytes
    writer: str | None  # who is writing it now


def leftovers() -> list[Leftover]:
    """Everything that can go, the largest first."""
    home, found = run_files.home(), []
    names = {f"{stage}/{at.name}" for stage in STAGES for root in ("runs", "runs/.staging")
             for at in (home / root / stage).glob("*") if at.is_dir()}  # fmt: skip
    writers = {name: locks.holder(_staged(name) / "lock") for name in names}
    keep = needed() | _inputs(name for name in names if writers[name])
    for name in sorted(names):
        paths = [_staged(name)]
        if name not in keep:
            logs = home / "logs" / name
            logs = [logs.with_name(f"{logs.name}.{kind}") for kind in ("ipynb", "txt")]
            paths = [home / "runs" / name, *logs, *paths]
        elif not (home / "runs" / name / "manifest.json").is_file():
            continue  # a killed run goes on from what is staged
        paths = [path for path in paths if path.exists()]
        size = sum(_size(path) for path in paths)
        if paths and (name not in keep or size > LOCK):
            found.append(Leftover(name, tuple(paths), size, writers[name]))
    return sorted(found, key=lambda one: -one.size)


def listing() -> str:
    """A line per leftover and their sum."""
    found, lines = leftovers(), _said_of_gone()
    if _trash().exists():
        lines.append(f"{format_bytes(_size(_trash())):>9}  left in the trash by a removal that was interrupted")
    if not found and not lines:
        return "Nothing is left over: every run is needed by a study."
    total = format_bytes(sum(one.size for one in found if not one.writer))
    count = plural(len(found), "run")
    return "\n".join([*map(_line, found), *lines,
                      f"{total} in {count} that no study needs; `studykit clean --yes` removes them."])  # fmt: skip


def remove() -> str:
    """Remove all leftovers that nobody writes; says which."""
    from studykit.workflow import lock as workflow_lock  # which in its turn remembers studies here

    with workflow_lock.only_engine():
        lines, freed = [], 0
        for one in leftovers():
            writer = one.writer or _discard(one)
            lines.append(_line(replace(one, writer=writer)))
            freed += 0 if writer else one.size
        if gone := _said_of_gone():
            write_list([file for file in remembered() if file.is_file()])
        if _trash().exists():
            shutil.rmtree(_trash())
        return "\n".join([*lines, *gone, f"{format_bytes(freed)} removed."])


def _discard(one: Leftover) -> str | None:
    """Move a leftover to the trash, holding its lock; what lies in its staging directory goes last, the lock with it.
    Who writes it, if somebody has begun to: then nothing is moved."""
    staged = _staged(one.name)
    staged.mkdir(parents=True, exist_ok=True)
    with open(staged / "lock", "ab+") as lock:
        if not locks.take(lock):
            return locks.holder(staged / "lock") or "a process"
        _trash().mkdir(exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=_trash()))
        for path in dict.fromkeys((*one.paths, staged)):
            if path.is_dir():
                os.rename(path, place / ("staged" if path == staged else "run"))
            else:
                path.unlink()
    return None


def _inputs(names: Iterable[str]) -> set[str]:
    """The runs that these stand on, at any depth: what a manifest names, or an attempt that is under way."""
    todo, found = list(names), set()
    while todo:
        name = todo.pop()
        for file in (run_files.home() / "runs" / name / "manifest.json", _staged(name) / "attempt.json"):
            if file.is_file():
                made = run_files.read_json(file)
                named = (*made.get("inputs", ()), *store.run_dirs(made.get("params", {})))
                inputs = {directory.removeprefix("runs/") for directory in named} - found
                todo += inputs
                found |= inputs
    return found


def _trash() -> Path:
    return run_files.home() / "runs" / ".staging" / ".trash"


def _staged(name: str) -> Path:
    return run_files.home() / "runs" / ".staging" / name


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _said_of_gone() -> list[str]:
    gone = [file for file in remembered() if not file.is_file()]
    return [f"{file} is gone, a study that was run: what it alone needed is left over." for file in gone]


def _line(one: Leftover) -> str:
    writer = f"  kept: it is being written by {one.writer}" if one.writer else ""
    return f"{format_bytes(one.size):>9}  {one.name}{writer}"

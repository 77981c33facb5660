"""Directories in runs/ and logs/ that no study needs: found, listed with sizes, removed on request.

A study needs every run that its plan names, together with what is staged for it: a killed run goes on from there. The
studies are the files in params/ and those elsewhere that were run (see `studies`). A run that is being written is never
touched, nor are the runs that it reads, and nothing is removed while a study runs. A run that was made by hand, in
JupyterLab or with papermill, is listed but removed only when it is named.

The manifest goes first, so an interrupted removal leaves no run that seems finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studykit.errors import UserError
from studykit.runs import files as run_files
from studykit.runs import locks, store
from studykit.runs.manifest import MANIFEST, read_attempt, read_manifest
from studykit.runs.text import format_bytes, plural
from studykit.study.parameters import STAGES
from studykit.workflow.lock import only_command
from studykit.workflow.studies import needed, remembered, write_list

LOCK_SIZE = 4096  # bytes; the staging directory of a finished run holds its lock file and nothing else


@dataclass(frozen=True)
class Leftover:
    """A run that no study needs; or only what was staged for a run and is no longer needed."""

    name: str  # stage/label-key
    paths: tuple[Path, ...]  # its directory, its logs, its staging directory
    size: int  # bytes
    kept: str  # why it stays, in a few words; "" if it can go


def leftovers(named: Sequence[str] = ()) -> list[Leftover]:
    """Returns everything that no study needs, the largest first; with `named`, only these runs.

    Raises UserError for a named run that does not exist or that a study needs.
    """
    home = run_files.home()
    names = {
        f"{stage}/{place.name}"
        for stage in STAGES
        for root in ("runs", "runs/.staging")
        for place in (home / root / stage).glob("*")
        if place.is_dir()
    }
    wanted = [name.strip("/").removeprefix("runs/") for name in named]
    writers = {name: locks.holder(run_files.staging_dir(name) / "lock") for name in names}
    by_hand = {name for name in names if _is_by_hand(name)} - set(wanted)
    keep = needed() | _inputs({name for name in names if writers[name]} | by_hand)
    for name in wanted:
        if name not in names:
            raise UserError(f"{name} is not in runs/; name a run as `studykit clean` lists it.")
        if name in keep:
            raise UserError(f"{name} is needed by a study or by another run; it is not removed.")
    found = []
    for name in sorted(set(wanted) or names):
        paths = [run_files.staging_dir(name)]
        if name not in keep:
            logs = [home / "logs" / f"{name}.{ending}" for ending in ("ipynb", "txt")]
            paths = [home / "runs" / name, *logs, *paths]
        elif not (home / "runs" / name / MANIFEST).is_file():
            continue  # a killed run goes on from what is staged
        paths = [path for path in paths if path.exists()]
        size = sum(_size(path) for path in paths)
        kept = f"it is being written by {writers[name]}" if writers[name] else ""
        if not kept and name in by_hand:
            kept = f"it was made by hand; `studykit clean {name} --yes` removes it"
        if paths and (name not in keep or size > LOCK_SIZE):
            found.append(Leftover(name, tuple(paths), size, kept))
    return sorted(found, key=lambda leftover: -leftover.size)


def list_leftovers(named: Sequence[str] = ()) -> str:
    """Returns a line for each leftover, and their sum."""
    found, notes = leftovers(named), _notes_on_lost_studies()
    if not found and not notes:
        return "Nothing is left over: every run is needed by a study."
    removable = [leftover for leftover in found if not leftover.kept]
    total = format_bytes(sum(leftover.size for leftover in removable))
    command = " ".join(["studykit clean", *named, "--yes"])
    last = f"{total} in {plural(len(removable), 'run')} that no study needs; `{command}` removes them."
    return "\n".join([*map(_line, found), *notes, last])


def remove_leftovers(named: Sequence[str] = ()) -> str:
    """Removes all leftovers that may go; returns a line for each and the bytes that became free."""
    with only_command():
        lines, freed = [], 0
        for leftover in leftovers(named):
            kept = leftover.kept or _remove(leftover)
            lines.append(_line(replace(leftover, kept=kept)))
            freed += 0 if kept else leftover.size
        if notes := _notes_on_lost_studies():
            write_list([file for file in remembered() if file.is_file()])
        return "\n".join([*lines, *notes, f"{format_bytes(freed)} removed."])


def _remove(leftover: Leftover) -> str:
    """Removes a leftover while holding its lock; returns why it stays if somebody has begun to write it."""
    staging = run_files.staging_dir(leftover.name)
    lock = locks.acquire(staging / "lock", "studykit clean")
    if lock is None:
        return f"it is being written by {locks.holder(staging / 'lock') or locks.UNNAMED}"
    try:
        for path in dict.fromkeys((*leftover.paths, staging)):  # the lock goes last
            if path.is_dir():
                for name in (store.COPY, MANIFEST):
                    (path / name).unlink(missing_ok=True)
                shutil.rmtree(path)
            else:
                path.unlink()
    finally:
        lock.release()
    return ""


def _is_by_hand(name: str) -> bool:
    record = read_manifest(run_files.home() / "runs" / name) or read_attempt(run_files.staging_dir(name))
    return record is not None and record.by_hand


def _inputs(names: Iterable[str]) -> set[str]:
    """The runs that these read, at any depth: those that a manifest names, or an attempt that is under way."""
    waiting = list(names)
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        for record in (read_manifest(run_files.home() / "runs" / name), read_attempt(run_files.staging_dir(name))):
            if record is not None:
                inputs = {
                    directory.removeprefix("runs/") for directory in (*record.inputs, *store.run_dirs(record.params))
                }
                waiting += inputs - found
                found |= inputs
    return found


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _notes_on_lost_studies() -> list[str]:
    lost = [file for file in remembered() if not file.is_file()]
    return [f"{file}, a study that was run, is gone: the runs that only it needed are left over." for file in lost]


def _line(leftover: Leftover) -> str:
    return f"{format_bytes(leftover.size):>9}  {leftover.name}" + (f"  kept: {leftover.kept}" if leftover.kept else "")

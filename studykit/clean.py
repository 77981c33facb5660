"""What lies in runs/ and logs/ that no study in params/ needs: found, listed with sizes, removed when asked.

Needed is every run that a plan of any study file names, with what is staged for it: that is what a killed run goes on
from. A run that is being written is never touched, and nothing is removed while a study runs.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from studykit import driver, plan, runs
from studykit.params import STAGES
from studykit.study import load_study


@dataclass(frozen=True)
class Leftover:
    """A run that nothing needs; or only what was staged for a run, when that is needed no more."""

    name: str  # stage/label-key
    paths: tuple[Path, ...]  # its directory, its staging directory, its logs
    size: int  # bytes
    writer: str | None  # who is writing it now


def needed() -> set[str]:
    """The runs of all studies in params/, by name. UserError for a study file that cannot be read: what it needs is
    not known, so nothing counts as left over."""
    files = sorted((runs.home() / "params").glob("*.y*ml"))
    studies = [load_study(file.relative_to(runs.home()), runs.home(), check_paths=False) for file in files]
    return {run.name for study in studies for run in plan.plan(study)}


def leftovers() -> list[Leftover]:
    """Everything that can go, the largest first."""
    home, keep, found = runs.home(), needed(), []
    names = {f"{stage}/{at.name}" for stage in STAGES for root in ("runs", "runs/.staging")
             for at in (home / root / stage).glob("*") if at.is_dir()}  # fmt: skip
    for name in sorted(names):
        staged = home / "runs" / ".staging" / name
        paths = [staged] if staged.is_dir() else []
        if name not in keep:
            logs = home / "logs" / name
            paths += [home / "runs" / name, *(logs.with_name(f"{logs.name}.{kind}") for kind in ("ipynb", "txt"))]
        elif not (home / "runs" / name / "manifest.json").is_file():
            continue  # a killed run goes on from what is staged
        paths = [path for path in paths if path.exists()]
        size = sum(_size(path) for path in paths)
        if paths and (name not in keep or size > LOCK):
            found.append(Leftover(name, tuple(paths), size, runs.holder(staged / "lock")))
    return sorted(found, key=lambda one: -one.size)


LOCK = 4096  # bytes: a finished run's staging directory holds its lock file and nothing else


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def listing() -> str:
    """A line per leftover and their sum."""
    found = leftovers()
    if not found:
        return "Nothing is left over: every run is needed by a study in params/."
    lines = [_line(one) for one in found]
    total = shown(sum(one.size for one in found if not one.writer))
    count = f"{len(found)} run{'s' * (len(found) != 1)}"
    lines.append(f"{total} in {count} that no study in params/ needs; `studykit clean --yes` removes them.")
    return "\n".join(lines)


def remove() -> str:
    """Remove all leftovers that nobody writes; says which."""
    with driver.only_engine():
        lines, gone = [], 0
        for one in leftovers():
            lines.append(_line(one))
            if one.writer:
                continue
            for path in one.paths:
                if path.is_dir():
                    # The manifest goes first: a directory without one does not count, however far this comes.
                    (path / "manifest.json").unlink(missing_ok=True)
                    shutil.rmtree(path)
                else:
                    path.unlink()
            gone += one.size
        return "\n".join([*lines, f"{shown(gone)} removed."])


def _line(one: Leftover) -> str:
    writer = f"  kept: it is being written by {one.writer}" if one.writer else ""
    return f"{shown(one.size):>9}  {one.name}{writer}"


def shown(size: float) -> str:
    """Bytes in a unit that a person reads."""
    if size < 1000:
        return f"{size:.0f} B"
    unit, of = next((u, of) for u, of in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)) if size < 1000 * of or u == "GB")
    return f"{size / of:.1f} {unit}"

"""What a finished run and a run at work record of themselves: manifests, attempts, and the check of published files.

    run = finished_run("runs/adapter/lua-bottleneck-s0-0123456789")
    run.params["steps"], run.manifest.seconds
    run.verify("adapter")                       # the weights are those that were published

A manifest lists every published file with its size and SHA-256. Names and sizes are compared whenever a run is loaded
or its status is asked; digests when weights or predictions are loaded (`verify`), since reading them takes time. A run
that differs is damaged: it counts as not done and is run again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from studykit.errors import UserError
from studykit.runs.files import project_path, sha256

MANIFEST = "manifest.json"
DAMAGE_NOTE = ".damaged"  # file of a run whose content was found to differ from what it published; holds the sentence


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputRecord(_Record):
    """A run that was read, as the reading run found it."""

    key: str  # hash of the parameters, the end of the directory's name
    sha256: str | None  # of its manifest; None if it had none


class PublishedFile(_Record):
    """One file of a finished run."""

    size: int  # bytes
    sha256: str


class Commit(_Record):
    """The state of the project's repository."""

    id: str
    dirty: bool  # whether code, notebooks or studies differed from the commit


class Basis(_Record):
    """What decides the results of a run."""

    params: dict[str, Any]  # validated, as the run was given them
    code: str  # digest of the notebook's cells and of the library files behind them
    files: str  # digest of the user's own files that were read; "" if there were none
    inputs: dict[str, InputRecord]  # by run directory


class Attempt(Basis):
    """A run that has begun: `attempt.json` beside its checkpoints."""

    attempt: int  # 1, 2, ...: one more each time that it goes on after a stop
    seconds: float  # of this attempt and those that it goes on from
    peak_memory_mb: float
    by_hand: bool = False  # made in JupyterLab or with papermill, not by `studykit run`


class Manifest(Attempt):
    """A finished run: `manifest.json` in its directory, written last."""

    stage: str
    headline: dict[str, Any]  # numbers for the index of a study
    about: dict[str, Any] = {}  # what a notebook adds
    published: dict[str, PublishedFile]  # by path below the run directory
    commit: Commit | None  # None outside of git
    versions: dict[str, str]  # by package
    started: str  # ISO 8601, in UTC
    host: str
    device: str  # the GPU's name, or cpu
    threads: int


@dataclass(frozen=True)
class FinishedRun:
    """A finished run whose files have the names and sizes that its manifest records."""

    name: str  # as parameters name it: runs/<stage>/<label>-<key>
    dir: Path  # absolute
    manifest: Manifest

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def params(self) -> dict[str, Any]:
        return self.manifest.params

    @property
    def inputs(self) -> list[str]:
        """Returns the directories of the runs that it read."""
        return list(self.manifest.inputs)

    def path(self, *parts: str) -> Path:
        return self.dir.joinpath(*parts)

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def verify(self, *parts: str) -> None:
        """Compares the content of a published file, or of all files below a directory, with what was published.

        Raises UserError for a file that differs. The run then carries a note by which it counts as damaged.
        """
        below = "/".join(parts)
        for name, file in self.manifest.published.items():
            if below in ("", name) or name.startswith(f"{below}/"):
                if sha256(self.dir / name) != file.sha256:
                    sentence = f"{name} is not as it was published"
                    self.path(DAMAGE_NOTE).write_text(sentence, encoding="utf-8")
                    raise damaged(self.name, sentence)


def finished_run(directory: str | Path) -> FinishedRun:
    """Loads the manifest of a finished run and checks names and sizes of its files.

    Raises UserError if the run is not finished, or is damaged.
    """
    place = project_path(directory)
    if problem := damage(place):
        raise damaged(str(directory), problem)
    manifest = read_manifest(place)
    if manifest is None:
        raise UserError(
            f"{directory} is not a finished run (it has no {MANIFEST}); run its notebook or `studykit run` first."
        )
    return FinishedRun(str(directory), place, manifest)


def damaged(name: str, problem: str) -> UserError:
    """Returns the error of whoever needs a damaged run."""
    return UserError(f"{name} is damaged ({problem}); run its notebook or `studykit run` again.")


def read_manifest(place: Path, name: str = MANIFEST) -> Manifest | None:
    """Returns the manifest of a run directory; None if there is none that can be read."""
    record = _read_record(place / name, Manifest)
    return record if isinstance(record, Manifest) else None


def read_attempt(staging: Path) -> Attempt | None:
    """Returns the attempt noted in a run's staging directory; None if there is none that can be read."""
    record = _read_record(staging / "attempt.json", Attempt)
    return record if isinstance(record, Attempt) else None


def _read_record(file: Path, model: type[Attempt]) -> Attempt | str | None:
    """A record; None if there is none, or a sentence if it cannot be read."""
    try:
        about = file.stat()
        return _parse(file, model, (about.st_mtime_ns, about.st_size, about.st_ino))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{file.name} cannot be read: {error.strerror}"


@lru_cache(maxsize=4096)
def _parse(file: Path, model: type[Attempt], stamp: tuple[int, int, int]) -> Attempt | str:
    """Reads a record once for each state of its file, which `stamp` identifies."""
    try:
        return model.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = "missing" if first["type"] == "missing" else "wrong"
        return f"{file.name} is damaged: {where or 'its content'} is {problem}"
    except (ValueError, RecursionError):
        return f"{file.name} is damaged: it is not JSON"


def damage(place: Path, name: str = MANIFEST) -> str:
    """Returns a sentence about a manifest that cannot be read, or a published file that is missing or has another size.

    A run without damage, or without a manifest, has the sentence "".
    """
    manifest = _read_record(place / name, Manifest)
    if not isinstance(manifest, Manifest):
        return manifest if isinstance(manifest, str) else ""
    try:
        return place.joinpath(DAMAGE_NOTE).read_text(encoding="utf-8", errors="replace")[:400] or "a file has changed"
    except OSError:
        pass
    for path, file in manifest.published.items():
        try:
            size = (place / path).stat().st_size
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return f"{path} is missing"
        if size != file.size:
            return f"{path} has {size:,} bytes, not {file.size:,}"
    return ""

"""Run directories: one writer at a time, published whole, with a manifest written last.

    with runs.open_run(p.out, stage="adapter", params=p) as run:
        if not run.done:
            ...                                     # resume from run.checkpoints, write to run.path("adapter")
            run.publish(headline={"loss": 1.2})
    run.dir                                         # now holds the finished artefacts

A directory without `manifest.json` does not count. The engine removes that file to have a notebook executed again; if
nothing that decides the results has changed, they are taken up as they are and only shown anew (see `_restored`).

What is being written lives in `runs/.staging/<stage>/<run>/`: `publish/` becomes the directory in one rename,
`checkpoints/` outlives a kill, `attempt.json` says what decided them, `lock` is held (flock) by the writer and let go
by the system when the writer dies, however it dies.

A manifest's `seconds` are those of all attempts that went on from each other. A killed one counts until the newest file
among its checkpoints: nobody was there to note what it took after that.

Under the workflow engine a notebook must not outlive the engine, or a resumed engine would meet a second writer: a
watchdog ends the notebook within about a second of the engine's death (see `engine`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studykit.errors import UserError, show
from studykit.runs import code_digest, process, provenance
from studykit.runs.files import files_below, fsync, home, project_path, sha256, write_json
from studykit.runs.locks import locked
from studykit.study.parameters import STAGES

KEPT = ".manifest.json"  # a copy that the engine does not know of
LARGE = 64 * 2**20  # bytes from which a file is not read only to know whether it has changed


@dataclass
class OpenRun:
    """A run directory in use; made by `open_run`."""

    dir: Path  # the final directory
    stage: str
    params: dict[str, Any]
    staging: Path
    done: bool
    attempt: int = 1
    before: dict[str, float] = field(default_factory=lambda: {"seconds": 0.0, "peak_memory_mb": 0})  # earlier attempts

    def __post_init__(self) -> None:
        self._began, self._started = time.monotonic(), datetime.now(UTC)
        # Now, not when it is published: code and inputs may change meanwhile.
        self.decided = {"params": json.loads(json.dumps(self.params)), **basis(self.stage, self.params),
                        "inputs": {i: _input(i) for i in run_dirs(self.params)}}  # fmt: skip

    def cost(self) -> dict[str, float]:
        """Seconds and memory until now, of this attempt and those that it goes on from."""
        seconds = round(self.before["seconds"] + time.monotonic() - self._began, 2)
        return {"seconds": seconds, "peak_memory_mb": max(self.before["peak_memory_mb"], provenance.peak_memory_mb())}

    @property
    def checkpoints(self) -> Path:
        """A directory that outlives a kill and is gone once the run is published."""
        (self.staging / "checkpoints").mkdir(parents=True, exist_ok=True)
        return self.staging / "checkpoints"

    def path(self, *parts: str) -> Path:
        """A path inside the directory-to-be (or the finished one), its parents made."""
        at = (self.dir if self.done else self.staging / "publish").joinpath(*parts)
        at.parent.mkdir(parents=True, exist_ok=True)
        return at

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def publish(
        self, headline: dict[str, Any] | None = None, inputs: Iterable[str | Path] | None = None, **about: Any
    ) -> None:
        """Write the manifest and put the directory in its place. `headline`: numbers for the study's index.
        `inputs`: run directories that were read (default: those that the parameters name). `about`: what else the
        manifest is to say."""
        if self.done:
            raise UserError(f"{self.dir} is finished and is never overwritten; ask run.done before run.publish.")
        known, publish = self.decided["inputs"], self.staging / "publish"
        publish.mkdir(parents=True, exist_ok=True)
        made = {
            "stage": self.stage,
            **self.decided,
            "headline": dict(headline or {}),
            **about,
            "inputs": {i: known.get(i) or _input(i) for i in (known if inputs is None else map(str, inputs))},
            "published": {str(f.relative_to(publish)): f.stat().st_size for f in files_below(publish)},
            "commit": provenance.commit(home()),
            "versions": provenance.versions(),
            "started": self._started.isoformat(timespec="seconds"),
            **self.cost(),
            "attempt": self.attempt,
            "host": socket.gethostname(),
            "device": provenance.device(),
            "threads": provenance.threads(),
        }
        for name in (KEPT, "manifest.json"):
            write_json(publish / name, made)
        for path in (publish, *publish.rglob("*")):
            fsync(path)
        old = self.staging / "old"
        shutil.rmtree(old, ignore_errors=True)
        self.dir.parent.mkdir(parents=True, exist_ok=True)
        if self.dir.exists():  # unfinished, or emptied by the engine
            os.rename(self.dir, old)
        os.rename(publish, self.dir)
        fsync(self.dir.parent)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.staging / "checkpoints", ignore_errors=True)
        (self.staging / "attempt.json").unlink(missing_ok=True)
        self.done = True


@contextmanager
def open_run(out: str | Path, *, stage: str, params: Any, wait: float = 15.0) -> Iterator[OpenRun]:
    """The run directory `out`, locked for writing unless it is finished already.

    Waits up to `wait` seconds for another writer, then raises UserError with its process and host. Also raises it when
    `out` holds a finished run with other parameters.
    """
    values = params if isinstance(params, dict) else params.model_dump()
    final = project_path(out)
    staging = home() / "runs" / ".staging" / stage / final.name
    run = OpenRun(final, stage, values, staging, done=False)
    name = f"{stage}/{final.name}"
    if _finished(run):
        yield run
        return
    process.watch()
    with locked(staging, name, wait):
        if not _finished(run) and not _restored(run):
            shutil.rmtree(staging / "publish", ignore_errors=True)
            _attempt(run, name)
            print(f"{name}: {'starts' if run.attempt == 1 else f'goes on, attempt {run.attempt}'}.", flush=True)
        try:
            yield run
        finally:
            if not run.done:
                _note(run)
        if run.done and run.attempt:
            print(f"{name}: published after {time.monotonic() - run._began:.1f} s.", flush=True)


def _finished(run: OpenRun) -> bool:
    if not (run.dir / "manifest.json").is_file():
        return False
    found = manifest(run.dir)
    want = run.decided["params"]
    for key in want.keys() - {"out"}:
        if key in found["params"] and found["params"][key] != want[key]:
            raise UserError(f"{run.dir} holds a finished run whose {key} is {show(found['params'][key])}, not "
                            f"{show(want[key])}; leave `out` at None to get a directory of its own.")
    run.done, run.attempt = True, 0
    print(f"{run.stage}/{run.dir.name}: finished on {found['started'][:10]} in {found['seconds']} s; shown as it is.")
    if any(found.get(k) != run.decided[k] for k in ("code", "files")):
        print("Its code or its data files have changed since: `studykit run` makes it again.")
    return True


def _changed(run: OpenRun, made: dict[str, Any]) -> list[str]:
    """What decides a run's results and is not as a manifest or an attempt has it: its parameters, its code, the user's
    files, the inputs by their manifests."""
    now = run.decided | {"inputs": {i: _input(i) for i in made.get("inputs", {})}}
    words = {"params": "its parameters", "code": "its code", "files": "its data files", "inputs": "its inputs"}
    return [word for key, word in words.items() if made.get(key) != now[key]]


def _restored(run: OpenRun) -> bool:
    """Take up a finished run whose manifest the engine has removed, if everything that decided its results is the same
    and all that it published is there."""
    try:
        made = json.loads((run.dir / KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    there = {str(file.relative_to(run.dir)): file.stat().st_size for file in files_below(run.dir)}
    if _changed(run, made) or not made["published"].items() <= there.items():
        return False
    shutil.copyfile(run.dir / KEPT, run.dir / ".manifest.part")
    fsync(run.dir / ".manifest.part")
    os.replace(run.dir / ".manifest.part", run.dir / "manifest.json")
    return _finished(run)


def _attempt(run: OpenRun, name: str) -> None:
    """Count this attempt and what the ones before it took. Checkpoints that something else decided are dropped: what
    goes on from them would be a mixture of two."""
    note, checkpoints = run.staging / "attempt.json", run.staging / "checkpoints"
    try:
        last = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = {}
    if checkpoints.exists() and (changed := _changed(run, last)):
        print(f"{name}: {' and '.join(changed)} changed since the last attempt; its checkpoints are dropped.")
        shutil.rmtree(checkpoints)
    if checkpoints.exists():
        late = max(path.stat().st_mtime for path in (note, *checkpoints.rglob("*"))) - note.stat().st_mtime
        run.attempt = last["attempt"] + 1
        run.before = {"seconds": last["seconds"] + late, "peak_memory_mb": last["peak_memory_mb"]}
    _note(run)


def _note(run: OpenRun) -> None:
    """What decides this attempt, and its cost until now."""
    write_json(run.staging / "attempt.json", {**run.decided, "attempt": run.attempt, **run.cost()})


def manifest(directory: str | Path) -> dict[str, Any]:
    """The manifest of a finished run; UserError if the run is not finished."""
    file = project_path(directory) / "manifest.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{directory} is no finished run (it has no manifest.json); make it first, by its notebook "
                        "or `studykit run`.") from None  # fmt: skip
    except ValueError:
        raise UserError(f"{file} is damaged (it is not JSON); remove the directory and make the run again.") from None


def run_dirs(values: Any) -> list[str]:
    """Run directories named anywhere in the parameters, `out` excepted."""
    if isinstance(values, str):
        return [values] if values.startswith("runs/") else []
    if isinstance(values, dict):
        values = [v for k, v in values.items() if k != "out"]
    return [d for v in values for d in run_dirs(v)] if isinstance(values, list) else []


def _input(directory: str) -> dict[str, str | None]:
    """An input as a manifest names it."""
    return {"key": Path(directory).name.rpartition("-")[2], "sha256": sha256(home() / directory / "manifest.json")}


def basis(stage: str, params: dict[str, Any]) -> dict[str, str]:
    """Digests of what decides a run's results beside its parameters and inputs: the code, and the user's files by
    their content, or by size and time where they are large: a file that was only touched is no change."""
    files = [
        (str(f), sha256(f) if f.stat().st_size < LARGE else f"{f.stat().st_size} {f.stat().st_mtime_ns}")
        for f in code_digest.data_files(stage, params, home())
        if f.is_file()
    ]
    return {"code": _code(stage), "files": hashlib.sha256(repr(files).encode()).hexdigest()[:16] if files else ""}


def _code(stage: str) -> str:
    notebook = home() / "notebooks" / f"{STAGES[stage].notebook}.ipynb" if stage in STAGES else None
    return code_digest.computing(notebook) if notebook and notebook.is_file() else ""

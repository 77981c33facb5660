"""Run directories: one writer at a time, published whole, with a manifest written last.

    with store.open_run(p.out, stage="adapter", params=p) as run:
        if not run.done:
            ...                                     # resume from run.checkpoints, write to run.path("adapter")
            run.publish(headline={"loss": 1.2})
    run.dir                                         # now holds the finished artefacts

A directory without `manifest.json` does not count. Snakemake removes that file to have a notebook executed again; if
nothing that decides the results has changed, they are used as they are and only shown again (see `_restored`). A run
whose files are not those that it published is damaged (see `manifest`): it counts as not done and is run again.

What is being written lies in `runs/.staging/<stage>/<run>/`: `publish/` becomes the directory in one rename,
`checkpoints/` outlives a kill, `attempt.json` says what decided them, and the writer holds `lock`, which the system
releases when the writer dies, however it dies.

A manifest's `seconds` are those of all attempts that continued each other. An attempt that was killed counts until the
newest file among its checkpoints: nobody was there to record what it took after that.

Under Snakemake a notebook must not outlive the command, or the next command would meet a second writer: a watchdog ends
the notebook within about a second of the command's death (see `process`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studykit.errors import Interrupted, UserError, show
from studykit.runs import code_digest, process, provenance
from studykit.runs.files import files_below, fsync, home, project_path, sha256, staging_dir, write_json
from studykit.runs.locks import locked
from studykit.runs.manifest import (
    MANIFEST,
    Attempt,
    Basis,
    InputRecord,
    Manifest,
    PublishedFile,
    damage,
    read_attempt,
    read_manifest,
)
from studykit.study.parameters import STAGES

COPY = ".manifest.json"  # a copy of the manifest that Snakemake does not know of
LARGE = 64 * 2**20  # bytes from which a file's size and time represent its content


@dataclass
class OpenRun:
    """A run directory in use; `open_run` makes it."""

    dir: Path  # the final directory
    stage: str
    params: dict[str, Any]
    staging: Path
    done: bool
    attempt: int = 1
    earlier_seconds: float = 0.0  # of the attempts that this one goes on from
    earlier_peak_memory_mb: float = 0

    def __post_init__(self) -> None:
        self._began, self._started = time.monotonic(), datetime.now(UTC)
        # At the start, not when it is published: code and inputs may change meanwhile.
        self._by_hand = not process.is_under_command()
        self.basis = Basis(
            params=json.loads(json.dumps(self.params)),
            inputs={directory: _input(directory) for directory in run_dirs(self.params)},
            **digests(self.stage, self.params),
        )

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.dir.name}"

    def seconds(self) -> float:
        """Returns the seconds until now, of this attempt and those that it goes on from."""
        return round(self.earlier_seconds + time.monotonic() - self._began, 2)

    def peak_memory_mb(self) -> float:
        """Returns the most memory that this attempt, or one that it goes on from, has held until now."""
        return max(self.earlier_peak_memory_mb, provenance.peak_memory_mb())

    @property
    def checkpoints(self) -> Path:
        """Returns the directory that outlives a kill and is gone once the run is published."""
        (self.staging / "checkpoints").mkdir(parents=True, exist_ok=True)
        return self.staging / "checkpoints"

    def path(self, *parts: str) -> Path:
        """Returns a path in the directory that is being written, or in the finished one; makes its parents."""
        place = (self.dir if self.done else self.staging / "publish").joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def read_json(self, name: str) -> Any:
        """Returns the value in a JSON file of the run."""
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def publish(
        self, headline: dict[str, Any] | None = None, inputs: Iterable[str | Path] | None = None, **about: Any
    ) -> None:
        """Writes the manifest and puts the directory in its place.

        Args:
            headline: numbers for the study's index.
            inputs: run directories that were read; by default those that the parameters name.
            about: whatever else the manifest is to record.
        """
        if self.done:
            raise UserError(f"{self.dir} is finished and is never overwritten; check run.done before run.publish.")
        known, publish = self.basis.inputs, self.staging / "publish"
        publish.mkdir(parents=True, exist_ok=True)
        basis = self.basis.model_copy(
            update={"inputs": {i: known.get(i) or _input(i) for i in (known if inputs is None else map(str, inputs))}}
        )
        manifest = Manifest(
            stage=self.stage,
            **dict(basis),
            headline=headline or {},
            about=about,
            published={str(file.relative_to(publish)): _published(file) for file in files_below(publish)},
            commit=provenance.commit(home()),
            versions=provenance.versions(),
            started=self._started.isoformat(timespec="seconds"),
            seconds=self.seconds(),
            peak_memory_mb=self.peak_memory_mb(),
            attempt=self.attempt,
            by_hand=self._by_hand,
            host=socket.gethostname(),
            device=provenance.device(),
            threads=provenance.threads(),
        )
        for name in (COPY, MANIFEST):
            write_json(publish / name, manifest.model_dump())
        readable = (publish / MANIFEST).stat().st_mode & 0o444  # by the umask; safetensors writes for the owner alone
        for path in (publish, *publish.rglob("*")):
            path.chmod(path.stat().st_mode | readable)
            fsync(path)
        old = self.staging / "old"
        shutil.rmtree(old, ignore_errors=True)
        self.dir.parent.mkdir(parents=True, exist_ok=True)
        if self.dir.exists():  # unfinished, or emptied by Snakemake
            os.rename(self.dir, old)
        os.rename(publish, self.dir)
        fsync(self.dir.parent)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.staging / "checkpoints", ignore_errors=True)
        (self.staging / "attempt.json").unlink(missing_ok=True)
        self.done = True


@contextmanager
def open_run(out: str | Path, *, stage: str, params: Any, wait: float = 15.0) -> Iterator[OpenRun]:
    """Opens the run directory `out`, locked for writing unless it is finished already.

    Waits up to `wait` seconds for another writer, then raises UserError with its process and host. Also raises it when
    `out` holds a finished run with other parameters. A damaged run is announced and written again. An interruption
    becomes one sentence, `Interrupted`.
    """
    values = params if isinstance(params, dict) else params.model_dump()
    final = project_path(out)
    run = OpenRun(final, stage, values, staging_dir(f"{stage}/{final.name}"), done=False)
    if _finished(run):
        yield run
        return
    process.watch()
    with locked(run.staging, run.name, wait):
        if not _finished(run) and not _restored(run):
            if problem := damage(run.dir):
                print(f"{run.name}: it is damaged ({problem}) and is run again.", flush=True)
            shutil.rmtree(run.staging / "publish", ignore_errors=True)
            _begin_attempt(run)
            begins = "starts" if run.attempt == 1 else f"continues, attempt {run.attempt}"
            print(f"{run.name}: {begins}.", flush=True)
        try:
            yield run
        except Interrupted:  # a training, which says at which step
            raise
        except KeyboardInterrupt:
            raise Interrupted(f"{run.name} is stopped; run this cell again to go on.") from None
        finally:
            if not run.done:
                _write_attempt(run)
        if run.done and run.attempt:
            print(f"{run.name}: published after {time.monotonic() - run._began:.1f} s.", flush=True)


def _finished(run: OpenRun) -> bool:
    """Whether the directory holds a finished run that is whole. Raises UserError if it has other parameters."""
    manifest = read_manifest(run.dir)
    if manifest is None or damage(run.dir):
        return False
    wanted = run.basis.params
    for key in wanted.keys() - {"out"}:
        if key in manifest.params and manifest.params[key] != wanted[key]:
            raise UserError(
                f"{run.dir} holds a finished run whose {key} is {show(manifest.params[key])}, not "
                f"{show(wanted[key])}; leave `out` at None to get a directory of its own."
            )
    run.done, run.attempt = True, 0
    print(f"{run.name}: finished on {manifest.started[:10]} in {manifest.seconds} s; its results are shown.")
    if (manifest.code, manifest.files) != (run.basis.code, run.basis.files):
        print("Its code or its data files have changed since: `studykit run` runs it again.")
    return True


def _changed(run: OpenRun, recorded: Basis) -> list[str]:
    """What decides a run's results and differs from a record: parameters, code, the user's files, the inputs by their
    manifests."""
    now = run.basis.model_copy(update={"inputs": {i: _input(i) for i in recorded.inputs}})
    words = {"params": "its parameters", "code": "its code", "files": "its data files", "inputs": "its inputs"}
    return [word for key, word in words.items() if getattr(recorded, key) != getattr(now, key)]


def _restored(run: OpenRun) -> bool:
    """Whether a finished run whose manifest Snakemake has removed can be used as it is; then puts the manifest back.

    Everything that decided its results must be the same, and all that it published must be there.
    """
    manifest = read_manifest(run.dir, COPY)
    if manifest is None or _changed(run, manifest) or damage(run.dir, COPY):
        return False
    part = run.dir / ".manifest.part"
    shutil.copyfile(run.dir / COPY, part)
    fsync(part)
    os.replace(part, run.dir / MANIFEST)
    return _finished(run)


def _begin_attempt(run: OpenRun) -> None:
    """Counts this attempt and the time and memory of the earlier ones.

    Checkpoints that something else decided are dropped: whatever goes on from them would be a mixture of two runs.
    """
    note, checkpoints = run.staging / "attempt.json", run.staging / "checkpoints"
    last = read_attempt(run.staging)
    if checkpoints.exists() and (last is None or _changed(run, last)):
        changed = (
            " and ".join(_changed(run, last)) + " changed since the last attempt"
            if last
            else "its last attempt is unknown"
        )
        print(f"{run.name}: {changed}; its checkpoints are dropped.")
        shutil.rmtree(checkpoints)
    if last and checkpoints.exists():
        late = max(path.stat().st_mtime for path in (note, *checkpoints.rglob("*"))) - note.stat().st_mtime
        run.attempt = last.attempt + 1
        run.earlier_seconds, run.earlier_peak_memory_mb = last.seconds + late, last.peak_memory_mb
    _write_attempt(run)


def _write_attempt(run: OpenRun) -> None:
    """Records what decides this attempt, and its cost until now."""
    attempt = Attempt(
        **dict(run.basis),
        attempt=run.attempt,
        by_hand=run._by_hand,
        seconds=run.seconds(),
        peak_memory_mb=run.peak_memory_mb(),
    )
    write_json(run.staging / "attempt.json", attempt.model_dump())


def run_dirs(values: Any) -> list[str]:
    """Returns the run directories named anywhere in the parameters, except `out`."""
    if isinstance(values, str):
        return [values] if values.startswith("runs/") else []
    if isinstance(values, dict):
        values = [value for key, value in values.items() if key != "out"]
    return [directory for value in values for directory in run_dirs(value)] if isinstance(values, list) else []


def _input(directory: str) -> InputRecord:
    digest = sha256(home() / directory / MANIFEST)
    return InputRecord(key=Path(directory).name.rpartition("-")[2], sha256=digest)


def _published(file: Path) -> PublishedFile:
    return PublishedFile(size=file.stat().st_size, sha256=sha256(file) or "")


def code_of(stage: str) -> str:
    """Returns the digest of the code that decides the results of a stage's runs; "" without a notebook of it."""
    notebook = home() / "notebooks" / f"{STAGES[stage].notebook}.ipynb" if stage in STAGES else None
    return code_digest.computing(notebook) if notebook and notebook.is_file() else ""


def digests(stage: str, params: dict[str, Any], code_of: Callable[[str], str] = code_of) -> dict[str, str]:
    """Returns digests of what decides a run's results besides its parameters and inputs: `code` and `files`.

    The user's files count by their content, large ones by size and time: a file that was only touched is unchanged,
    and one inside a project that was moved as a whole, too.
    """
    read = [
        (
            _place(file),
            sha256(file) if file.stat().st_size < LARGE else f"{file.stat().st_size} {file.stat().st_mtime_ns}",
        )
        for file in code_digest.data_files(stage, params, home())
        if file.is_file()
    ]
    return {"code": code_of(stage), "files": hashlib.sha256(repr(read).encode()).hexdigest()[:16] if read else ""}


def _place(file: Path) -> str:
    """A file's path below the project, or from the root if it lies elsewhere."""
    return str(file.relative_to(home()) if file.is_relative_to(home()) else file)

"""The project's directory, and files that are written atomically: as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from studykit.errors import UserError


def home() -> Path:
    """Returns the project's directory: STUDYKIT_HOME, else the nearest directory above with a Snakefile."""
    if named := os.environ.get("STUDYKIT_HOME"):
        if not Path(named).is_dir():
            raise UserError(f"STUDYKIT_HOME is {named}, which is no directory; it must name the project's.")
        return Path(named).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Snakefile").is_file():
            return folder
    raise UserError(f"{here} is not inside the project (no Snakefile above it); change directory or set STUDYKIT_HOME.")


def project_path(path: str | Path) -> Path:
    """Returns a path as it is if it is absolute, else below the project's directory."""
    return Path(path) if Path(path).is_absolute() else home() / path


def staging_dir(name: str) -> Path:
    """Returns the directory in which the run `<stage>/<label>-<key>` is written until it is published."""
    return home() / "runs" / ".staging" / name


@contextmanager
def atomic_write(file: str | Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that replaces `file` once it is complete and on the disk; an error leaves the old file.

    Missing directories above it are created.

        with atomic_write("reports/quickstart/index.html") as out:
            out.write(page.encode())
    """
    file = project_path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(file: str | Path, text: str) -> None:
    """Writes a text in UTF-8, atomically."""
    with atomic_write(file) as out:
        out.write(text.encode())


def read_json(file: str | Path) -> Any:
    """Returns the value in a JSON file."""
    return json.loads(project_path(file).read_text(encoding="utf-8"))


def write_json(file: str | Path, value: Any) -> None:
    """Writes a value as JSON, atomically. Raises ValueError for NaN and infinity, which are not JSON."""
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def fsync(path: Path) -> None:
    """Waits until a file, or the list of a directory's entries, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def files_below(directory: Path) -> list[Path]:
    """Returns all files in a directory and below it, sorted."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def sha256(file: Path) -> str | None:
    """Returns the SHA-256 of a file's content in hex digits; None for no file."""
    if not file.is_file():
        return None
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

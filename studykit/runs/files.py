"""Files of the project: where it lies, and files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from studykit.errors import UserError


def home() -> Path:
    """The project's directory: STUDYKIT_HOME, else the nearest parent of the working directory with a Snakefile."""
    if named := os.environ.get("STUDYKIT_HOME"):
        return Path(named).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Snakefile").is_file():
            return folder
    raise UserError(f"{here} is not inside the project (no Snakefile above it); change directory or set STUDYKIT_HOME.")


def project_path(path: str | Path) -> Path:
    return Path(path) if Path(path).is_absolute() else home() / path


def read_json(file: str | Path) -> Any:
    return json.loads(project_path(file).read_text(encoding="utf-8"))


def write_json(file: str | Path, value: Any) -> None:
    """Write JSON whole or not at all. Raises ValueError for NaN and infinity, which are not JSON."""
    file = project_path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    with open(part, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=1, ensure_ascii=False, allow_nan=False)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)


def fsync(path: Path) -> None:
    """Wait until a file, or what a directory lists, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def files_below(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def sha256(file: Path) -> str | None:
    """The digest of a file's content; None for no file."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None

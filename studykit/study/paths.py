"""The files and directories that a study file names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os.path import exists, expanduser
from pathlib import Path

from studykit.errors import UserError, show


def is_local(base: str) -> bool:
    """Returns whether a base is named as a directory rather than as a word or a hub id."""
    return base.startswith(("/", "./", "../", "~"))


def require_files(named: Mapping[str, str | None], file: str | os.PathLike, home: Path) -> None:
    """Raises UserError if a file or directory that the study in `file` names does not exist.

    Args:
        named: addresses by key; those of the hub, and a base that is no directory, are not looked for.
        home: the directory from which relative paths are seen.
    """
    for key, value in named.items():
        if value is None or value.startswith("hf://") or (key == "base" and not is_local(value)):
            continue
        if not exists(home / expanduser(value)):
            raise UserError(f"{file}: {key} is {show(value)}, which does not exist; it must be a file or a directory.")

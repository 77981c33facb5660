"""A new study file: the keys without a default, and those that the user gives; every other key keeps its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studykit.errors import UserError
from studykit.runs import files
from studykit.study.file import load_study
from studykit.study.yaml_file import write_yaml

HEAD = """\
# Every key that is not here has the library's default: `studykit plan --full` prints them all; params/quickstart.yaml
# explains each.

"""


def write_study(file: str, values: dict[str, Any]) -> str:
    """Writes a study file, checked as a study is, and returns its path as seen from the project's directory.

    Raises UserError for a file that exists, and for values that make no study; then nothing is left.

    Args:
        file: its path, or only a name, which lies in params/.
        values: the keys of the study; `study` is the name of the file.
    """
    path = Path(file if Path(file).suffix in (".yaml", ".yml") else f"{file}.yaml")
    at = path if path.parent != Path() else files.home() / "params" / path
    if at.exists():
        raise UserError(f"{at} exists; give another name, or edit it.")
    text = HEAD + write_yaml({"study": path.stem.replace("-", "_"), **values})
    with files.atomic_write(at) as new:
        new.write(text.encode())
    try:
        load_study(at.resolve(), files.home())
    except UserError:
        at.unlink()
        raise
    at = at.resolve()
    return str(at.relative_to(files.home()) if at.is_relative_to(files.home()) else at)

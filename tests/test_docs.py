"""What docs/ shows is what happens: the worked examples of extensions are applied to a copy of the library and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTENSIONS = (ROOT / "docs/extending.md").read_text(encoding="utf-8").split("\n## ")[1:]


def blocks(text: str, language: str) -> list[str]:
    """Returns the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run_check(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=home, env=environment, text=True, capture_output=True)


def apply(difference: str, home: Path) -> None:
    """Applies a difference; the lines of each of its parts must stand in the file exactly once, or be a new file."""
    for section in difference.split("+++ ")[1:]:
        name, *parts = section.split("@@\n")
        file = home / name.strip()
        for part in parts:
            lines = part.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            text = file.read_text(encoding="utf-8") if old else ""
            assert not old or text.count(old) == 1, f"{name.strip()} holds {text.count(old)} times:\n{old}"
            file.write_text(text.replace(old, new) if old else new, encoding="utf-8")


@pytest.mark.parametrize("section", EXTENSIONS, ids=lambda section: section.split("\n")[0])
def test_a_worked_extension_works_and_needs_its_difference(section, tmp_path):
    shutil.copytree(ROOT / "studykit", tmp_path / "studykit", ignore=shutil.ignore_patterns("__pycache__"))
    (difference,), (check,) = blocks(section, "diff"), blocks(section, "python")
    assert run_check(check, tmp_path).returncode != 0, "the check passes without the extension"
    apply(difference, tmp_path)
    done = run_check(check, tmp_path)
    assert done.returncode == 0, done.stderr

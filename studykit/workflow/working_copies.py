"""Working copies of the notebooks for JupyterLab: `python -m studykit.workflow.working_copies`, then open work/.

Exploring changes parameters and leaves outputs; in a copy that dirties neither the repository nor a study. A copy that
was edited is never replaced: when its original has changed, a message says so.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from studykit.runs.files import home, read_json, sha256, write_json

FOLDER = "work"  # git-ignored
ORIGINALS = ".originals.json"  # digests of the notebooks when they were copied, by name


def update_working_copies() -> list[str]:
    """Copies the notebooks that work/ lacks or has unedited, and returns a sentence for each that is older than its
    original and was edited."""
    folder = home() / FOLDER
    folder.mkdir(exist_ok=True)
    record = folder / ORIGINALS
    digests = read_json(record) if record.is_file() else {}
    notes = []
    for original in sorted((home() / "notebooks").glob("*.ipynb")):
        copy, name, digest = folder / original.name, original.name, sha256(original)
        is_edited = copy.is_file() and sha256(copy) != digests.get(name)
        if not is_edited:
            shutil.copyfile(original, copy)
            digests[name] = digest
        elif digests.get(name) != digest:
            notes.append(
                f"{FOLDER}/{name} was copied from an older {original.relative_to(home())} and edited since, so it is "
                "kept; remove it to get the new one."
            )
    write_json(record, digests)
    return notes


if __name__ == "__main__":
    print(*update_working_copies(), f"Open the notebooks in {Path(FOLDER)}/.", sep="\n")

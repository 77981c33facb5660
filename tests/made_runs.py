"""Finished runs made by hand: a manifest that says of the files beside it what `publish` would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studykit.runs.files import files_below, sha256, write_json
from studykit.runs.manifest import InputRecord, Manifest, PublishedFile


def finish(directory: Path, stage: str, params: dict[str, Any], inputs: tuple[str, ...] = (), **changes: Any) -> None:
    """Writes the manifest of a run in a directory; its files are those that lie there now."""
    files = {str(file.relative_to(directory)): file for file in files_below(directory) if file.name != "manifest.json"}
    values = {
        "stage": stage,
        "params": params,
        "code": "",
        "files": "",
        "inputs": {name: InputRecord(key=name[-10:], sha256=None) for name in inputs},
        "headline": {},
        "published": {
            name: PublishedFile(size=file.stat().st_size, sha256=sha256(file) or "") for name, file in files.items()
        },
        "commit": None,
        "versions": {"python": "3"},
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "peak_memory_mb": 1,
        "attempt": 1,
        "host": "host",
        "device": "cpu",
        "threads": 1,
    }
    write_json(directory / "manifest.json", Manifest(**(values | changes)).model_dump())

"""A study's report in one file that can be mailed: reports/<study>.zip, unpacked into a folder of the study's name.

The same report makes the same bytes, whenever and by whomever it is packed.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold


def pack(folder: Path) -> Path:
    """Pack the report in `folder`; the path of the zip beside it, which appears whole or not at all."""
    target = folder.with_suffix(".zip")
    part = target.with_name(f".{target.name}.part")
    with zipfile.ZipFile(part, "w") as bundle:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.endswith(".part"):
                entry = zipfile.ZipInfo(f"{folder.name}/{file.name}", EPOCH)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                bundle.writestr(entry, file.read_bytes(), compresslevel=9)
    os.replace(part, target)
    return target

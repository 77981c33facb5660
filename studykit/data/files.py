"""Where rows come from: files on this machine, or files of a dataset repository on the Hugging Face hub.

Hub files are named `hf://datasets/<owner>/<name>@<commit>/<path, folder or glob>` and fetched one by one into the hub's
cache when they are read. No loading script is ever run: the `datasets` library refuses them, and data sets that come
with one (xCodeEval, CommitPackFT) are read by their files. A branch instead of the commit is resolved once, and what it
stood for goes into the data run's manifest.
"""

from __future__ import annotations

import csv
import fnmatch
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from studykit.data.jsonl import BOM, decoded, json_lines
from studykit.data.rejects import BadRow, Refuse, stop
from studykit.errors import UserError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".csv")
HUB = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?")


class Hub(NamedTuple):
    """A dataset repository at one commit."""

    repo: str
    revision: str  # 40 hexadecimal digits

    def __str__(self) -> str:
        return f"hf://datasets/{self.repo}@{self.revision}"

    def names(self) -> list[str]:
        """All its files; without a network, those in the hub's cache."""
        import huggingface_hub as hub

        with _fetching(f"the files of {self}"):
            if not hub.constants.HF_HUB_OFFLINE:
                return sorted(hub.HfApi().list_repo_files(self.repo, repo_type="dataset", revision=self.revision))
            place = Path(hub.constants.HF_HUB_CACHE, f"datasets--{self.repo.replace('/', '--')}", "snapshots",
                         self.revision)  # fmt: skip
            if not place.is_dir():
                raise FileNotFoundError("no file of it is in the cache")
            return sorted(f.relative_to(place).as_posix() for f in place.rglob("*") if f.is_file())

    def path(self, name: str) -> Path:
        """The local copy of a file, fetched if need be."""
        import huggingface_hub as hub

        with _fetching(f"{self}/{name}"):
            return Path(hub.hf_hub_download(self.repo, name, repo_type="dataset", revision=self.revision))


class File(NamedTuple):
    """One file of a source."""

    name: str  # below the source, with slashes
    root: Path | Hub

    @property
    def shown(self) -> str:
        """What errors and manifests call it."""
        return f"{self.root}/{self.name}"

    @property
    def path(self) -> Path:
        return self.root.path(self.name) if isinstance(self.root, Hub) else self.root / self.name


class Source(NamedTuple):
    """Files that were asked for together."""

    asked: str
    root: Path | Hub
    files: tuple[File, ...]  # in the order of their names

    def linked(self, name: str) -> File | None:
        """A file of this name in the source, or in a folder above its files."""
        if here := [f for f in self.files if PurePosixPath(f.name).name == name]:
            return here[0]
        if isinstance(self.root, Hub):
            return File(name, self.root) if name in self.root.names() else None
        above = (File(name, folder) for folder in (self.root, *list(self.root.parents)[:2]))
        return next((file for file in above if file.path.is_file()), None)


def open_source(asked: str, key: str = "data.path") -> Source:
    """The files behind a file, a folder or a hub address. Raises: UserError, which names `key`, if there are none."""
    if asked.startswith("hf://"):
        root, names = _hub(asked, key)
    else:
        at = Path(asked).expanduser()
        if not at.exists():
            raise UserError(f"{key}={asked} does not exist; it must be a directory or file of rows, or hf://datasets/"
                            "<owner>/<name>@<commit>/<path>.")  # fmt: skip
        root = at if at.is_dir() else at.parent
        found = at.rglob("[!.]*") if at.is_dir() else [at]
        names = sorted(f.relative_to(root).as_posix() for f in found if f.is_file())
    files = tuple(File(name, root) for name in names if name.endswith(SUFFIXES))
    if not files:
        raise UserError(f"{key}={asked} holds no file of rows; a file of rows ends in {', '.join(SUFFIXES)}.")
    return Source(asked, root, files)


def _hub(asked: str, key: str) -> tuple[Hub, list[str]]:
    if not (match := HUB.fullmatch(asked)):
        raise UserError(f"{key}={asked} is no address; it must be hf://datasets/<owner>/<name>@<commit>/<path>.")
    root = Hub(match["repo"], commit_of(match["repo"], match["revision"] or "main"))
    pattern = (match["path"] or "").strip("/")
    if pattern.endswith(SUFFIXES) and not re.search(r"[*?\[]", pattern):
        return root, [pattern]
    inside = f"{pattern}/*" if pattern else "*"  # an asterisk of fnmatch crosses folders
    return root, [n for n in root.names() if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n, inside)]


@cache
def commit_of(repo: str, revision: str) -> str:
    """The commit that a branch or tag of a hub dataset stands for, asked once; a commit is itself."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    import huggingface_hub as hub

    if hub.constants.HF_HUB_OFFLINE:
        raise UserError(f"hf://datasets/{repo}@{revision} cannot be resolved while HF_HUB_OFFLINE is set; name the "
                        "commit by its 40 hexadecimal digits.")  # fmt: skip
    with _fetching(f"hf://datasets/{repo}@{revision}"):
        return hub.HfApi().dataset_info(repo, revision=revision.replace("%2F", "/")).sha


class _fetching:
    """Turns what the hub's library raises into one sentence."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        import huggingface_hub as hub

        if not isinstance(error, OSError | ValueError | hub.errors.HfHubHTTPError):
            return
        if hub.constants.HF_HUB_OFFLINE:
            raise UserError(f"{self.what} is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it; fetch it "
                            "once on a machine with a network, or unset HF_HUB_OFFLINE.") from None  # fmt: skip
        said = str(error).strip().split("\n")[0]
        raise UserError(f"{self.what} cannot be fetched ({type(error).__name__}: {said}); check the address and the "
                        "network, and log in if the data set is gated.") from None  # fmt: skip


def rows(file: File, refuse: Refuse = stop) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file, line N", row) of a file, by its suffix; tables without lines count rows."""
    if file.name.endswith(".parquet"):
        yield from _parquet_rows(file)
    elif file.name.endswith(".csv"):
        yield from _csv_rows(file, refuse)
    else:
        yield from json_lines(file.path, file.shown, refuse)


def one_object(file: File) -> dict[str, Any]:
    """The one object in a `.json` file, such as xCodeEval's unit tests."""
    try:
        value = json.loads(file.path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.shown} is not valid JSON ({error}); it must hold one object.") from None
    if not isinstance(value, dict):
        raise UserError(f"{file.shown} holds a {type(value).__name__}; it must hold one object.")
    return value


def _parquet_rows(file: File) -> Iterator[tuple[str, dict]]:
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    quoted = re.sub(r"([*?\[])", r"[\1]", str(file.path))  # data_files are patterns
    try:
        table = load_dataset("parquet", data_files=[quoted], split="train", streaming=True)
        for number, row in enumerate(table, 1):
            yield f"{file.shown}, row {number}", row
    except (pa.ArrowInvalid, DatasetGenerationError) as error:
        said = str(error).strip().split("\n")[0]
        raise UserError(f"{file.shown} is no whole parquet file ({said}).") from None


def _csv_rows(file: File, refuse: Refuse) -> Iterator[tuple[str, dict]]:
    """By the standard library's reader: that of `datasets` guesses types, makes "NA" nothing and knows no lines."""
    csv.field_size_limit(2**27)
    last, reached = 1, 0  # lines: the end of the last row, and what was read of the file

    def text_of(lines: BinaryIO) -> Iterator[str]:
        nonlocal reached
        start = 0
        for reached, line in enumerate(lines, 1):  # noqa: B007
            skip = len(BOM) if start == 0 and line.startswith(BOM) else 0
            yield decoded(line[skip:], start + skip)
            start += len(line)

    try:
        with file.path.open("rb") as lines:
            reader = csv.DictReader(text_of(lines), strict=True)
            for row in reader:
                place, last = f"{file.shown}, line {last + 1}", reader.line_num
                if None in row or None in row.values():
                    refuse(place, BadRow("its number of columns is not the header's"))
                else:
                    yield place, row
    except BadRow as bad:
        raise bad.at(f"{file.shown}, line {reached}") from None
    except csv.Error as error:
        raise UserError(f"{file.shown}, line {reached}: no valid CSV ({error}).") from None

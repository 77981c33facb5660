"""The files that rows come from: files on this machine, or files of a dataset repository on the Hugging Face hub.

Hub files are named `hf://datasets/<owner>/<name>@<commit>/<path, folder or glob>` and fetched one by one into the hub's
cache when they are read. No loading script is ever run: the `datasets` library refuses them, and data sets that come
with one (xCodeEval, CommitPackFT) are read by their files. A branch instead of the commit is resolved once, and the
manifest of the data run records the commit.
"""

from __future__ import annotations

import csv
import fnmatch
import re
from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from studykit.data.jsonl import BOM, ObjectDecoder, decoded, json_lines, parsed, refuse_foreign, require_file
from studykit.data.rejects import BadRow, Refuse, refuse_all
from studykit.errors import UserError, show
from studykit.runs.hub import HubRepository, commit_of
from studykit.study.data_files import FOLDERS_ABOVE, ROW_SUFFIXES

HUB_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?")
CSV_FIELD_BYTES = 2**27  # the longest field of a CSV file


class SourceFile(NamedTuple):
    """One file of a source."""

    name: str  # relative to the root, with slashes
    root: Path | HubRepository

    @property
    def address(self) -> str:
        """Returns the name of the file in messages and manifests."""
        return f"{self.root}/{self.name}"

    @property
    def path(self) -> Path:
        """Returns the file on this machine; a file of the hub is fetched."""
        return self.root.fetch(self.name) if isinstance(self.root, HubRepository) else self.root / self.name


class Source(NamedTuple):
    """The files behind one address."""

    address: str  # as the study file gives it
    root: Path | HubRepository
    files: tuple[SourceFile, ...]  # those of rows, in the order of their names

    @property
    def revision(self) -> str | None:
        """Returns the commit of a hub repository; None for local files."""
        return self.root.revision if isinstance(self.root, HubRepository) else None

    def find_linked(self, name: str) -> SourceFile | None:
        """Returns a file of this name in the source, or in a folder above its files; None where there is none."""
        if matches := [file for file in self.files if PurePosixPath(file.name).name == name]:
            return matches[0]
        if isinstance(self.root, HubRepository):
            return SourceFile(name, self.root) if name in self.root.names() else None
        above = (SourceFile(name, folder) for folder in (self.root, *list(self.root.parents)[:FOLDERS_ABOVE]))
        return next((file for file in above if file.path.is_file()), None)


def open_source(address: str, key: str = "data.path") -> Source:
    """Lists the files of rows behind a file, a folder or a hub address.

    Raises: UserError, which names the parameter `key`, if there are none.
    """
    if address.startswith("hf://"):
        repository, names = _hub_files(address, key)
        root: HubRepository | Path = repository
    else:
        path = Path(expanduser(address))
        if not path.exists():
            raise UserError(
                f"{key}={address} does not exist; it must be a directory or file of rows, or "
                "hf://datasets/<owner>/<name>@<commit>/<path>."
            )
        folder = path if path.is_dir() else path.parent
        paths = path.rglob("[!.]*") if path.is_dir() else [path]
        root, names = folder, sorted(file.relative_to(folder).as_posix() for file in paths if file.is_file())
    files = tuple(SourceFile(name, root) for name in names if name.endswith(ROW_SUFFIXES))
    if not files:
        raise UserError(f"{key}={address} holds no file of rows; a file of rows ends in {', '.join(ROW_SUFFIXES)}.")
    return Source(address, root, files)


def _hub_files(address: str, key: str) -> tuple[HubRepository, list[str]]:
    if not (match := HUB_ADDRESS.fullmatch(address)):
        raise UserError(f"{key}={address} is no address; it must be hf://datasets/<owner>/<name>@<commit>/<path>.")
    root = HubRepository(match["repo"], commit_of(match["repo"], match["revision"] or "main"))
    pattern = (match["path"] or "").strip("/")
    if pattern.endswith(ROW_SUFFIXES) and not re.search(r"[*?\[]", pattern):
        return root, [pattern]
    inside = f"{pattern}/*" if pattern else "*"  # an asterisk of fnmatch crosses folders
    return root, [n for n in root.names() if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n, inside)]


def raw_rows(file: SourceFile, refuse: Refuse = refuse_all) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the rows of a file as they are published, each with its location: "file, line N".

    Rows of parquet files, which have no lines, are counted: "file, row N". `refuse` is called with every bad row.
    """
    if file.name.endswith(".parquet"):
        yield from _parquet_rows(file, refuse)
    elif file.name.endswith(".csv"):
        yield from _csv_rows(file, refuse)
    else:
        yield from json_lines(file.path, file.address, refuse)


def read_object(file: SourceFile) -> dict[str, Any]:
    """Reads the one object in a `.json` file, such as xCodeEval's unit tests."""
    try:
        with file.path.open("rb") as opened:
            refuse_foreign(opened, file.address)
            return parsed(ObjectDecoder(), decoded(opened.read().removeprefix(BOM), 0))
    except BadRow as bad:
        raise UserError(f"{file.address}: {bad}; it must hold one object.") from None


def _parquet_rows(file: SourceFile, refuse: Refuse) -> Iterator[tuple[str, dict]]:
    """Files of the hub are read by `datasets`, which knows the types that it has written into their schemas."""
    import pyarrow as pa
    from datasets.exceptions import DatasetGenerationError

    require_file(file.path, file.address)
    try:
        with file.path.open("rb") as opened:
            is_parquet = opened.read(4) == b"PAR1"
            opened.seek(0)
            if not is_parquet:
                refuse_foreign(opened, file.address)
        rows = _hub_parquet(file.path) if isinstance(file.root, HubRepository) else _local_parquet(file.path)
        for number, row in enumerate(rows, 1):
            if row is None:
                refuse(f"{file.address}, row {number}", BadRow("not UTF-8 text"))
            else:
                yield f"{file.address}, row {number}", row
    except (pa.ArrowException, OSError, DatasetGenerationError) as error:
        message = str(error).strip().split("\n")[0]
        raise UserError(f"{file.address} is not a whole Parquet file ({message}).") from None


def _local_parquet(path: Path) -> Iterator[dict | None]:
    """Yields the rows of a file; None for one whose text is not UTF-8, which Arrow does not check."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches() if table.metadata.num_rows else ():
            try:
                yield from batch.to_pylist()
            except UnicodeDecodeError:
                yield from (_row_of_batch(batch, i) for i in range(batch.num_rows))


def _row_of_batch(batch: Any, index: int) -> dict | None:
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _hub_parquet(path: Path) -> Iterator[dict]:
    from datasets import load_dataset

    pattern = re.sub(r"([*?\[])", r"[\1]", str(path))  # data_files are patterns
    yield from load_dataset("parquet", data_files=[pattern], split="train", streaming=True)


def _csv_rows(file: SourceFile, refuse: Refuse) -> Iterator[tuple[str, dict]]:
    """The standard library's reader: that of `datasets` guesses types, reads "NA" as nothing and knows no lines."""
    csv.field_size_limit(CSV_FIELD_BYTES)
    last, reached = 1, 0  # lines: the end of the last row, and the last line that was read of the file

    def text_of(lines: BinaryIO) -> Iterator[str]:
        nonlocal reached
        start = 0
        for reached, line in enumerate(lines, 1):  # noqa: B007
            skip = len(BOM) if start == 0 and line.startswith(BOM) else 0
            yield decoded(line[skip:], start + skip)
            start += len(line)

    try:
        require_file(file.path, file.address)
        with file.path.open("rb") as lines:
            refuse_foreign(lines, file.address)
            reader = csv.DictReader(text_of(lines), strict=True)
            names = list(reader.fieldnames or ())
            if repeated := [name for name in names if names.count(name) > 1]:
                raise UserError(f"{file.address}, line 1: the column {show(repeated[0])} stands twice.")
            for row in reader:
                line, last = f"{file.address}, line {last + 1}", reader.line_num
                if None in row or None in row.values():
                    refuse(line, BadRow("its number of columns differs from the header's"))
                else:
                    yield line, row
    except BadRow as bad:
        raise bad.at(f"{file.address}, line {reached}") from None
    except csv.Error as error:
        raise UserError(f"{file.address}, line {reached}: not valid CSV ({error}).") from None

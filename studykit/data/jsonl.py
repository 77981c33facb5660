"""JSON lines, read with their locations, so that every error names file and line.

The packaged JSON reader of `datasets` merges the keys of all rows, loses their order, which is the direction of a
NicheTrans pair, and knows no lines. Lines end at a newline byte alone, since code may hold Unicode's other line ends.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from studykit.data.rejects import BadRow, Refuse, refuse_all
from studykit.errors import UserError

LINE_BYTES = 32 * 2**20  # the longest line; a longer one is a damaged file rather than a row
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that is no character by itself
BOM = b"\xef\xbb\xbf"


def json_lines(path: Path, shown: str | None = None, refuse: Refuse = refuse_all) -> Iterator[tuple[str, dict]]:
    """Reads a file of JSON lines, or of a JSON array; yields ("file, line N", object). `.gz` is unpacked.

    Args:
        shown: what errors call the file.
        refuse: called with every line that is no object; by default the first one raises UserError.
    Raises: UserError if the file cannot be read at all.
    """
    shown = shown or str(path)
    try:
        opened: Any = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
        with opened as file:
            yield from _array(file, shown, refuse) if _is_array(file) else _lines(file, shown, refuse)
    except FileNotFoundError:
        raise UserError(f"{shown} does not exist; it is needed as JSON lines.") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise UserError(f"{shown} is no whole gzip file; it must be JSON lines, packed by gzip.") from None


def _lines(file: BinaryIO, shown: str, refuse: Refuse) -> Iterator[tuple[str, dict]]:
    start, number = 0, 0  # of the line: its first byte in the file, its number from 1
    while line := file.readline(LINE_BYTES + 1):
        number += 1
        size, location = len(line), f"{shown}, line {number}"
        if size > LINE_BYTES and not line.endswith(b"\n"):
            refuse(location, BadRow(f"the line is longer than {LINE_BYTES:,} bytes"))
            while line and not line.endswith(b"\n"):  # on to the next line, without holding this one
                line = file.readline(2**20)
                size += len(line)
        else:
            skip = len(BOM) if number == 1 and line.startswith(BOM) else 0
            try:
                if (row := _parsed(line[skip:], start + skip)) is not None:
                    yield location, row
            except BadRow as bad:
                refuse(location, bad)
        start += size


def decoded(line: bytes, start: int) -> str:
    """Returns the text of a line that starts at byte `start` of its file; raises BadRow if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8 text", f" ({error.reason} at byte {start + error.start} of the file)") from None


def _parsed(line: bytes, start: int) -> dict | None:
    text = decoded(line, start)
    if not text.strip():
        return None
    try:
        return _object(json.loads(text), text)
    except json.JSONDecodeError as error:
        raise BadRow("not valid JSON", f" ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise BadRow("not usable JSON", f" ({error})") from None


def _object(value: Any, text: str) -> dict:
    """The value, which is `text` in JSON, if it is an object of texts that can be written again."""
    if not isinstance(value, dict):
        raise BadRow("an object is expected", f", not {type(value).__name__}")
    if SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise BadRow("half of a surrogate pair, which is no text") from None
    return value


def _is_array(file: BinaryIO) -> bool:
    """Whether the first character that is no space opens an array that does not end on its line."""
    head = file.readline(2**16).removeprefix(BOM).strip()
    while not head and (line := file.readline(2**16)):
        head = line.strip()
    file.seek(0)
    return head.startswith(b"[") and (head == b"[" or head[1:].lstrip().startswith((b"{", b"]")))


def _array(file: BinaryIO, shown: str, refuse: Refuse) -> Iterator[tuple[str, dict]]:
    data = file.read()
    start = len(BOM) if data.startswith(BOM) else 0
    try:
        text = decoded(data[start:], start)
    except BadRow as bad:
        raise bad.at(shown) from None
    decoder, space = json.JSONDecoder(), " \t\r\n"
    line, counted, at = 1, 0, text.index("[") + 1

    def skip(at: int, signs: str) -> int:
        while at < len(text) and text[at] in signs:
            at += 1
        return at

    while (at := skip(at, space + ",")) < len(text) and text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        location = f"{shown}, line {line}"
        try:
            start, (value, at) = at, decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:  # where the next item starts cannot be known
            raise UserError(f"{location}: not valid JSON in an array ({error}).") from None
        try:
            yield location, _object(value, text[start:at])
        except BadRow as bad:
            refuse(location, bad)
    if at >= len(text):
        raise UserError(f"{shown}: the array that starts it has no end; the file is cut off.")

"""JSON lines, read with their locations, so that every error names file and line.

The packaged JSON reader of `datasets` merges the keys of all rows, loses their order, which is the direction of a
NicheTrans pair, and knows no lines. Lines end at a newline byte alone, since code may hold Unicode's other line ends.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from studykit.data.rejects import BadRow, Refuse, refuse_all
from studykit.errors import UserError, show

LINE_BYTES = 32 * 2**20  # the longest line; a longer one is a damaged file rather than a row
CHUNK_BYTES = 2**16  # of an array are read at a time
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that is no character by itself
BOM = b"\xef\xbb\xbf"
SPACE = " \t\r\n"
FOREIGN = {  # how files begin that hold no text in UTF-8, and what is said of them
    b"\x1f\x8b": "is packed by gzip; its name must end in .gz",
    b"PK\x03\x04": "is a zip archive; it must be unpacked",
    b"BZh": "is packed by bzip2; it must be unpacked",
    b"\xfd7zXZ\0": "is packed by xz; it must be unpacked",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; it must be unpacked",
    b"PAR1": "is a parquet file; its name must end in .parquet",
    b"ARROW1": "is an Arrow file; it must be saved as parquet or JSON lines",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself; `git lfs pull` fetches it",
    codecs.BOM_UTF16_LE: "is text in UTF-16; it must be saved as UTF-8",
    codecs.BOM_UTF16_BE: "is text in UTF-16; it must be saved as UTF-8",
}


def json_lines(path: Path, shown: str | None = None, refuse: Refuse = refuse_all) -> Iterator[tuple[str, dict]]:
    """Reads a file of JSON lines, or of a JSON array; yields ("file, line N", object). `.gz` is unpacked.

    Args:
        shown: what errors call the file.
        refuse: called with every line that is no object; by default the first one raises UserError.
    Raises: UserError if the file cannot be read at all.
    """
    shown = shown or str(path)
    require_file(path, shown)
    opened: Any = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    try:
        with opened as file:
            refuse_foreign(file, shown)
            yield from _array(file, shown, refuse) if _is_array(file) else _lines(file, shown, refuse)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise UserError(f"{shown} is not a whole gzip file; it must be JSON lines compressed with gzip.") from None


def require_file(path: Path, shown: str) -> None:
    """Raises UserError for what is no file: a pipe would be waited for without end."""
    if not path.exists():
        raise UserError(f"{shown} does not exist; a file of rows is needed.")
    if not path.is_file():
        raise UserError(f"{shown} is not a file; a file of rows is needed.")


def refuse_foreign(file: BinaryIO, shown: str) -> None:
    """Raises UserError that names what a file is if its first bytes show that it holds no text in UTF-8."""
    head = file.read(max(map(len, FOREIGN)))
    file.seek(0)
    for first, what in FOREIGN.items():
        if head.startswith(first):
            raise UserError(f"{shown} {what}.")
    if b"\0" in head[:4]:
        raise UserError(f"{shown} is text in UTF-16 or UTF-32, or no text; it must be saved as UTF-8.")


class ObjectDecoder(json.JSONDecoder):
    """A decoder of JSON that notices a key which stands twice in an object, of which Python would keep the last."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.repeated: list[str] = []

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            keys = [key for key, _ in pairs]
            self.repeated += [key for key in value if keys.count(key) > 1]
        return value

    def checked(self, value: Any, text: str) -> dict[str, Any]:
        """Returns the value, which is `text` in JSON, if it is an object of texts that can be written again."""
        repeated, self.repeated = self.repeated, []
        if not isinstance(value, dict):
            raise BadRow("an object is expected", f", not {type(value).__name__}")
        if repeated:
            raise BadRow("a key stands twice in an object", f" ({show(repeated[0])})")
        if SURROGATE.search(text):
            try:
                json.dumps(value, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError:
                raise BadRow("half of a surrogate pair, which is not text") from None
        return value


def _lines(file: BinaryIO, shown: str, refuse: Refuse) -> Iterator[tuple[str, dict]]:
    decoder = ObjectDecoder()
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
                if text := decoded(line[skip:], start + skip).strip():
                    yield location, parsed(decoder, text)
            except BadRow as bad:
                refuse(location, bad)
        start += size


def decoded(line: bytes, start: int) -> str:
    """Returns the text of a line that starts at byte `start` of its file; raises BadRow if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, start) from None


def _not_utf8(error: UnicodeDecodeError, start: int) -> BadRow:
    place = f"{error.reason} at byte {start + error.start} of the file"
    return BadRow("not UTF-8 text", f" ({place}; text in Windows-1252 or Latin-1 must be saved as UTF-8)")


def parsed(decoder: ObjectDecoder, text: str) -> dict[str, Any]:
    """Returns the object that a text is in JSON. Raises: BadRow for any other text."""
    try:
        return decoder.checked(decoder.decode(text), text)
    except json.JSONDecodeError as error:
        raise BadRow("not valid JSON", f" ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise BadRow("not usable JSON", f" ({error})") from None
    finally:
        decoder.repeated = []


def _is_array(file: BinaryIO) -> bool:
    """Whether the first character that is no space opens an array that does not end on its line."""
    head = file.readline(2**16).removeprefix(BOM).strip()
    while not head and (line := file.readline(2**16)):
        head = line.strip()
    file.seek(0)
    return head.startswith(b"[") and (head == b"[" or head[1:].lstrip().startswith((b"{", b"]")))


class _Window:
    """The part of a file's text that is being decoded; what lies before it is forgotten."""

    def __init__(self, file: BinaryIO, shown: str):
        self.file, self.shown, self.decoder = file, shown, codecs.getincrementaldecoder("utf-8")()
        self.bytes = len(BOM) if file.read(len(BOM)) == BOM else 0  # read so far
        file.seek(self.bytes)
        self.text, self.at = "", 0  # from `at` on the text is still to be decoded
        self.line, self.counted = 1, 0  # of `at`; up to where lines are counted

    def read_on(self) -> bool:
        """Reads as much text again as is still to be decoded, or a chunk; returns False at the end of the file."""
        self.location()
        self.text, self.at, self.counted = self.text[self.at :], 0, 0
        data = self.file.read(max(CHUNK_BYTES, len(self.text)))
        pending = len(self.decoder.getstate()[0])
        try:
            self.text += self.decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise _not_utf8(error, self.bytes - pending).at(self.shown) from None
        self.bytes += len(data)
        return bool(data)

    def location(self) -> str:
        """Returns "file, line N" of the text that is still to be decoded."""
        self.line, self.counted = self.line + self.text.count("\n", self.counted, self.at), self.at
        return f"{self.shown}, line {self.line}"

    def next_sign(self) -> str:
        """Passes over white space and returns the character behind it; "" at the end of the file."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self.read_on():
                return ""

    def item(self, decoder: ObjectDecoder) -> tuple[Any, str]:
        """Decodes the item that begins here, and returns it with its text."""
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
                size = end - self.at
                if end < len(self.text) or not self.read_on():  # a number may go on in the next chunk
                    self.at += size
                    return value, self.text[self.at - size : self.at]
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.at > LINE_BYTES or isinstance(error, RecursionError) or not self.read_on():
                    reason = getattr(error, "msg", error)
                    raise UserError(f"{self.location()}: not valid JSON in an array ({reason}).") from None
            decoder.repeated = []


def _array(file: BinaryIO, shown: str, refuse: Refuse) -> Iterator[tuple[str, dict]]:
    """Decodes an array item by item, so that no more than one of them is held."""
    window, decoder = _Window(file, shown), ObjectDecoder()
    window.next_sign()
    window.at += 1  # the opening bracket
    sign = window.next_sign()
    while sign not in ("]", ""):
        location = window.location()
        value, text = window.item(decoder)
        try:
            yield location, decoder.checked(value, text)
        except BadRow as bad:
            refuse(location, bad)
        if (sign := window.next_sign()) not in (",", "]", ""):
            raise UserError(f"{window.location()}: a comma is missing in an array before {show(sign)}.")
        if sign == ",":
            window.at += 1
            if (sign := window.next_sign()) == "]":
                raise UserError(f"{window.location()}: an array ends after a comma; an object is missing.")
    if not sign:
        raise UserError(f"{shown}: the array at its start has no end; the file was cut off.")
    window.at += 1
    if window.next_sign():
        raise UserError(f"{window.location()}: text stands behind the end of the array; a file holds one array.")

"""A study file as YAML 1.2: one mapping of names to text, numbers, lists and mappings, read without surprises.

Plain words are text, apart from null, true, false and numbers (YAML 1.2's core schema: yes, no and dates are text).
Values may be shared by anchors and merge keys, as long as they stay few; tags have no place in a study.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from studykit.errors import UserError, show

CONSTANTS = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
INFINITE = re.compile(r"([-+]?)\.(inf|Inf|nan|NaN)")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
MAX_DEPTH = 20  # mappings and lists inside each other
MAX_VALUES = 10_000  # values of a whole file, shared ones counted where they are used
RULES = (
    "a study file must be one mapping of names, each once, to text, numbers, lists or mappings, and text with braces "
    "must be in quotes"
)


def read_yaml(file: str | os.PathLike, home: Path) -> Any:
    """Returns the value in a YAML file. Raises UserError with the line for anything that is not a plain value."""
    path = home / file
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{file} is not a file; name a file like params/quickstart.yaml.")
        text = path.read_text(encoding="utf-8")
    except UserError:
        raise
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text in UTF-8; a study file is YAML.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{file} cannot be read ({reason}); name a file like params/quickstart.yaml.") from None
    try:
        _refuse_depth(text)
        node = YAML(typ="safe", pure=True).compose(text)
        return None if node is None else _Values(text).value(node)
    except RecursionError:
        raise UserError(f"{file}: it nests lists or mappings too deeply; a list may hold words or numbers.") from None
    except YAMLError as error:
        raise UserError(f"{file}: {_problem(error, text)}.") from None
    except _Unusable as error:
        raise UserError(f"{file}: {error}.") from None


def write_yaml(value: dict[str, Any]) -> str:
    """Returns a mapping as YAML, lists in one line, sections apart."""
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += ["", f"{key}:", *(f"  {name}: {_flow(part)}" for name, part in item.items())]
        else:
            lines.append(f"{key}: {_flow(item)}")
    return "\n".join(lines) + "\n"


class _Unusable(Exception):
    """A sentence about a value that has no place in a study file."""


def _refuse_depth(text: str) -> None:
    """Raises RecursionError for nesting beyond that of any study, before a tree is made of it."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > MAX_DEPTH:
            raise RecursionError


class _Values:
    """The values of the nodes of one file."""

    def __init__(self, text: str):
        self.lines, self.count = text.splitlines(), 0

    def value(self, node: Node, depth: int = 0) -> Any:
        """Returns the value of a node. Raises _Unusable with its line for one that a study cannot hold."""
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            raise RecursionError
        if str(node.tag).startswith("!"):
            raise _unusable(node.start_mark.line, "it has a tag", self.lines)
        if isinstance(node, SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, MappingNode):
            return self._mapping(node, depth)
        assert isinstance(node, ScalarNode)
        return _scalar(node)

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                source = show(key.start_mark.buffer[key.start_mark.pointer : key.end_mark.pointer])
                raise _unusable(key.start_mark.line, f"the key {source} is not a name", self.lines)
            value = self.value(item, depth + 1)
            parts = value if isinstance(value, list) else [value]
            if key.value == "<<" and key.style is None and all(isinstance(part, dict) for part in parts):
                for part in parts:
                    merged = part | merged
                continue
            name = key.value if key.style is None else _scalar(key)
            if name in mapping:
                raise _unusable(key.start_mark.line, f"the key {show(name)} is given twice", self.lines)
            mapping[name] = value
        return merged | mapping


def _unusable(line: int, problem: str, lines: list[str]) -> _Unusable:
    return _Unusable(f"line {line + 1} is {show(lines[line].strip())}: {problem}; {RULES}")


def _scalar(node: ScalarNode) -> Any:
    """A scalar by the core schema; quoted and block scalars are text."""
    text: str = node.value
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Unusable(
            f"line {node.start_mark.line + 1} holds half of a surrogate pair; write the character itself"
        ) from None
    if CONTROL.search(text):
        raise _Unusable(f"line {node.start_mark.line + 1} holds a control character; text may hold line ends and tabs")
    if node.style is not None:
        return text
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text) and not text.lstrip("+-").isdigit():
        return float(text)
    if named := INFINITE.fullmatch(text):
        return float(named[1] + named[2])
    return text


def _problem(error: YAMLError, text: str) -> str:
    """Returns what makes `text` invalid YAML, and in which line."""
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: this is not YAML: it holds the control character {chr(error.character)!r}"
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f"this is not YAML: {' '.join(str(error).split())}"
    line, problem = error.problem_mark.line, (error.problem or "").removeprefix("but ")
    if isinstance(error, ComposerError):
        return str(_unusable(line, problem, text.splitlines()))
    return f"line {line + 1}: this is not YAML: {problem}"


def _flow(value: Any) -> str:
    """A value in one line, so that it is read back as it is."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flow(key)}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        is_plain = re.fullmatch(r"[A-Za-z_][\w./+#-]*( [\w./+-]+)*", value) and value not in CONSTANTS
        return value if is_plain else _quoted(value)
    if isinstance(value, float) and math.isfinite(value) and "e" in repr(value):
        mantissa, exponent = repr(value).split("e")
        return f"{mantissa}e{int(exponent)}"
    return show(value) if value is None or isinstance(value, bool) else repr(value)


def _quoted(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'

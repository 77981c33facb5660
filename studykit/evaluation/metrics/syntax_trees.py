"""Programs as trees: what CodeBLEU and the share of parsable programs look at.

Each language has a tree-sitter grammar in a wheel of its own. Their versions change scores slightly, so `version` is
part of every signature. Comments, and Python's docstrings, are no part of a tree, as in Ren et al. 2020. Trees are
read and walked without recursion: model output may be nested thousands of levels deep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib import metadata as packages

from tree_sitter import Language, Parser, TreeCursor

MODULES = {
    "c": "tree_sitter_c",
    "c#": "tree_sitter_c_sharp",
    "c++": "tree_sitter_cpp",
    "go": "tree_sitter_go",
    "java": "tree_sitter_java",
    "javascript": "tree_sitter_javascript",
    "julia": "tree_sitter_julia",
    "kotlin": "tree_sitter_kotlin",
    "lua": "tree_sitter_lua",
    "php": "tree_sitter_php",
    "python": "tree_sitter_python",
    "ruby": "tree_sitter_ruby",
    "rust": "tree_sitter_rust",
    "scala": "tree_sitter_scala",
    "swift": "tree_sitter_swift",
}
ATOMS = {"string_literal", "string", "character_literal"}  # one token of the data flow, whatever is inside
# Nodes that Go's grammar did not have when CodeBLEU was published: they are no variables, and no level of the tree.
SILENT = {"interpreted_string_literal_content", "raw_string_literal_content"}
FLAT = {"statement_list"}


class Node:
    """One node: kind and field name of the grammar, children without comments, place in `Program.nodes`.

    The node's descendants are nodes[place + 1 : end]. text: of a token, else "". token: has no children or is an atom.
    variable: a token that stands for something (a name, a literal), not a keyword or a sign.
    """

    __slots__ = ("kind", "field", "named", "children", "place", "end", "text", "token", "variable")

    def __init__(self, kind: str, field: str | None, named: bool, place: int):
        self.kind, self.field, self.named, self.place = kind, field, named, place
        self.children: Sequence[Node] = ()
        self.end, self.text, self.token, self.variable = place + 1, "", False, False

    def part(self, name: str | int) -> Node | None:
        """The child in a field of the grammar, or the named child at an index."""
        if isinstance(name, int):
            named = [child for child in self.children if child.named]
            return named[name] if len(named) > abs(name) else None
        return next((child for child in self.children if child.field == name), None)


@dataclass(frozen=True)
class Program:
    """nodes: the tree in preorder, the root first; parsed: there is text, and no ERROR and no MISSING node."""

    nodes: list[Node]
    parsed: bool


def version(language: str) -> str:
    """Grammar and parser with their versions, e.g. "tree-sitter-go-0.25.0+tree-sitter-0.26.1"."""
    return "+".join(f"{name}-{packages.version(name)}" for name in (MODULES[language].replace("_", "-"), "tree-sitter"))


def parse(text: str, language: str) -> Program:
    """The tree of `text`, which may be no program of `language` (canonical name) at all."""
    source = text.encode("utf-8", errors="replace")  # a lone surrogate becomes "?"
    tree = _parser(language, language == "php" and "<?" not in text).parse(source)
    return Program(_read(tree.walk(), source, language), bool(text.strip()) and not tree.root_node.has_error)


@cache
def _parser(language: str, bare: bool) -> Parser:
    """bare: PHP without an opening tag, which the grammar would else take for plain text."""
    module = import_module(MODULES[language])
    if language == "php":
        return Parser(Language(module.language_php_only() if bare else module.language_php()))
    return Parser(Language(module.language()))


def _read(cursor: TreeCursor, source: bytes, language: str) -> list[Node]:
    """The nodes under `cursor` in preorder."""
    nodes: list[Node] = []
    above: list[Node] = []
    within = 0  # up to this place nodes are inside an atom
    while True:
        seen = cursor.node
        kind = seen.type
        kept = not (kind.endswith("comment") or language == "python" and _is_docstring(seen))
        descended = False
        if kind in FLAT and above:
            above.append(above[-1])  # its children become its parent's
            if cursor.goto_first_child():
                continue
            above.pop()
        elif kept:
            node = Node(kind, cursor.field_name, seen.is_named, len(nodes))
            nodes.append(node)
            if above:
                above[-1].children.append(node)
            atom = kind in ATOMS
            descended = cursor.goto_first_child()
            if descended:
                node.children = []
            if (atom or not descended) and within == 0:
                node.token = True
                node.text = source[seen.start_byte : seen.end_byte].decode("utf-8", errors="replace")
                node.variable = node.text not in ("", kind) and kind not in SILENT
            if seen.is_missing:
                node.kind, node.named = f"MISSING {kind}", True  # error recovery put it in; it makes a shape differ
        if descended:
            within += within > 0 or atom
            above.append(node)
            continue
        while not cursor.goto_next_sibling():
            if not above:
                return nodes
            cursor.goto_parent()
            above.pop().end = len(nodes)
            within -= within > 0


def _is_docstring(node) -> bool:
    """A statement that is nothing but a string."""
    return node.type == "expression_statement" and node.child_count == 1 and node.child(0).type == "string"

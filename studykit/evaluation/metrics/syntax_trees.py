"""Syntax trees of programs, for CodeBLEU and for the share of programs that parse.

Each language has a tree-sitter grammar in a wheel of its own. The versions of the grammars change scores slightly, so
`version` is part of every signature. As in Ren et al. 2020, comments and Python's docstrings are left out of a tree.
Trees are read and walked without recursion, because the output of a model may be nested thousands of levels deep.

    tree = parse("x = f(1)", "python")
    [node.kind for node in tree.nodes], tree.parsed
"""

from __future__ import annotations

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
ATOMS = {"string_literal", "string", "character_literal"}  # each is one token of the data flow, with all of its parts
# Nodes that Go's grammar did not have when CodeBLEU was published: they are neither variables nor levels of the tree.
SILENT = {"interpreted_string_literal_content", "raw_string_literal_content"}
FLAT = {"statement_list"}


class Node:
    """One node of a syntax tree; its descendants are `SyntaxTree.nodes[index + 1 : end]`.

    kind, field: its names in the grammar. named: whether it is more than punctuation or a keyword. children: without
    comments. index: its own position in `SyntaxTree.nodes`. token: whether it has no children or is an atom.
    text: of a token, otherwise "". variable: whether it is a token with a meaning, a name or a literal.
    """

    __slots__ = ("kind", "field", "named", "children", "index", "end", "text", "token", "variable")

    def __init__(self, kind: str, field: str | None, named: bool, index: int):
        self.kind, self.field, self.named, self.index = kind, field, named, index
        self.children: list[Node] = []
        self.end, self.text, self.token, self.variable = index + 1, "", False, False

    def part(self, name: str | int) -> Node | None:
        """Returns the child in a field of the grammar, or the named child at an index; None if there is none."""
        if isinstance(name, int):
            named = [child for child in self.children if child.named]
            return named[name] if len(named) > abs(name) else None
        return next((child for child in self.children if child.field == name), None)


@dataclass(frozen=True)
class SyntaxTree:
    """A program as the grammar reads it."""

    nodes: list[Node]  # in preorder, the root first
    parsed: bool  # whether there is text, and neither an ERROR nor a MISSING node


def version(language: str) -> str:
    """Returns the names of grammar and parser with their versions, e.g. "tree-sitter-go-0.25.0+tree-sitter-0.26.1"."""
    return "+".join(f"{name}-{packages.version(name)}" for name in (MODULES[language].replace("_", "-"), "tree-sitter"))


def parse(text: str, language: str) -> SyntaxTree:
    """Returns the tree of any text, whether or not it is a program of `language` (canonical name)."""
    source = text.encode("utf-8", errors="replace")  # a lone surrogate becomes "?"
    tree = _parser(language, language == "php" and "<?" not in text).parse(source)
    return SyntaxTree(_read(tree.walk(), source, language), bool(text.strip()) and not tree.root_node.has_error)


@cache
def _parser(language: str, bare: bool) -> Parser:
    """bare: the text is PHP without an opening tag, which the grammar would otherwise take for plain text."""
    module = import_module(MODULES[language])
    if language == "php":
        return Parser(Language(module.language_php_only() if bare else module.language_php()))
    return Parser(Language(module.language()))


def _read(cursor: TreeCursor, source: bytes, language: str) -> list[Node]:
    """Returns the nodes under `cursor` in preorder."""
    nodes: list[Node] = []
    above: list[Node] = []
    within = 0  # levels below the outermost atom; 0 outside of atoms
    while True:
        current = cursor.node
        assert current is not None  # the cursor is inside of the tree
        kind = current.type
        included = not (kind.endswith("comment") or language == "python" and _is_docstring(current))
        descended = False
        if kind in FLAT and above:
            above.append(above[-1])  # its children become its parent's
            if cursor.goto_first_child():
                continue
            above.pop()
        elif included:
            node = Node(kind, cursor.field_name, current.is_named, len(nodes))
            nodes.append(node)
            if above:
                above[-1].children.append(node)
            atom = kind in ATOMS
            descended = cursor.goto_first_child()
            if (atom or not descended) and within == 0:
                node.token = True
                node.text = source[current.start_byte : current.end_byte].decode("utf-8", errors="replace")
                node.variable = node.text not in ("", kind) and kind not in SILENT
            if current.is_missing:  # error recovery has inserted it; it makes a shape differ
                node.kind, node.named = f"MISSING {kind}", True
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
    """Returns whether a node is a statement that consists of a string."""
    return node.type == "expression_statement" and node.child_count == 1 and node.child(0).type == "string"

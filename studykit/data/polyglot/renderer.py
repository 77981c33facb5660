"""Rendering that all languages share: blocks, statements, operators with their precedence, names.

A language (see `renderers`) is mostly a table of patterns over this base.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from studykit.data.polyglot.syntax import (
    ONE,
    Append,
    Bin,
    Cmp,
    Empty,
    Expr,
    Fn,
    Fold,
    For,
    Function,
    If,
    Increase,
    Let,
    Num,
    Range,
    Return,
    Stmt,
    Str,
    Var,
    as_loop,
)

CAMEL_CASE = ("javascript", "go")
ATOM = 9  # binds tighter than every operator


@lru_cache(maxsize=4096)
def function_name(language: str, name: str) -> str:
    """Returns a snake_case name as the language spells it: camelCase in JavaScript and Go, unchanged elsewhere."""
    if language not in CAMEL_CASE or "_" not in name:
        return name
    head, *tail = name.split("_")
    return head + "".join(word.title() for word in tail)


class Renderer:
    """Rendering shared by all languages. An instance renders one program."""

    language: str
    comment = "//"
    indent = "    "
    head: str  # function name, parameters
    end: str | None = "}"
    if_ = "if (%s) {"
    for_list: str  # variable, list
    for_range: str  # variable, stop
    return_ = "return %s"
    let = "%s = %s"
    var = "%s = %s"
    assign = "%s = %s"
    compound: str | None = "%s += %s"
    increment: str | None = None
    append: str  # list, value
    empty = "[]"
    infix = {
        "==": ("==", 3),
        "!=": ("!=", 3),
        "<": ("<", 3),
        ">": (">", 3),
        "<=": ("<=", 3),
        ">=": (">=", 3),
        "+": ("+", 5),
        "-": ("-", 5),
        "concat": ("+", 5),
        "*": ("*", 6),
        "%": ("%", 6),
    }
    calls = {"max": "max(%s, %s)", "min": "min(%s, %s)"}

    def __init__(self) -> None:
        self.inlined: dict[str, str] = {}

    def function(self, function: Function) -> str:
        """Returns the source of a function, without a trailing newline."""
        lines = [self.signature(function), *self.block(function.body, self.indent, tail=True)]
        return "\n".join(lines if self.end is None else [*lines, self.end])

    def signature(self, function: Function) -> str:
        return self.head % (self.name(function.name), ", ".join(self.name(name) for name, _ in function.params))

    def name(self, name: str) -> str:
        return function_name(self.language, name) if "_" in name else name

    def block(self, body: Sequence[Stmt], pad: str, tail: bool = False) -> list[str]:
        """Lines of a block; `tail` says that its last statement ends the function."""
        lines: list[str] = []
        for position, stmt in enumerate(body):
            last = tail and position + 1 == len(body)
            if isinstance(stmt, Return):
                lines.append(pad + self.returned(self.expr(stmt.value), last))
            elif isinstance(stmt, If):
                lines += self.branch(stmt, pad, last)
            elif isinstance(stmt, Let):
                pattern = self.var if stmt.mutable else self.let
                lines.append(pad + pattern % (self.name(stmt.name), self.expr(stmt.value)))
            elif isinstance(stmt, Increase):
                lines.append(pad + self.increased(stmt))
            elif isinstance(stmt, Append):
                lines.append(pad + self.appended(self.name(stmt.name), stmt.value))
            elif isinstance(stmt, For):
                lines += self.loop(stmt, pad)
            else:
                text = self.fold(stmt)
                if text is None:
                    lines += self.block(as_loop(stmt), pad)
                else:  # it is used once, in the statement that follows
                    self.inlined[stmt.name] = text
        return lines

    def returned(self, text: str, last: bool) -> str:
        return self.return_ % text

    def branch(self, stmt: If, pad: str, last: bool) -> list[str]:
        lines = [pad + self.if_ % self.expr(stmt.test), *self.block(stmt.then, pad + self.indent)]
        return lines if self.end is None else [*lines, pad + self.end]

    def loop(self, stmt: For, pad: str) -> list[str]:
        if type(stmt.over) is Range:
            head = self.for_range % (stmt.var, self.expr(stmt.over.stop))
        else:
            head = self.for_list % (stmt.var, self.expr(stmt.over))
        lines = [pad + head, *self.block(stmt.body, pad + self.indent)]
        return lines if self.end is None else [*lines, pad + self.end]

    def appended(self, name: str, value: Expr) -> str:
        return self.append % (name, self.expr(value))

    def increased(self, stmt: Increase) -> str:
        name = self.name(stmt.name)
        if self.increment and stmt.value == ONE:
            return self.increment % name
        if self.compound:
            return self.compound % (name, self.expr(stmt.value))
        symbol, binding = self.infix["+"]  # associative: no parentheses around `x + 1` in `total + x + 1`
        return self.assign % (name, f"{name} {symbol} {self.expr(stmt.value, binding)}")

    def fold(self, fold: Fold) -> str | None:
        """Returns the fold as an expression that binds like a call, or None where the language's idiom is a loop."""
        return None

    def expr(self, expr, outer: int = 0) -> str:
        """Returns the source of an expression, in parentheses when it binds looser than `outer`."""
        kind = type(expr)
        if kind is Var:
            name = expr.name
            return self.inlined.get(name) or (self.name(name) if "_" in name else name)
        if kind is Num:
            return str(expr.value)
        if kind is Bin or kind is Cmp:
            infix = self.infix.get(expr.op)
            if infix is None:
                return self.call(self.calls[expr.op], expr.left, expr.right)
            symbol, binding = infix
            text = f"{self.expr(expr.left, binding + (kind is Cmp))} {symbol} {self.expr(expr.right, binding + 1)}"
            return f"({text})" if binding < outer else text
        if kind is Fn:
            return self.call(self.calls[expr.op], expr.arg)
        if kind is Str:
            return f'"{expr.value}"'
        if kind is Empty:
            return self.empty
        raise TypeError(f"not an expression: {expr!r}")

    def call(self, pattern: str, *args) -> str:
        """Returns a built-in; an argument in front of a dot, an index or `#` needs parentheses unless atomic."""
        receiver = self.expr(args[0], ATOM if pattern[0] in "%#" else 0)
        if pattern.count("%s") > len(args):
            return pattern % (receiver, receiver)
        return pattern % (receiver, *(self.expr(arg) for arg in args[1:]))

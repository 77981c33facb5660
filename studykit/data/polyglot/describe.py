"""A program in words, complete enough to write the code from.

Every operand that is itself an operation stands in parentheses, loop bounds are inclusive (`1..b`), and parameters are
named in order; a list or string parameter says so, all others are ints. A function that has no name in the text is
called `solve`, and "first" is short for "first of xs" where a function has one list or string.
"""

from __future__ import annotations

from collections.abc import Sequence

from studykit.data.polyglot.syntax import Bin, Cmp, Expr, Fn, Fold, Function, If, Num, Range, Return, Stmt, Str, Var

DEFAULT_NAME = "solve"
WORDING = {
    "+": "{0} plus {1}",
    "-": "{0} minus {1}",
    "*": "{0} times {1}",
    "%": "{0} mod {1}",
    "max": "max of {0} and {1}",
    "min": "min of {0} and {1}",
    "concat": "{0} followed by {1}",
    "repeat": "{0} repeated {1} times",
    ">": "{0} is over {1}",
    "<": "{0} is under {1}",
    ">=": "{0} is at least {1}",
    "<=": "{0} is at most {1}",
    "==": "{0} equals {1}",
    "!=": "{0} is not {1}",
    "divides": "{0} is divisible by {1}",
    "not divides": "{0} is not divisible by {1}",
    "len": "length of {0}",
    "first": "first of {0}",
    "last": "last of {0}",
    "upper": "upper of {0}",
    "len of the only": "length",
    "first of the only": "first",
    "last of the only": "last",
    "sum": "sum of {0} for {1}",
    "count": "count of {1}",
    "list": "list of {0} for {1}",
    "items": "{0} in {1}",
    "range": "1..{0}",
    "where": "{0} where {1}",
    "return": "return {0}",
    "guard": "if {0} {1}, otherwise {2}",
    "guard value": "if {0} return {1}, otherwise {2}",
    "given": "given {0}: {1}",
    "named": "{2} given {0}: {1}",
}
TYPE_WORDS = {"int": "", "list": "list ", "string": "string "}


class Description:
    """Words for the parts of one function."""

    def __init__(self, function: Function):
        collections = [name for name, kind in function.params if kind != "int"]
        self.only_collection = Var(collections[0]) if len(collections) == 1 else None

    def function(self, function: Function) -> str:
        """Describes the whole function; its name is left out where it is the default one."""
        params = ", ".join(TYPE_WORDS[kind] + name for name, kind in function.params)
        pattern = WORDING["given" if function.name == DEFAULT_NAME else "named"]
        return pattern.format(params, self.block(function.body), function.name)

    def block(self, body: Sequence[Stmt]) -> str:
        """Describes the statements of a body."""
        match body:
            case [If(test, [Return(value)]), Return(otherwise)]:
                return WORDING["guard value"].format(self.test(test), self.expr(value), self.expr(otherwise))
            case [If(test, then), *rest]:
                return WORDING["guard"].format(self.test(test), self.block(then), self.block(rest))
            case [Fold() as fold, Return(value)]:
                return WORDING["return"].format(self.expr(value, fold))
            case [Return(value)]:
                return WORDING["return"].format(self.expr(value))
        raise TypeError(f"not a body: {body!r}")

    def fold(self, fold: Fold) -> str:
        """Describes a sum, count or list."""
        over = WORDING["range"].format(fold.over.stop.name) if isinstance(fold.over, Range) else fold.over.name
        items = WORDING["items"].format(fold.var, over)
        if fold.where:
            items = WORDING["where"].format(items, self.test(fold.where))
        return WORDING[fold.kind].format(self.expr(fold.value), items)

    def test(self, test: Cmp) -> str:
        """Describes a comparison."""
        left, right = test.left, test.right
        if type(left) is Bin and left.op == "%" and right == Num(0) and test.op in ("==", "!="):
            pattern = WORDING["divides" if test.op == "==" else "not divides"]
            return pattern.format(self.operand(left.left), self.operand(left.right))
        return WORDING[test.op].format(self.operand(left), self.operand(right))

    def operand(self, expr: Expr, fold: Fold | None = None) -> str:
        """Describes an expression, in parentheses if it is an operation."""
        text = self.expr(expr, fold)
        match expr:
            case Bin():
                compound = True
            case Fn(op):
                compound = op == "upper"
            case Var(name):
                compound = text != name
            case _:
                compound = False
        return f"({text})" if compound else text

    def expr(self, expr: Expr, fold: Fold | None = None) -> str:
        """Describes an expression; the variable of `fold` reads as what it holds."""
        match expr:
            case Var(name):
                return self.fold(fold) if fold and fold.name == name else name
            case Num(value):
                return str(value)
            case Str(value):
                return f'"{value}"'
            case Bin(op, left, right):
                return WORDING[op].format(self.operand(left, fold), self.operand(right, fold))
            case Fn("len" | "first" | "last" as op, arg) if arg == self.only_collection:
                return WORDING[f"{op} of the only"]
            case Fn(op, arg):
                return WORDING[op].format(self.operand(arg, fold))
        raise TypeError(f"not an expression: {expr!r}")


def describe(function: Function) -> str:
    """Returns the program in words."""
    return Description(function).function(function)

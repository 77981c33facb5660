"""A program in words, complete enough to write the code from.

`plain` has one fixed wording. `task` draws synonyms, writes small constants as number words and reorders clauses. In
both, every operand that is itself an operation stands in parentheses, loop bounds are inclusive (`1..b`), and
parameters are named in order; a list or string parameter says so, all others are ints. A function that has no name in
the text is called `solve`, and "first" is short for "first of xs" where a function has one list or string.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from studykit.data.polyglot.syntax import (
    Append,
    Bin,
    Call,
    Cmp,
    Empty,
    Expr,
    Fn,
    Fold,
    For,
    Function,
    If,
    Let,
    Logic,
    Num,
    Range,
    Return,
    Stmt,
    Str,
    Update,
    Var,
)
from studykit.errors import UserError

STYLES = ("plain", "task")
DEFAULT_NAME = "solve"
NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()

# The first wording is the plain one.
WORDINGS = {
    "+": ("{0} plus {1}", "the sum of {0} and {1}", "{0} increased by {1}"),
    "-": ("{0} minus {1}", "{1} subtracted from {0}", "{0} reduced by {1}"),
    "*": ("{0} times {1}", "the product of {0} and {1}", "{0} multiplied by {1}"),
    "%": ("{0} mod {1}", "the remainder of {0} divided by {1}"),
    "max": ("max of {0} and {1}", "the larger of {0} and {1}", "the maximum of {0} and {1}"),
    "min": ("min of {0} and {1}", "the smaller of {0} and {1}", "the minimum of {0} and {1}"),
    "concat": ("{0} followed by {1}", "{0} joined with {1}", "{0} with {1} appended"),
    "repeat": ("{0} repeated {1} times", "{1} copies of {0}"),
    ">": ("{0} is over {1}", "{0} exceeds {1}", "{0} is greater than {1}", "{0} is more than {1}"),
    "<": ("{0} is under {1}", "{0} is less than {1}", "{0} is smaller than {1}", "{0} is below {1}"),
    ">=": ("{0} is at least {1}", "{0} is greater than or equal to {1}", "{0} is no less than {1}"),
    "<=": ("{0} is at most {1}", "{0} is less than or equal to {1}", "{0} is no more than {1}"),
    "==": ("{0} equals {1}", "{0} is equal to {1}", "{0} is the same as {1}"),
    "!=": ("{0} is not {1}", "{0} differs from {1}", "{0} is not equal to {1}"),
    "divides": ("{0} is divisible by {1}", "{0} is a multiple of {1}", "{1} divides {0}"),
    "not divides": ("{0} is not divisible by {1}", "{0} is not a multiple of {1}"),
    "and": ("{0} and {1}", "both {0} and {1}"),
    "or": ("{0} or {1}", "either {0} or {1}"),
    "len": ("length of {0}", "the length of {0}", "the size of {0}"),
    "first": ("first of {0}", "the first element of {0}", "the first item of {0}"),
    "last": ("last of {0}", "the last element of {0}", "the final item of {0}"),
    "upper": ("upper of {0}", "{0} in upper case", "{0} in capitals"),
    "own len": ("length", "the length", "the size"),
    "own first": ("first", "the first element", "the first item"),
    "own last": ("last", "the last element", "the final item"),
    "sum": ("sum of {0} for {1}", "the total of {0} for {1}", "{0} added up for {1}"),
    "count": ("count of {1}", "the number of {1}", "the count of {1}"),
    "list": ("list of {0} for {1}", "the list of {0} for {1}", "{0} collected for {1}"),
    "fold max": ("largest of {2}", "the largest element of {2}", "the maximum of {2}"),
    "fold min": ("smallest of {2}", "the smallest element of {2}", "the minimum of {2}"),
    "items": ("{0} in {1}", "every {0} in {1}", "each {0} in {1}"),
    "range": ("1..{0}", "1 to {0}", "1 through {0}"),
    "where": ("{0} where {1}", "{0} such that {1}", "{0} for which {1}"),
    "return": ("return {0}", "give {0}", "output {0}", "compute {0}"),
    "guard": ("if {0} {1}, otherwise {2}", "when {0}, {1}, else {2}", "in case {0}, {1}, and if not, {2}"),
    "guard value": ("if {0} return {1}, otherwise {2}", "when {0} give {1}, else {2}", "give {2}, but {1} if {0}",
                    "give {1} if {0} and {2} if not"),
    "if": ("if {0}: {1}", "when {0}: {1}"),
    "else": ("if {0}: {1}, otherwise {2}", "when {0}: {1}, else {2}"),
    "let": ("let {0} be {1}", "set {0} to {1}", "let {0} stand for {1}"),
    "for": ("for {0}: {1}", "go over {0}: {1}", "loop over {0}: {1}"),
    "+=": ("add {1} to {0}", "increase {0} by {1}"),
    "-=": ("subtract {1} from {0}", "decrease {0} by {1}"),
    "*=": ("multiply {0} by {1}", "scale {0} by {1}"),
    "max=": ("raise {0} to at least {1}", "replace {0} with the larger of {0} and {1}"),
    "min=": ("lower {0} to at most {1}", "replace {0} with the smaller of {0} and {1}"),
    "concat=": ("append {1} to {0}", "put {1} at the end of {0}"),
    "append": ("append {1} to {0}", "put {1} at the end of {0}"),
    "then": ("{0}; {1}", "{0}; then {1}"),
    "after": ("{0}; finally {1}", "{0}; after the loop, {1}", "{0}; at the end, {1}"),
    "given": ("given {0}: {1}", "from {0}, {1}", "for inputs {0}: {1}", "{1}; inputs: {0}"),
    "named": ("{2} given {0}: {1}", "function {2} of {0}: {1}", "define {2} with {0}: {1}"),
}  # fmt: skip
TYPE_WORDS = {"int": "", "list": "list ", "string": "string "}


class Wording:
    """One pass over one function; `rng` is None for the plain style."""

    def __init__(self, function: Function, rng: random.Random | None):
        self.rng = rng
        collections = [name for name, kind in function.params if kind != "int"]
        self.own = Var(collections[0]) if len(collections) == 1 else None

    def say(self, what: str, *parts: str) -> str:
        options = WORDINGS[what]
        option = options[0] if self.rng is None else options[int(self.rng.random() * len(options))]
        return option.format(*parts)

    def function(self, function: Function, named: bool) -> str:
        params = ", ".join(TYPE_WORDS[kind] + name for name, kind in function.params)
        return self.say("named" if named else "given", params, self.block(function.body), function.name)

    def block(self, body: Sequence[Stmt]) -> str:
        match body:
            case [If(test, [Return(value)]), Return(otherwise)]:
                return self.say("guard value", self.test(test), self.expr(value), self.expr(otherwise))
            case [If(test, [Return()] as then), *rest] if rest:
                return self.say("guard", self.test(test), self.block(then), self.block(rest))
            case [Fold() as fold, Return(value)]:
                return self.say("return", self.expr(value, fold))
            case [first, *rest] if rest:
                return self.say("after" if type(first) is For else "then", self.stmt(first), self.block(rest))
        return self.stmt(body[0])

    def stmt(self, stmt: Stmt) -> str:
        match stmt:
            case Return(value):
                return self.say("return", self.expr(value))
            case Let(name, value):
                return self.say("let", name, self.expr(value))
            case Fold(name):
                return self.say("let", name, self.fold(stmt))
            case Update(name, op, value):
                return self.say(op + "=", name, self.operand(value))
            case Append(name, value):
                return self.say("append", name, self.operand(value))
            case For(var, over, body):
                return self.say("for", self.say("items", var, self.over(over)), self.block(body))
            case If(test, then, ()):
                return self.say("if", self.test(test), self.block(then))
            case If(test, then, orelse):
                return self.say("else", self.test(test), self.block(then), self.block(orelse))
        raise TypeError(f"not a statement: {stmt!r}")

    def fold(self, fold: Fold) -> str:
        over = self.over(fold.over)
        if fold.kind in ("max", "min"):
            return self.say("fold " + fold.kind, "", "", over)
        items = self.say("items", fold.var, over)
        if fold.where:
            items = self.say("where", items, self.test(fold.where))
        return self.say(fold.kind, self.expr(fold.value), items)

    def over(self, over: Var | Range) -> str:
        return self.say("range", self.operand(over.stop)) if type(over) is Range else over.name

    def test(self, test: Cmp | Logic) -> str:
        if type(test) is Logic:
            return self.say(test.op, self.test(test.left), self.test(test.right))
        left, right = test.left, test.right
        if type(left) is Bin and left.op == "%" and right == Num(0) and test.op in ("==", "!="):
            what = "divides" if test.op == "==" else "not divides"
            return self.say(what, self.operand(left.left), self.operand(left.right))
        return self.say(test.op, self.operand(left), self.operand(right))

    def operand(self, expr: Expr, fold: Fold | None = None) -> str:
        kind, text = type(expr), self.expr(expr, fold)
        compound = kind is Bin or kind is Fn and expr.op == "upper" or kind is Var and text != expr.name
        return f"({text})" if compound else text

    def expr(self, expr: Expr, fold: Fold | None = None) -> str:
        """Words of an expression; the variable of `fold` reads as what it holds."""
        kind = type(expr)
        if kind is Var:
            return self.fold(fold) if fold and fold.name == expr.name else expr.name
        if kind is Num:
            value = expr.value
            return NUMBER_WORDS[value] if self.rng is not None and value < len(NUMBER_WORDS) else str(value)
        if kind is Bin:
            return self.say(expr.op, self.operand(expr.left, fold), self.operand(expr.right, fold))
        if kind is Fn:
            if expr.op != "upper" and expr.arg == self.own:
                return self.say("own " + expr.op)
            return self.say(expr.op, self.operand(expr.arg, fold))
        if kind is Str:
            return f'"{expr.value}"'
        if kind is Call:
            return f"{expr.name}({', '.join(self.expr(arg, fold) for arg in expr.args)})"
        if kind is Empty:
            return "an empty list"
        raise TypeError(f"not an expression: {expr!r}")


def describe(functions: Sequence[Function], style: str = "plain", seed: int | random.Random = 0) -> str:
    """The program in words. `seed` (an int or a generator to draw from) matters to the task style alone."""
    if style not in STYLES:
        raise UserError(f"description style {style!r} is not one of {', '.join(STYLES)}")
    rng = None if style == "plain" else seed if isinstance(seed, random.Random) else random.Random(seed)
    *helpers, main = functions
    parts = [Wording(helper, rng).function(helper, named=True) for helper in helpers]
    parts.append(Wording(main, rng).function(main, named=main.name != DEFAULT_NAME))
    return ". ".join(parts)

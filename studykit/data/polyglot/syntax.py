"""The typed syntax tree that all languages share, and its evaluator.

Three types exist: `int` (exact, |value| <= 2^53 so that doubles agree), `list` (of ints) and `string` (ASCII). Where
languages disagree (remainders of negatives, an empty list's first element, a negative repeat count, large integers) the
evaluator raises `Undefined`, so that no test ever depends on it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

LARGEST_INT = 2**53  # in magnitude


class Undefined(ValueError):
    """The value of this program at these arguments is not the same in every language."""


@dataclass(frozen=True, slots=True)
class Num:
    value: int


@dataclass(frozen=True, slots=True)
class Str:
    value: str


@dataclass(frozen=True, slots=True)
class Empty:
    """The empty list of ints."""


@dataclass(frozen=True, slots=True)
class Var:
    name: str


@dataclass(frozen=True, slots=True)
class Bin:
    """`op` is + - * % max min on ints, concat on strings, repeat on a string and an int."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Cmp:
    """`op` is == != < > <= >=; ints with any, strings with == and !=."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Fn:
    """A built-in of one argument: len (list or string), first, last (list), upper (string)."""

    op: str
    arg: Expr


@dataclass(frozen=True, slots=True)
class Range:
    """The ints 1, 2, ... stop, both ends included; empty when stop < 1."""

    stop: Var


@dataclass(frozen=True, slots=True)
class If:
    test: Cmp
    then: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """`name` = the sum, count or list (`kind`) of `value` for each `var` in `over` where `where` holds."""

    name: str
    kind: str
    var: str
    over: Var | Range
    value: Expr
    where: Cmp | None = None


@dataclass(frozen=True, slots=True)
class Return:
    value: Expr


@dataclass(frozen=True, slots=True)
class Let:
    """A new variable, which only the loop of a fold needs (see `as_loop`), as the next three."""

    name: str
    value: Expr
    mutable: bool = False


@dataclass(frozen=True, slots=True)
class Increase:
    """`name = name + value`."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Append:
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class For:
    var: str
    over: Var | Range
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """`params` are (name, type) pairs; types are int, list, string."""

    name: str
    params: tuple[tuple[str, str], ...]
    returns: str
    body: tuple[Stmt, ...]


Expr = Num | Str | Empty | Var | Bin | Fn
Stmt = If | Fold | Return | Let | Increase | Append | For
Node = Expr | Cmp | Range | Stmt | Function

ZERO, ONE = Num(0), Num(1)


def as_loop(fold: Fold) -> tuple[Stmt, ...]:
    """Returns a fold as a plain loop, for languages without an idiom for it."""
    start: Expr
    step: Stmt
    if fold.kind == "list":
        start, step = Empty(), Append(fold.name, fold.value)
    else:
        start, step = ZERO, Increase(fold.name, ONE if fold.kind == "count" else fold.value)
    body = (If(fold.where, (step,)),) if fold.where else (step,)
    return Let(fold.name, start, mutable=fold.kind != "list"), For(fold.var, fold.over, body)


def children(node: Node) -> Iterator[tuple[str, int | None, Node]]:
    """Yields the field, the position or None, and the node of every child, in reading order."""
    for name in node.__slots__:
        value = getattr(node, name)
        if hasattr(value, "__slots__"):
            yield name, None, value
        elif type(value) is tuple:
            yield from ((name, position, item) for position, item in enumerate(value) if hasattr(item, "__slots__"))


def walk(node: Node) -> Iterator[Node]:
    """Yields the node and everything below it, in reading order."""
    yield node
    for _, _, child in children(node):
        yield from walk(child)


COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
COMPUTE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "concat": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "repeat": operator.mul,
    "%": operator.mod,
    "max": max,
    "min": min,
}


class Evaluator:
    """Runs a function; `trace` collects (comparison, sign of left - right): branches taken and boundaries touched."""

    def __init__(self, function: Function):
        self.function = function
        self.trace: set[tuple[Cmp, int]] = set()

    def call(self, args: Sequence[Any]) -> Any:
        """Returns the function's value. Raises: Undefined where languages would differ."""
        env = {param: value for (param, _), value in zip(self.function.params, args, strict=True)}
        return self.block(self.function.body, env)

    def block(self, body: Sequence[Stmt], env: dict[str, Any]) -> Any:
        """Runs statements; returns the value of the first `Return`, or None without one."""
        for stmt in body:
            match stmt:
                case Return(value):
                    return self.expr(value, env)
                case Let(name, value):
                    env[name] = self.expr(value, env)
                case Increase(name, value):
                    env[name] = self.binary("+", env[name], self.expr(value, env))
                case Append(name, value):
                    env[name] = [*env[name], self.expr(value, env)]
                case If(test, then):
                    if self.expr(test, env):
                        result = self.block(then, env)
                        if result is not None:
                            return result
                case For(var, over, loop):
                    for item in self.expr(over, env):
                        env[var] = item
                        self.block(loop, env)
                case Fold():
                    self.block(as_loop(stmt), env)
        return None

    def expr(self, expr: Node, env: dict[str, Any]) -> Any:
        """Returns the value of an expression where the variables have the values of `env`."""
        match expr:
            case Num(value) | Str(value):
                return value
            case Empty():
                return []
            case Var(name):
                return env[name]
            case Bin(op, left, right):
                return self.binary(op, self.expr(left, env), self.expr(right, env))
            case Cmp(op, Bin("%", left, right), Num(0)):  # whether it is 0 does not depend on the sign
                rest = self.expr(left, env) % self.expr(right, env)
                self.trace.add((expr, int(rest > 0)))
                return COMPARE[op](rest, 0)
            case Cmp(op, left, right):
                a, b = self.expr(left, env), self.expr(right, env)
                self.trace.add((expr, (a > b) - (a < b)))
                return COMPARE[op](a, b)
            case Fn(op, arg):
                return self.builtin(op, self.expr(arg, env))
            case Range(stop):
                return range(1, self.expr(stop, env) + 1)
        raise TypeError(f"not an expression: {expr!r}")

    @staticmethod
    def binary(op: str, left: Any, right: Any) -> Any:
        """Returns the value of an operator. Raises: Undefined where languages would differ."""
        if op == "%" and (left < 0 or right < 1):
            raise Undefined("remainder of a negative")
        if op == "repeat" and right < 0:
            raise Undefined("negative repeat count")
        value = COMPUTE[op](left, right)
        if type(value) is int and abs(value) > LARGEST_INT:
            raise Undefined("beyond 2^53")
        return value

    @staticmethod
    def builtin(op: str, value: Any) -> Any:
        """Returns the value of a built-in function. Raises: Undefined where languages would differ."""
        if op == "len":
            return len(value)
        if op == "upper":
            return value.upper()
        if not value:
            raise Undefined(f"{op} of an empty list")
        return value[0] if op == "first" else value[-1]

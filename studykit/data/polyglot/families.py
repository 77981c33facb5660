"""The five families of programs that the sampler draws from, each a function of a random generator.

They are `arith`, `branch`, `ends`, `text` and `loop`. A family may return a degenerate program (an unused parameter,
equal branches), which the sampler throws away.
"""

from __future__ import annotations

import random

from studykit.data.polyglot.describe import DEFAULT_NAME
from studykit.data.polyglot.syntax import (
    ZERO,
    Bin,
    Cmp,
    Expr,
    Fn,
    Fold,
    Function,
    If,
    Num,
    Range,
    Return,
    Stmt,
    Str,
    Var,
)

NUMBERS = [Num(value) for value in range(21)]
WORDS = [Str(word) for word in ("a", "ab", "on", "ok", "-", "!", "x", "no", "up", "it")]
A, B, X, INDEX, XS, S = (Var(name) for name in ("a", "b", "x", "i", "xs", "s"))
TYPES = {"a": "int", "b": "int", "xs": "list", "s": "string"}
LENGTH, FIRST, LAST, TEXT_LENGTH = Fn("len", XS), Fn("first", XS), Fn("last", XS), Fn("len", S)
ORDER = (">", "<", ">=", "<=")
BOUNDS = {"*": (2, 10), "%": (2, 9), "repeat": (2, 5), "len": (2, 8)}  # no `* 1`, no `% 1`, no empty list's first


def solve(params: str, returns: str, *body: Stmt) -> Function:
    """Returns the function `solve` of parameters whose names tell their types."""
    return Function(DEFAULT_NAME, tuple((param, TYPES[param]) for param in params.split()), returns, body)


def guard(condition: Cmp, then: Expr, otherwise: Expr) -> tuple[Stmt, ...]:
    """Returns a body that returns one of two values."""
    return If(condition, (Return(then),)), Return(otherwise)


def pick(rng: random.Random, options):
    """Draws one of the options; a choice by `random()` is faster than `rng.choice`."""
    return options[int(rng.random() * len(options))]


def constant(rng: random.Random, op: str) -> Num:
    """Returns a constant that makes sense as the right operand of `op`, 20 at most."""
    low, high = BOUNDS.get(op, (1, 20))
    return NUMBERS[low + int(rng.random() * (high - low + 1))]


def operand(rng: random.Random, op: str, extra: list[Expr], share: float = 0.6) -> Expr:
    """Returns one of `extra`, or a constant for `op`."""
    return pick(rng, extra) if extra and rng.random() < share else constant(rng, op)


def test(rng: random.Random, subjects: list[Expr], others: list[Expr]) -> Cmp:
    """Returns a comparison of a subject with a constant, a divisibility, or a comparison with one of `others`."""
    subject, roll = pick(rng, subjects), rng.random()
    if roll < 0.2:
        return Cmp("==", Bin("%", subject, constant(rng, "%")), ZERO)
    others = [candidate for candidate in others if candidate != subject]
    sized = type(subject) is Fn and subject.op == "len"
    right = pick(rng, others) if others and roll < 0.5 else constant(rng, "len" if sized else "cmp")
    return Cmp("==" if rng.random() < 0.15 else pick(rng, ORDER), subject, right)


def simple(rng: random.Random, atoms: list[Expr]) -> Expr:
    """Returns an atom, a constant, or one operation on atoms and constants."""
    roll = rng.random()
    if roll < 0.15:
        return pick(rng, atoms)
    if roll < 0.25:
        return pick(rng, NUMBERS)
    op, left = pick(rng, "+-*"), pick(rng, atoms)
    if roll < 0.35 and op == "-":
        return Bin(op, constant(rng, op), left)
    others = [atom for atom in atoms if atom != left]
    return Bin(op, left, operand(rng, op, others, 0.4))


def chain(rng: random.Random, atoms: list[Expr]) -> Bin:
    """Returns two operations on all atoms (one or two) and constants: a chain on the left, or nested on the right."""
    first, second = pick(rng, "+-*"), pick(rng, ("+", "-", "*", "max", "min"))
    if rng.random() < 0.2:
        first, second = second, first
    if first == second != "-":  # (a + b) + c and a + (b + c) would be two structures with one meaning
        second = "-"
    if len(atoms) == 1:
        left, middle, right = atoms[0], None, pick(rng, (None, None, atoms[0]))
        first = "*" if right else first  # a - (a + 6) would be a constant
        second = "-" if right and second == "*" else second
    else:
        a, b = atoms if rng.random() < 0.5 else atoms[::-1]
        left, middle, right = (a, b, None) if rng.random() < 0.5 else (a, None, b)
    inner = Bin(first, left, middle or constant(rng, first))
    right = right or constant(rng, second)
    return Bin(second, right, inner) if rng.random() < 0.3 else Bin(second, inner, right)


def item_value(rng: random.Random, item: Expr, extra: list[Expr]) -> Bin:
    """Returns one operation on a loop's item."""
    op = pick(rng, "+-*")
    if rng.random() < 0.1:
        return Bin("*", item, item)
    right = operand(rng, op, extra)
    return Bin(op, right, item) if op == "-" and rng.random() < 0.3 else Bin(op, item, right)


def string(rng: random.Random, counts: list[Expr]) -> Expr:
    """Returns a value made of s: itself, upper case, a word, a repetition or a concatenation."""
    roll = rng.random()
    if roll < 0.1:
        return S
    if roll < 0.25:
        return Fn("upper", S)
    if roll < 0.3:
        return pick(rng, WORDS)
    if roll < 0.5:
        return Bin("repeat", S, operand(rng, "repeat", counts, 0.7))
    left, right = pick(rng, ((S, None), (None, S), (S, S), (S, None), (Fn("upper", S), None)))
    return Bin("concat", left or pick(rng, WORDS), right or pick(rng, WORDS))


def ints(rng: random.Random) -> tuple[str, list[Expr]]:
    """Returns one or two int parameters, and their variables."""
    return ("a b", [A, B]) if rng.random() < 0.75 else ("a", [A])


def listed(rng: random.Random) -> tuple[str, list[Expr]]:
    """Returns a list parameter and perhaps an int, and the variable of the int."""
    return ("xs a", [A]) if rng.random() < 0.4 else ("xs", [])


def texted(rng: random.Random) -> tuple[str, list[Expr]]:
    """Returns a string parameter and perhaps an int, and the variable of the int."""
    return ("s a", [A]) if rng.random() < 0.4 else ("s", [])


def arith(rng: random.Random) -> Function:
    """Returns two operations on ints."""
    params, atoms = ints(rng)
    return solve(params, "int", Return(chain(rng, atoms)))


def branch(rng: random.Random) -> Function:
    """Returns a branch on ints."""
    params, atoms = ints(rng)
    return solve(params, "int", *guard(test(rng, atoms, atoms), simple(rng, atoms), simple(rng, atoms)))


def ends(rng: random.Random) -> Function:
    """Returns a branch on a list's first, last and length."""
    params, extra = listed(rng)
    atoms = [LENGTH, FIRST, LAST, *extra]
    condition = test(rng, atoms[:3], atoms[2:])
    return solve(params, "int", *guard(condition, simple(rng, atoms), simple(rng, atoms)))


def text(rng: random.Random) -> Function:
    """Returns a branch on a string's length or value."""
    params, extra = texted(rng)
    subjects = [TEXT_LENGTH, *extra]
    condition = Cmp("==", S, pick(rng, WORDS)) if rng.random() < 0.15 else test(rng, subjects, subjects)
    return solve(params, "string", *guard(condition, string(rng, extra), string(rng, extra)))


def loop(rng: random.Random) -> Function:
    """Returns a sum, a count or a list over a list or over 1..a."""
    over: Var | Range
    extra: list[Expr]
    if rng.random() < 0.35:
        item, over = INDEX, Range(A)
        params, extra = ("a b", [B]) if rng.random() < 0.4 else ("a", [])
    else:
        item, over = X, XS
        params, extra = listed(rng)
    kind = pick(rng, ("sum", "sum", "count", "list", "list"))
    where = test(rng, [item], extra) if kind == "count" or rng.random() < 0.6 else None
    value = item if kind == "count" or (where and rng.random() < 0.3) else item_value(rng, item, extra)
    name = {"sum": "total", "count": "count", "list": "result"}[kind]
    result: Expr = Var(name)
    if kind != "list" and (where is None or value == item) and rng.random() < 0.4:
        op = pick(rng, "+-*")
        result = Bin(op, result, operand(rng, op, extra))
    fold = Fold(name, kind, item.name, over, value, where)
    return solve(params, "list" if kind == "list" else "int", fold, Return(result))

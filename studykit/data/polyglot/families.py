"""The families of programs that the grammar draws from, each a function of a random generator.

Level 1: `arith`, `branch`, `ends`, `text`, `loop`. Level 2 adds a second step: `steps`, `ladder`, `update`, `gate`,
`pipeline`, `weave`. Level 3 calls a helper: `helped_fold`, `helped_steps`, `helped_loop`. A family may return a
degenerate program (an unused parameter, equal branches); the grammar throws it away.
"""

from __future__ import annotations

import random

from studykit.data.polyglot.describe import DEFAULT_NAME
from studykit.data.polyglot.syntax import (
    ZERO,
    Bin,
    Call,
    Cmp,
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

NUMBERS = [Num(value) for value in range(21)]
WORDS = [Str(word) for word in ("a", "ab", "on", "ok", "-", "!", "x", "no", "up", "it")]
A, B, C, X, Y, INDEX, XS, S = (Var(name) for name in ("a", "b", "c", "x", "y", "i", "xs", "s"))
TYPES = {"a": "int", "b": "int", "x": "int", "y": "int", "xs": "list", "s": "string"}
LENGTH, FIRST, LAST, TEXT_LENGTH = Fn("len", XS), Fn("first", XS), Fn("last", XS), Fn("len", S)
ORDER = (">", "<", ">=", "<=")
BOUNDS = {"*": (2, 10), "%": (2, 9), "repeat": (2, 5), "len": (2, 8)}  # no `* 1`, no `% 1`, no empty list's first
HELPERS = ("score_item", "adjust_value", "apply_rule", "next_step")

Functions = tuple[Function, ...]


def solve(params: str, returns: str, *body: Stmt, name: str = DEFAULT_NAME) -> Function:
    return Function(name, tuple((param, TYPES[param]) for param in params.split()), returns, body)


def guard(condition: Cmp | Logic, then: Expr, otherwise: Expr) -> tuple[Stmt, ...]:
    return If(condition, (Return(then),)), Return(otherwise)


def pick(rng: random.Random, options):
    return options[int(rng.random() * len(options))]


def constant(rng: random.Random, op: str) -> Num:
    """A constant that makes sense as the right operand of `op`, 20 at most."""
    low, high = BOUNDS.get(op, (1, 20))
    return NUMBERS[low + int(rng.random() * (high - low + 1))]


def other(rng: random.Random, op: str, extra: list[Expr], share: float = 0.6) -> Expr:
    """One of `extra`, or a constant for `op`."""
    return pick(rng, extra) if extra and rng.random() < share else constant(rng, op)


def test(rng: random.Random, subjects: list[Expr], others: list[Expr]) -> Cmp:
    """A comparison of a subject with a constant, a divisibility, or a comparison with one of `others`."""
    subject, roll = pick(rng, subjects), rng.random()
    if roll < 0.2:
        return Cmp("==", Bin("%", subject, constant(rng, "%")), ZERO)
    others = [candidate for candidate in others if candidate != subject]
    sized = type(subject) is Fn and subject.op == "len"
    right = pick(rng, others) if others and roll < 0.5 else constant(rng, "len" if sized else "cmp")
    return Cmp("==" if rng.random() < 0.15 else pick(rng, ORDER), subject, right)


def simple(rng: random.Random, atoms: list[Expr]) -> Expr:
    """An atom, a constant, or one operation on atoms and constants."""
    roll = rng.random()
    if roll < 0.15:
        return pick(rng, atoms)
    if roll < 0.25:
        return pick(rng, NUMBERS)
    op, left = pick(rng, "+-*"), pick(rng, atoms)
    if roll < 0.35 and op == "-":
        return Bin(op, constant(rng, op), left)
    others = [atom for atom in atoms if atom != left]
    return Bin(op, left, other(rng, op, others, 0.4))


def chain(rng: random.Random, atoms: list[Expr]) -> Bin:
    """Two operations on all atoms (one or two) and constants: a chain on the left, or a nested right operand."""
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
    """One operation on a loop's item."""
    op = pick(rng, "+-*")
    if rng.random() < 0.1:
        return Bin("*", item, item)
    right = other(rng, op, extra)
    return Bin(op, right, item) if op == "-" and rng.random() < 0.3 else Bin(op, item, right)


def string(rng: random.Random, counts: list[Expr]) -> Expr:
    """A value made of s: itself, upper case, a word, a repetition or a concatenation."""
    roll = rng.random()
    if roll < 0.1:
        return S
    if roll < 0.25:
        return Fn("upper", S)
    if roll < 0.3:
        return pick(rng, WORDS)
    if roll < 0.5:
        return Bin("repeat", S, other(rng, "repeat", counts, 0.7))
    left, right = pick(rng, ((S, None), (None, S), (S, S), (S, None), (Fn("upper", S), None)))
    return Bin("concat", left or pick(rng, WORDS), right or pick(rng, WORDS))


def ints(rng: random.Random) -> tuple[str, list[Expr]]:
    return ("a b", [A, B]) if rng.random() < 0.75 else ("a", [A])


def listed(rng: random.Random) -> tuple[str, list[Expr]]:
    """A list parameter and perhaps an int."""
    return ("xs a", [A]) if rng.random() < 0.4 else ("xs", [])


def texted(rng: random.Random) -> tuple[str, list[Expr]]:
    return ("s a", [A]) if rng.random() < 0.4 else ("s", [])


# Level 1


def arith(rng: random.Random) -> Functions:
    params, atoms = ints(rng)
    return (solve(params, "int", Return(chain(rng, atoms))),)


def branch(rng: random.Random) -> Functions:
    params, atoms = ints(rng)
    return (solve(params, "int", *guard(test(rng, atoms, atoms), simple(rng, atoms), simple(rng, atoms))),)


def ends(rng: random.Random) -> Functions:
    """A branch on a list's first, last and length."""
    params, extra = listed(rng)
    atoms = [LENGTH, FIRST, LAST, *extra]
    condition = test(rng, atoms[:3], atoms[2:])
    return (solve(params, "int", *guard(condition, simple(rng, atoms), simple(rng, atoms))),)


def text(rng: random.Random) -> Functions:
    """A branch on a string's length or value."""
    params, extra = texted(rng)
    subjects = [TEXT_LENGTH, *extra]
    condition = Cmp("==", S, pick(rng, WORDS)) if rng.random() < 0.15 else test(rng, subjects, subjects)
    return (solve(params, "string", *guard(condition, string(rng, extra), string(rng, extra))),)


def loop(rng: random.Random) -> Functions:
    """A sum, a count or a list over a list or over 1..a."""
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
        result = Bin(op, result, other(rng, op, extra))
    fold = Fold(name, kind, item.name, over, value, where)
    return (solve(params, "list" if kind == "list" else "int", fold, Return(result)),)


# Level 2


def steps(rng: random.Random) -> Functions:
    """A named intermediate value, then a branch on it."""
    if rng.random() < 0.3:
        params, extra = texted(rng)
        word, size = Var("word"), Fn("len", Var("word"))
        longer = Bin("concat", word, pick(rng, WORDS))
        body = guard(test(rng, [size], extra), longer, string(rng, extra))
        return (solve(params, "string", Let("word", string(rng, extra)), *body),)
    params, atoms = ints(rng)
    body = guard(test(rng, [C], atoms), simple(rng, [C, *atoms]), simple(rng, [C, *atoms]))
    return (solve(params, "int", Let("c", chain(rng, atoms)), *body),)


def ladder(rng: random.Random) -> Functions:
    """Two conditions, one after the other or joined."""
    params, atoms = ints(rng)
    if rng.random() < 0.5:
        params, extra = listed(rng)
        atoms = [LENGTH, FIRST, LAST, *extra]
    first = second = test(rng, atoms, atoms)
    while second.left == first.left and second.op[0] == first.op[0]:  # not `a > 6 and a > 9`
        second = test(rng, atoms, atoms)
    last = simple(rng, atoms), simple(rng, atoms)
    if rng.random() < 0.5:
        return (solve(params, "int", *guard(Logic(pick(rng, ("and", "or")), first, second), *last)),)
    return (solve(params, "int", If(first, (Return(simple(rng, atoms)),)), *guard(second, *last)),)


def stepped(rng: random.Random, item: Var, over: Var | Range, extra: list[Expr], value: Expr) -> tuple[Let, For]:
    """A total that a loop changes in one of two ways, by `value` in one of them."""
    condition = test(rng, [item], extra)
    then = Update("total", pick(rng, "++-"), value)
    orelse = Update("total", pick(rng, ("+", "-", "max", "min")), other(rng, "+", [item, *extra]))
    start = other(rng, "+", [ZERO, *extra])
    return Let("total", start, mutable=True), For(item.name, over, (If(condition, (then,), (orelse,)),))


def update(rng: random.Random) -> Functions:
    """A loop whose body branches."""
    if rng.random() < 0.4:
        params, extra, item, over = "a b", [B], INDEX, Range(A)
    else:
        (params, extra), item, over = listed(rng), X, XS
    body = stepped(rng, item, over, extra, item_value(rng, item, extra))
    return (solve(params, "int", *body, Return(Var("total"))),)


def gate(rng: random.Random) -> Functions:
    """A sum, a count, the largest or the smallest element, then a branch on it."""
    params, extra = listed(rng)
    # a local called `count` would hide Julia's function
    name, kind = pick(rng, (("total", "sum"), ("hits", "count"), ("high", "max"), ("low", "min")))
    where = test(rng, [X], extra) if kind in ("sum", "count") else None
    value = item_value(rng, X, extra) if kind == "sum" and rng.random() < 0.5 else X
    atoms = [Var(name), *([] if where else [LENGTH, FIRST, LAST]), *extra]
    body = guard(test(rng, atoms[:1], atoms), simple(rng, atoms), simple(rng, atoms))
    return (solve(params, "int", Fold(name, kind, "x", XS, value, where), *body),)


def pipeline(rng: random.Random) -> Functions:
    """A new list, then a sum, count or list over it."""
    params, extra = listed(rng)
    kind = pick(rng, ("sum", "count", "list"))
    first = Fold("kept", "list", "x", XS, item_value(rng, X, extra), test(rng, [X], extra))
    name = {"sum": "total", "count": "count", "list": "result"}[kind]
    value = Y if kind == "count" else item_value(rng, Y, extra)
    where = test(rng, [Y], [*extra, Fn("len", Var("kept"))]) if kind == "count" or rng.random() < 0.5 else None
    second = Fold(name, kind, "y", Var("kept"), value, where)
    return (solve(params, "list" if kind == "list" else "int", first, second, Return(Var(name))),)


def weave(rng: random.Random) -> Functions:
    """A string grown in a loop."""
    grow = [Update("result", "concat", pick(rng, (S, Fn("upper", S), *WORDS[:6]))) for _ in range(2)]
    body = If(test(rng, [INDEX], [TEXT_LENGTH]), (grow[0],), (grow[1],)) if rng.random() < 0.7 else grow[0]
    start = Let("result", pick(rng, (S, Str(""), pick(rng, WORDS))), mutable=True)
    loop, result = For("i", Range(A), (body,)), Var("result")
    if rng.random() < 0.5:
        return (solve("s a", "string", start, loop, Return(result)),)
    longer = Bin("concat", result, pick(rng, (S, pick(rng, WORDS))))
    return (solve("s a", "string", start, loop, *guard(test(rng, [Fn("len", result)], [A]), result, longer)),)


# Level 3


def helper(rng: random.Random) -> Function:
    """A helper of x, or of x and y."""
    params, atoms = ("x y", [X, Y]) if rng.random() < 0.5 else ("x", [X])
    roll = rng.random()
    if roll < 0.3:
        body: tuple[Stmt, ...] = (Return(chain(rng, atoms)),)
    elif roll < 0.8:
        body = guard(test(rng, atoms, atoms), simple(rng, atoms), simple(rng, atoms))
    else:
        body = Let("c", chain(rng, atoms)), *guard(test(rng, [C], atoms), simple(rng, [C, *atoms]), simple(rng, atoms))
    return solve(params, "int", *body, name=pick(rng, HELPERS))


def applied(rng: random.Random, function: Function, first: Expr, extra: list[Expr]) -> Call:
    second = (other(rng, "+", extra),) if len(function.params) == 2 else ()
    return Call(function.name, (first, *second))


def helped_fold(rng: random.Random) -> Functions:
    """A sum or a list of a helper's values, perhaps with a branch on the sum."""
    function = helper(rng)
    params, extra = listed(rng)
    kind = pick(rng, ("sum", "list"))
    where = test(rng, [X], extra) if rng.random() < 0.6 else None
    fold = Fold({"sum": "total", "list": "result"}[kind], kind, "x", XS, applied(rng, function, X, extra), where)
    if kind == "list":
        return function, solve(params, "list", fold, Return(Var("result")))
    total = Var("total")
    if rng.random() < 0.3:
        return function, solve(params, "int", fold, Return(total))
    atoms = [total, LENGTH, *extra]
    body = guard(test(rng, [total], atoms[1:]), applied(rng, function, total, extra), simple(rng, atoms))
    return function, solve(params, "int", fold, *body)


def helped_steps(rng: random.Random) -> Functions:
    """A helper's value, then a ladder of branches on it."""
    function = helper(rng)
    params, atoms = ints(rng)
    start = Let("c", applied(rng, function, chain(rng, atoms[:1]), atoms[1:]))
    within = [C, *atoms]
    first = If(test(rng, [C], atoms), (Return(simple(rng, within)),))
    last = guard(test(rng, atoms, within), simple(rng, within), applied(rng, function, C, atoms))
    return function, solve(params, "int", start, first, *last)


def helped_loop(rng: random.Random) -> Functions:
    """A loop that adds a helper's value or something else, then a branch."""
    function = helper(rng)
    params, extra = listed(rng)
    body = stepped(rng, X, XS, extra, applied(rng, function, X, extra))
    total = Var("total")
    tail = guard(test(rng, [total], [LENGTH, *extra]), simple(rng, [total, *extra]), total)
    return function, solve(params, "int", *body, *tail)

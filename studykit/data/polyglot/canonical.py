"""What makes two programs the same structure, and which split a structure belongs to.

The canonical form of a program abstracts constants and names, keeps operators, orders the operands of commutative
operators, turns > into < and tries every order of parameters of the same type; so `a + 3 * b` and `b * 7 + a` are one
structure. The split is a function of the structure's key alone: no composition of the test split is ever seen in
training, whatever the constants and names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations

from studykit.data.polyglot.syntax import Bin, Cmp, Fn, Function, If, Node, Num, Str, Var

SPLITS = ("train", "valid", "test")
COMMUTATIVE = frozenset(("+", "*", "max", "min", "==", "!="))
MIRROR = {">": "<", ">=": "<="}

Form = tuple[str, tuple]  # skeleton, constants in the skeleton's order


def _nodes(nodes: Sequence[Node], names: dict[str, str]) -> Form:
    forms = [_form(node, names) for node in nodes]
    return ";".join([form[0] for form in forms]), sum([form[1] for form in forms], ())


def _form(node: Node, names: dict[str, str]) -> Form:
    """The skeleton and constants of a node; `names` maps bound names to neutral ones and grows with new locals."""
    if isinstance(node, Var):  # one class at a time: this is called some twenty times per program
        return names[node.name], ()
    if isinstance(node, Num):
        return "k", (node.value,)
    if isinstance(node, (Bin, Cmp)):
        op, left, right = node.op, _form(node.left, names), _form(node.right, names)
        if op in MIRROR:
            op, left, right = MIRROR[op], right, left
        elif op in COMMUTATIVE and right < left:
            left, right = right, left
        return f"({left[0]} {op} {right[0]})", left[1] + right[1]
    if isinstance(node, Fn):  # as below, but frequent
        text, more = _form(node.arg, names)
        return f"{node.op}({text})", more
    if isinstance(node, Str):
        return "t", (node.value,)
    parts: list[str] = []
    constants: tuple = ()
    for field in node.__slots__:
        value = getattr(node, field)
        if type(value) is str:
            parts.append(names.setdefault(value, f"v{len(names)}") if field in ("name", "var") else value)
        elif type(value) is tuple or hasattr(value, "__slots__"):
            text, more = _nodes(value, names) if type(value) is tuple else _form(value, names)
            parts.append(text)
            constants += more
    if isinstance(node, If):
        parts.append("")  # the place of an else, which keeps the keys, and so the splits, of published programs
    return f"{type(node).__name__}[{' '.join(parts)}]", constants


def _function(function: Function, order: Sequence[int]) -> Form:
    names: dict[str, str] = {}
    types: list[str] = []
    for position in order:
        name, kind = function.params[position]
        names[name] = f"p{len(types)}"
        types.append(kind)
    text, constants = _nodes(function.body, names)
    return f"{','.join(types)}->{function.returns}:{text}", constants


@lru_cache(maxsize=64)
def _orders(types: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """The orders of parameters that keep the sequence of types."""
    return tuple(order for order in permutations(range(len(types))) if types == tuple(types[i] for i in order))


def canonical(function: Function) -> Form:
    """Returns the skeleton and constants: equal skeletons are one structure, equal pairs are one program."""
    return min(_function(function, order) for order in _orders(tuple(kind for _, kind in function.params)))


@lru_cache(maxsize=1 << 16)
def key(skeleton: str) -> str:
    """Returns a structure's key: 16 hexadecimal digits, the same in every process."""
    return hashlib.sha256(skeleton.encode()).hexdigest()[:16]


def split_of(structure: str) -> str:
    """Returns the split of a structure by its key alone: train (80 %), valid (10 %) or test (10 %)."""
    bucket = int(structure[:8], 16) % 10
    return SPLITS[max(0, bucket - 7)]

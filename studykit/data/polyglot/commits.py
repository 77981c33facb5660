"""Small changes that make a commit: before, after, and the one-line imperative message that a reviewer would expect.

There are five kinds: another constant, another comparison, another operator, an early return for an edge case, and a
new name. The program after the change always lies in the split of the program before it, so commits keep the splits
disjoint by structure on both sides.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from studykit.data.polyglot.describe import Description
from studykit.data.polyglot.families import WORDS, constant
from studykit.data.polyglot.program import PolyglotProgram, with_names
from studykit.data.polyglot.sampler import degenerate
from studykit.data.polyglot.syntax import ONE, ZERO, Bin, Cmp, Fn, Function, If, Node, Num, Return, Str, Var, children

NAMES = {"a": ("n", "k"), "b": ("m", "p"), "xs": ("items", "values", "nums"), "s": ("text", "label", "t")}
FUNCTION_NAMES = ("compute", "evaluate", "result_of")
ORDERINGS = (">", "<", ">=", "<=")
ARITHMETIC = ("+", "-", "*")
CHANGED = {
    "+": "Add {1} to {0}",
    "-": "Subtract {1} from {0}",
    "*": "Multiply {0} by {1}",
    "max": "Keep {0} at {1} or more",
    "min": "Keep {0} at {1} or less",
    "%": "Check {0} for divisibility by {1}",
    "repeat": "Repeat {0} {1} times",
    "concat": "Put {1} after {0}",
}

Change = tuple[Function, str]  # the new function and the message


def rebuilders(node: Node) -> Iterator[tuple[Node, Callable[[Node], Any]]]:
    """Yields every node below `node`, each with a function that rebuilds the whole around a replacement."""
    yield node, lambda new: new
    for field, position, child in children(node):

        def rebuild(new: Node, field: str = field, position: int | None = position) -> Node:
            old = getattr(node, field)
            value: Any = new if position is None else (*old[:position], new, *old[position + 1 :])
            return replace(node, **{field: value})

        for below, outer in rebuilders(child):

            def rebuild_whole(new: Node, outer: Callable = outer, rebuild: Callable = rebuild) -> Node:
                return rebuild(outer(new))

            yield below, rebuild_whole


def change_constant(function: Function, rng: random.Random) -> Iterator[Change]:
    """Returns another constant, of a kind that suits its operator."""
    words = Description(function)
    for node, rebuild in rebuilders(function):
        match node:
            case Bin(op, left, Num() | Str() as old):
                field, sentence = "right", CHANGED[op].format(words.operand(left), "{0}")
            case Cmp(_, Fn() | Var() as left, Num() | Str() as old):
                field, op = "right", "len" if type(left) is Fn else ""
                sentence = f"Compare {words.expr(left)} with {{0}}"
            case Return(Num() | Str() as old):
                field, op, sentence = "value", "", "Return {0}"
            case _:
                continue
        new = rng.choice(WORDS) if type(old) is Str else constant(rng, op)
        if new != old:
            message = f"{sentence.format(words.expr(new))} instead of {words.expr(old)}"
            change: Any = {field: new}
            yield rebuild(replace(node, **change)), message


def change_comparison(function: Function, rng: random.Random) -> Iterator[Change]:
    """Returns another comparison of the same values."""
    words = Description(function)
    for node, rebuild in rebuilders(function):
        if type(node) is Cmp:
            for op in ORDERINGS if node.op in ORDERINGS else ("!=",) if node.op == "==" else ("==",):
                if op != node.op:
                    new = replace(node, op=op)
                    yield rebuild(new), f"Check that {words.test(new)}, not that {words.test(node)}"


def change_operator(function: Function, rng: random.Random) -> Iterator[Change]:
    """Returns another operator between the same values."""
    words = Description(function)
    for node, rebuild in rebuilders(function):
        if type(node) is not Bin:
            continue
        others = ARITHMETIC if node.op in ARITHMETIC else ("max", "min") if node.op in ("max", "min") else ()
        for op in others:
            if op != node.op and not (op == "*" and ONE in (node.left, node.right)):
                new = replace(node, op=op)
                yield rebuild(new), f"Compute {words.expr(new)} instead of {words.expr(node)}"


def add_guard(function: Function, rng: random.Random) -> Iterator[Change]:
    """Returns an early return for a negative int, or for an empty list or string."""
    if function.returns == "list":
        return
    value, words = (ZERO if function.returns == "int" else Str("")), Description(function)
    for name, kind in function.params:
        test = Cmp("<", Var(name), ZERO) if kind == "int" else Cmp("==", Fn("len", Var(name)), ZERO)
        what = f"a negative {name}" if kind == "int" else f"an empty {name}"
        guard = If(test, (Return(value),))
        yield replace(function, body=(guard, *function.body)), f"Return {words.expr(value)} for {what}"


def rename(function: Function, rng: random.Random) -> Iterator[Change]:
    """Returns a new name for a parameter or the function."""
    options = [(name, new) for name, _ in function.params for new in NAMES.get(name, ())]
    options += [(function.name, rng.choice(FUNCTION_NAMES))]
    for old, new in options:
        yield with_names(function, {old: new}), f"Rename {old} to {new}"


@dataclass(frozen=True)
class Commit:
    """A small change to a program."""

    before: PolyglotProgram
    after: PolyglotProgram  # in the split of `before`
    message: str  # one line in the imperative, without a full stop


def commit(program: PolyglotProgram, seed: int | random.Random = 0) -> Commit:
    """Draws a small change to the program: its kind, its place and its values follow from the seed."""
    rng = seed if isinstance(seed, random.Random) else random.Random(f"edit {seed}")
    kinds = [change_constant, change_comparison, change_operator, add_guard]
    for kind in [*rng.sample(kinds, len(kinds)), rename] if rng.random() < 0.85 else [rename]:
        if kind is not rename:
            rng.randrange(1)  # decides nothing; without this draw the seed would give other commits than it did
        changes = list(kind(program.function, rng))
        for function, message in rng.sample(changes, len(changes)):
            after = replace(program, function=function)
            if after != program and after.split == program.split and not degenerate(after):
                return Commit(program, after, message)
    raise AssertionError("a rename is always possible")

"""Small changes that make a commit: before, after, and the one-line imperative message that a reviewer would expect.

Kinds: another constant, another comparison, another operator, an early return for an edge case, a new name. The program
after always lies in the split of the program before, so edits keep the splits disjoint by structure on both sides.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from studykit.data.polyglot.describe import Wording
from studykit.data.polyglot.families import HELPERS, WORDS, constant
from studykit.data.polyglot.program import Program
from studykit.data.polyglot.sampler import degenerate
from studykit.data.polyglot.syntax import (
    ONE,
    ZERO,
    Bin,
    Cmp,
    Fn,
    Function,
    If,
    Let,
    Logic,
    Node,
    Num,
    Return,
    Str,
    Update,
    Var,
    children,
)

NAMES = {"a": ("n", "k"), "b": ("m", "p"), "xs": ("items", "values", "nums"), "s": ("text", "label", "t")}
FUNCTION_NAMES = ("compute", "evaluate", "result_of")
ORDERINGS = (">", "<", ">=", "<=")
ARITHMETIC = ("+", "-", "*")
CHANGED = {
    "+": "Add {1} to {0}", "-": "Subtract {1} from {0}", "*": "Multiply {0} by {1}", "max": "Keep {0} at {1} or more",
    "min": "Keep {0} at {1} or less", "%": "Check {0} for divisibility by {1}", "repeat": "Repeat {0} {1} times",
    "concat": "Put {1} after {0}",
}  # fmt: skip

Change = tuple[Function, str]  # the new function and the message
Kind = Callable[[Function, random.Random], Iterator[Change]]


def places(node: Node) -> Iterator[tuple[Node, Callable[[Node], Node]]]:
    """Every node below `node`, each with a function that rebuilds the whole around a replacement."""
    yield node, lambda new: new
    for field, position, child in children(node):

        def rebuild(new: Node, field: str = field, position: int | None = position) -> Node:
            old = getattr(node, field)
            return replace(node, **{field: new if position is None else (*old[:position], new, *old[position + 1 :])})

        for below, outer in places(child):
            yield below, lambda new, outer=outer, rebuild=rebuild: rebuild(outer(new))


def change_constant(function: Function, rng: random.Random) -> Iterator[Change]:
    """Another constant, of a kind that suits its operator."""
    words = Wording(function, None)
    for node, rebuild in places(function):
        match node:
            case Bin(op, left, Num() | Str() as old):
                field, sentence = "right", CHANGED[op].format(words.operand(left), "{0}")
            case Cmp(_, Fn() | Var() as left, Num() | Str() as old):
                field, op = "right", "len" if type(left) is Fn else ""
                sentence = f"Compare {words.expr(left)} with {{0}}"
            case Return(Num() | Str() as old):
                field, op, sentence = "value", "", "Return {0}"
            case Let(name, Num() | Str() as old):
                field, op, sentence = "value", "", f"Start {name} at {{0}}"
            case Update(name, op, Num() | Str() as old):
                field, sentence = "value", CHANGED[op].format(name, "{0}")
            case _:
                continue
        new = rng.choice(WORDS) if type(old) is Str else constant(rng, op)
        if new != old:
            message = f"{sentence.format(words.expr(new))} instead of {words.expr(old)}"
            yield rebuild(replace(node, **{field: new})), message


def flip_comparison(function: Function, rng: random.Random) -> Iterator[Change]:
    words = Wording(function, None)
    for node, rebuild in places(function):
        if type(node) is Cmp:
            for op in ORDERINGS if node.op in ORDERINGS else ("!=",) if node.op == "==" else ("==",):
                if op != node.op:
                    new = replace(node, op=op)
                    yield rebuild(new), f"Check that {words.test(new)}, not that {words.test(node)}"
        elif type(node) is Logic:
            new = replace(node, op="or" if node.op == "and" else "and")
            yield rebuild(new), f"Require {'either' if new.op == 'or' else 'both'} of the conditions"


def swap_operator(function: Function, rng: random.Random) -> Iterator[Change]:
    words = Wording(function, None)
    for node, rebuild in places(function):
        if type(node) is not Bin:
            continue
        others = ARITHMETIC if node.op in ARITHMETIC else ("max", "min") if node.op in ("max", "min") else ()
        for op in others:
            if op != node.op and not (op == "*" and ONE in (node.left, node.right)):
                new = replace(node, op=op)
                yield rebuild(new), f"Compute {words.expr(new)} instead of {words.expr(node)}"


def add_guard(function: Function, rng: random.Random) -> Iterator[Change]:
    """An early return for a negative int, or for an empty list or string."""
    if function.returns == "list":
        return
    value, words = (ZERO if function.returns == "int" else Str("")), Wording(function, None)
    for name, kind in function.params:
        test = Cmp("<", Var(name), ZERO) if kind == "int" else Cmp("==", Fn("len", Var(name)), ZERO)
        what = f"a negative {name}" if kind == "int" else f"an empty {name}"
        guard = If(test, (Return(value),))
        yield replace(function, body=(guard, *function.body)), f"Return {words.expr(value)} for {what}"


def rename(program: Program, rng: random.Random) -> Iterator[tuple[Program, str]]:
    """A new name for a parameter, a helper or the main function."""
    options = [(name, new) for name, _ in program.main.params for new in NAMES.get(name, ())]
    options += [(helper.name, new) for helper in program.functions[:-1] for new in HELPERS if new != helper.name]
    options += [(program.function, rng.choice(FUNCTION_NAMES))]
    for old, new in options:
        yield program.renamed({old: new}), f"Rename {old} to {new}"


def within(kind: Kind, program: Program, rng: random.Random) -> Iterator[tuple[Program, str]]:
    """The changes that `kind` makes to one function, drawn at random, as programs."""
    position = rng.randrange(len(program.functions))
    place = f" in {program.functions[position].name}" if position + 1 < len(program.functions) else ""
    for function, message in kind(program.functions[position], rng):
        functions = (*program.functions[:position], function, *program.functions[position + 1 :])
        yield replace(program, functions=functions), message + place


def edit(program: Program, seed: int | random.Random = 0) -> tuple[Program, Program, str]:
    """(before, after, imperative one-line message): a small change that stays in the program's split; the kind of change, its place and its values are drawn with the seed."""
    rng = seed if isinstance(seed, random.Random) else random.Random(f"edit {seed}")
    kinds = [change_constant, flip_comparison, swap_operator, add_guard]
    for kind in [*rng.sample(kinds, len(kinds)), rename] if rng.random() < 0.85 else [rename]:
        changes = list(rename(program, rng) if kind is rename else within(kind, program, rng))
        for after, message in rng.sample(changes, len(changes)):
            if after != program and after.split == program.split and not degenerate(after):
                return program, after, message
    raise AssertionError("a rename is always possible")

"""A program: a function over the shared tree, with its code, description, tests and structure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from studykit.data.checks import Call, FunctionCheck
from studykit.data.polyglot import canonical as polyglot_canonical
from studykit.data.polyglot.describe import describe
from studykit.data.polyglot.renderers import COMMENTS, render
from studykit.data.polyglot.syntax import Evaluator, Function, Node, Num, Str, Undefined, walk

AnyNode = TypeVar("AnyNode", bound=Node)
TESTS = 6  # of a program, at most
CANDIDATES = 48  # random arguments among which the tests are chosen


@dataclass(frozen=True)
class PolyglotProgram:
    """A program that can be written in every language of `LANGUAGES`; `family` says how it was drawn."""

    function: Function
    family: str

    @property
    def name(self) -> str:
        """Returns the function's name in snake_case; `function_name` gives a language's spelling."""
        return self.function.name

    @cached_property
    def canonical(self) -> polyglot_canonical.Form:
        """Returns the skeleton and the constants; two programs with equal canonical forms are the same program."""
        return polyglot_canonical.canonical(self.function)

    @property
    def key(self) -> str:
        """Returns the structure's key; constants and names do not enter."""
        return polyglot_canonical.key(self.canonical[0])

    @property
    def split(self) -> str:
        """Returns the split that the structure belongs to."""
        return polyglot_canonical.split_of(self.key)

    def code(self, language: str) -> str:
        """Returns the program as idiomatic source without a trailing newline."""
        return render(self.function, language)

    @property
    def description(self) -> str:
        """Returns exactly what the program does, in words."""
        return describe(self.function)

    def documented(self, language: str) -> str:
        """Returns the description as a comment of the language, then the code."""
        return f"{COMMENTS[language]} {self.description}\n{self.code(language)}"

    def renamed(self, names: Mapping[str, str]) -> PolyglotProgram:
        """Returns the same program with other function, parameter or local names."""
        return replace(self, function=with_names(self.function, names))

    def evaluate(self, args: list) -> Any:
        """Returns the value at `args`. Raises: Undefined where languages would differ."""
        return Evaluator(self.function).call(args)

    @cached_property
    def tests(self) -> list[Call]:
        """Returns six calls at most, which meet comparisons below, at and above their boundary as far as possible."""
        draw = _draws(self, random.Random(repr(self.canonical)))
        pool: list[tuple[Call, set]] = []  # with what a call touches
        for _ in range(CANDIDATES):
            args, evaluator = draw(), Evaluator(self.function)
            try:
                expected = evaluator.call(args)
            except Undefined:
                continue
            if all(args != test.args for test, _ in pool):
                pool.append((Call(args, expected), evaluator.trace | {("value", repr(expected))}))
        chosen: list[Call] = []
        seen: set = set()
        while pool and len(chosen) < TESTS:
            best = max(range(len(pool)), key=lambda i: len(pool[i][1] - seen))
            test, trace = pool.pop(best)
            chosen.append(test)
            seen |= trace
        return chosen

    @property
    def check(self) -> FunctionCheck:
        """Returns the program's tests as a check."""
        return FunctionCheck(self.name, self.tests)


def _draws(program: PolyglotProgram, rng: random.Random) -> Callable[[], list]:
    """A function that draws arguments, many of them near the program's constants or equal to each other."""
    nodes = list(walk(program.function))
    near = sorted({node.value + shift for node in nodes if type(node) is Num for shift in (-1, 0, 1)}) or [0]
    sizes = [value for value in near if 0 <= value <= 9] or [1]
    texts = [node.value for node in nodes if type(node) is Str]
    drawn: list[int] = []

    def number() -> int:
        roll = rng.random()
        value = rng.choice(drawn) if drawn and roll < 0.2 else rng.choice(near) if roll < 0.6 else rng.randint(-4, 12)
        drawn.append(value)
        return value

    def length() -> int:
        drawn.append(rng.choice(sizes) if rng.random() < 0.5 else rng.randint(0, 5))
        return drawn[-1]

    def argument(kind: str) -> Any:
        if kind == "int":
            return number()
        if kind == "list":
            return [number() for _ in range(length())]
        if texts and rng.random() < 0.25:
            return rng.choice(texts)
        return "".join(rng.choice("abcdeXYZ") for _ in range(length()))

    def arguments() -> list:
        drawn.clear()
        return [argument(kind) for _, kind in program.function.params]

    return arguments


def with_names(node: AnyNode, names: Mapping[str, str]) -> AnyNode:
    """Returns a copy of the tree with names replaced wherever they are bound or used."""
    changes: dict[str, Any] = {}
    for field in node.__slots__:
        value = getattr(node, field)
        if field == "params":
            changes[field] = tuple((names.get(name, name), kind) for name, kind in value)
        elif type(value) is tuple:
            changes[field] = tuple(with_names(item, names) for item in value)
        elif hasattr(value, "__slots__"):
            changes[field] = with_names(value, names)
        elif field in ("name", "var"):
            changes[field] = names.get(value, value)
    return replace(node, **changes)

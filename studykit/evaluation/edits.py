"""Pairs of built-in edits and programs whose meaning is known: the same or another, whatever the wording.

Metrics are calibrated on them (`calibration`). A message is put in other words, and in the words of the opposite edit;
a program is written in another way, and changed so that a test tells.

    edit = edits("lua", 40, TEMPLATES["commit"])[1]
    edit.reference, edit.reworded, edit.reversed
    # "Multiply a by 3 instead of 7", "Change 7 to 3", "Change 3 to 7"
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from studykit.data.checks import FunctionCheck
from studykit.data.diffs import unified_diff
from studykit.data.polyglot import PolyglotProgram, programs
from studykit.data.polyglot.commits import NAMES, commit
from studykit.data.polyglot.syntax import Bin, Cmp, Undefined
from studykit.data.prompts import render_prompt
from studykit.data.rows import Row

SEED = 1_000_003  # of the drawn programs: no study is likely to have it
OPPOSITE = {">": "<", "<": ">", ">=": "<=", "<=": ">="}
CONSTANT = r"-?\d+|\"[^\"]*\""
TRIES = 20  # changes of a program until one is noticed


@dataclass(frozen=True)
class Edit:
    """A change to a built-in program: its prompt, and three messages."""

    row: Row  # its target is the reference
    reworded: str  # the same change in other words
    reversed: str  # the opposite change in the same other words

    @property
    def reference(self) -> str:
        """Returns the message that the built-in data has."""
        return self.row.target


@dataclass(frozen=True)
class Variant:
    """A built-in program written in another way, and changed in what it does."""

    row: Row  # with its tests; the target is the reference
    rewritten: str  # equal behaviour
    mutated: str  # a test tells it from the reference


def other_words(message: str, same_verb: bool) -> tuple[str, str]:
    """Returns a built-in message in other words, and the message of the opposite change in these words.

    same_verb: whether the other words begin with the verb of the message.

    >>> other_words("Rename a to n", same_verb=False)
    ('Give a the name n', 'Give n the name a')
    """
    if found := re.fullmatch(r"Rename (\w+) to (\w+)", message):
        old, new = found.groups()
        pattern = "Rename {0} as {1}" if same_verb else "Give {0} the name {1}"
        return pattern.format(old, new), pattern.format(new, old)
    if found := re.fullmatch(r"Check that (.+), not that (.+)", message):
        new, old = found.groups()
        pattern = "Check for {1} instead of {0}" if same_verb else "Change the condition from {0} to {1}"
        return pattern.format(old, new), pattern.format(new, old)
    if found := re.fullmatch(r"Return (.+) for (an? (?:negative|empty) \w+)", message):
        value, case = found.groups()
        same = f"Return {value} when given {case}" if same_verb else f"Handle {case} by returning {value}"
        return same, f"Remove the special result {value} of {case}"
    found = re.fullmatch(r"(\w+) (.+) instead of (.+)", message)
    assert found, message
    verb, new, old = found.groups()
    place = (0, len(new))
    if verb != "Compute":
        constants = [constant.span() for constant in re.finditer(CONSTANT, new)]
        place = constants[0 if verb in ("Add", "Subtract", "Put") else -1]
    before, value, after = new[: place[0]], new[slice(*place)], new[place[1] :]
    if same_verb:
        return f"{verb} {new}, not {old}", f"{verb} {before}{old}{after}, not {value}"
    return f"Change {old} to {value}", f"Change {value} to {old}"


def edits(language: str, n: int, template: str) -> list[Edit]:
    """Returns n edits of different programs in a language of the built-in data, as rows of the task commit.

    Every second one keeps its verb in the other words.
    """
    made = []
    for index, program in enumerate(programs(n, SEED, "test")):
        change = commit(program, SEED + index)
        before, after = (f"{one.code(language)}\n" for one in (change.before, change.after))
        diff = unified_diff(before, after, f"a/{program.name}", f"b/{program.name}")
        prompt = render_prompt("commit", template, {"language": language, "diff": diff})
        row = Row(f"edit-{index}", language, prompt.text, change.message, prompt.body)
        made.append(Edit(row, *other_words(change.message, same_verb=index % 2 == 0)))
    return made


def others(made: Sequence[Edit]) -> list[Edit]:
    """Returns another edit for each, whose message differs from its own in all wordings."""
    found = []
    for index, edit in enumerate(made):
        turns = (made[(index + shift) % len(made)] for shift in range(1, len(made)))
        found.append(next((other for other in turns if other.reference != edit.reference), edit))
    return found


def variants(language: str, n: int) -> list[Variant]:
    """Returns up to n programs in a language of the built-in data, each with a rewritten and a mutated version."""
    made = []
    for index, program in enumerate(programs(n, SEED, "test")):
        mutant = _mutant(program, index)
        if mutant is None:
            continue
        row = Row(
            f"program-{index}",
            language,
            "",
            program.code(language),
            check=FunctionCheck(program.name, program.tests),
        )
        made.append(Variant(row, rewritten(program).code(language), mutant.code(language)))
    return made


def rewritten(program: PolyglotProgram) -> PolyglotProgram:
    """Returns a program of the same behaviour: its parameters have other names, sums and products and comparisons have
    their operands the other way round."""
    turned = replace(program, function=_turned(program.function))
    return turned.renamed({name: NAMES[name][0] for name, _ in program.function.params})


def _turned(node: Any) -> Any:
    """A copy of a tree with the operands of +, * and comparisons the other way round."""
    changes: dict[str, Any] = {}
    for field in node.__slots__:
        value = getattr(node, field)
        if hasattr(value, "__slots__"):
            changes[field] = _turned(value)
        elif field != "params" and type(value) is tuple:
            changes[field] = tuple(_turned(item) for item in value)
    node = replace(node, **changes)
    if isinstance(node, Bin) and node.op in ("+", "*"):
        return replace(node, left=node.right, right=node.left)
    divisibility = isinstance(node, Cmp) and isinstance(node.left, Bin) and node.left.op == "%"
    if isinstance(node, Cmp) and not divisibility:
        return Cmp(OPPOSITE.get(node.op, node.op), node.right, node.left)
    return node


def _mutant(program: PolyglotProgram, index: int) -> PolyglotProgram | None:
    """A changed program that one of the tests tells from the original; None if no change was noticed."""
    for attempt in range(TRIES):
        changed = commit(program, random.Random(f"mutant {index} {attempt}")).after
        try:
            if changed.name == program.name and any(changed.evaluate(t.args) != t.expected for t in program.tests):
                return changed
        except Undefined:  # its tests would have no results to compare
            continue
    return None

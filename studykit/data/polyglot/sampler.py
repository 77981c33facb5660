"""Draws programs: levels of families, and unique programs of a split.

Level 1 is made for a model of half a million parameters: one or two parameters, one function called `solve`,
conventional names (a, b; xs; s), constants up to 20, 15 to 40 tokens of Python, under 20 words. Level 2 adds a second
step, level 3 a helper function and longer bodies.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise

from studykit.data.polyglot import families
from studykit.data.polyglot.canonical import SPLITS
from studykit.data.polyglot.program import Program
from studykit.data.polyglot.syntax import If
from studykit.errors import UserError

MOST_PROGRAMS = 1_000_000
MOST_WORDS = 19  # in a plain description of level 1
PATIENCE = 20_000  # draws without a new program before the grammar counts as exhausted

Family = Callable[[random.Random], families.Functions]

# level -> families and how often each is drawn
LEVELS: dict[int, tuple[list[Family], list[float]]] = {
    1: ([families.arith, families.branch, families.ends, families.text, families.loop], [15, 25, 20, 15, 25]),
    2: (
        [families.steps, families.ladder, families.update, families.gate, families.pipeline, families.weave],
        [15, 25, 20, 20, 10, 10],
    ),
    3: ([families.helped_fold, families.helped_steps, families.helped_loop], [40, 30, 30]),
}


def degenerate(program: Program) -> bool:
    """Whether two neighbouring results are equal, or a parameter or a local is never used."""
    for function in program.functions:
        results = [stmt.then[-1] if type(stmt) is If else stmt for stmt in function.body]
        if any(left == right for left, right in pairwise(results)):
            return True
    for function, text in zip(program.functions, program.canonical[0].split("|"), strict=True):
        unused = any(f"p{position}" not in text for position in range(len(function.params)))
        if unused or any(text.count(name) < 2 for name in re.findall(r"\bv\d", text)):
            return True
    return False


def draw(rng: random.Random, level: int) -> Program | None:
    """One program, or None when the draw is degenerate."""
    (family,) = rng.choices(*LEVELS[level])
    program = Program(family(rng), family.__name__, level)
    return None if degenerate(program) else program


def wordy(program: Program) -> bool:
    return program.level == 1 and program.description().count(" ") >= MOST_WORDS


def programs(n: int, seed: int = 0, split: str = "train", level: int = 1) -> list[Program]:
    """`n` different programs of a split; the same in every process, and a shorter list is a prefix of a longer one.

    Raises UserError (a ValueError) for an unknown split or level, and when the grammar does not hold `n` programs.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if level not in LEVELS:
        raise UserError(f"level {level!r} is not one of {', '.join(map(str, LEVELS))}")
    if not 0 <= n <= MOST_PROGRAMS:
        raise UserError(f"n = {n} programs asked for; 0 to {MOST_PROGRAMS} are possible")
    rng = random.Random(f"{level} {split} {seed}")
    found: list[Program] = []
    seen, misses = set(), 0
    while len(found) < n:
        program = draw(rng, level)
        if program is None or program.split != split or program.canonical in seen or wordy(program):
            misses += 1
            if misses > PATIENCE:
                raise UserError(f"n = {n} programs asked for; split {split} of level {level} holds about {len(found)}")
            continue
        misses = 0
        seen.add(program.canonical)
        found.append(program)
    return found

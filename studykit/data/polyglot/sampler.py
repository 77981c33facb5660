"""Draws unique programs of a split.

The programs are made for a model of half a million parameters: one or two parameters, one function called `solve`,
conventional names (a, b; xs; s), constants up to 20, 15 to 40 tokens of Python, under 20 words.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise

from studykit.data.polyglot.canonical import SPLITS
from studykit.data.polyglot.families import arith, branch, ends, loop, text
from studykit.data.polyglot.program import PolyglotProgram
from studykit.data.polyglot.syntax import If
from studykit.errors import UserError

MOST_PROGRAMS = 1_000_000
MOST_WORDS = 19  # in a description
MOST_MISSES = 20_000  # draws without a new program before the families count as exhausted
FAMILIES = {arith: 15, branch: 25, ends: 20, text: 15, loop: 25}  # how often each is drawn, in percent


def degenerate(program: PolyglotProgram) -> bool:
    """Returns whether two neighbouring results are equal, or a parameter or a local is never used."""
    results = [stmt.then[-1] if type(stmt) is If else stmt for stmt in program.function.body]
    if any(left == right for left, right in pairwise(results)):
        return True
    skeleton = program.canonical[0]
    unused = any(f"p{position}" not in skeleton for position in range(len(program.function.params)))
    return unused or any(skeleton.count(name) < 2 for name in re.findall(r"\bv\d", skeleton))


def sample_program(rng: random.Random) -> PolyglotProgram | None:
    """Draws one program; None if it is degenerate."""
    (family,) = rng.choices(list(FAMILIES), list(FAMILIES.values()))
    program = PolyglotProgram(family(rng), family.__name__)
    return None if degenerate(program) else program


def programs(n: int, seed: int = 0, split: str = "train") -> list[PolyglotProgram]:
    """Draws `n` different programs of a split.

    They are the same in every process, and a shorter list is a prefix of a longer one.

    Raises: UserError (a ValueError) for an unknown split, and when the families do not hold `n` programs.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if not 0 <= n <= MOST_PROGRAMS:
        raise UserError(f"n = {n} programs are requested; 0 to {MOST_PROGRAMS} are possible")
    rng = random.Random(f"1 {split} {seed}")  # the 1 keeps the programs that earlier versions drew
    accepted: list[PolyglotProgram] = []
    seen, misses = set(), 0
    while len(accepted) < n:
        program = sample_program(rng)
        if program is None or program.split != split or program.canonical in seen or is_wordy(program):
            misses += 1
            if misses > MOST_MISSES:
                raise UserError(f"n = {n} programs are requested; split {split} holds about {len(accepted)}")
            continue
        misses = 0
        seen.add(program.canonical)
        accepted.append(program)
    return accepted


def is_wordy(program: PolyglotProgram) -> bool:
    """Returns whether the description is longer than a small model can read."""
    return program.description.count(" ") >= MOST_WORDS

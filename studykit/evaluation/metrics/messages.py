"""Metrics of a commit message that read the diff, not only the reference: names, verb and direction of the change.

Overlap with a reference cannot tell `use 3 instead of 7` from `use 7 instead of 3`, nor an invented function from a
real one. Four scores look at what the message claims:

- `names_touched`: the share of the touched names that the message names. Touched are the identifiers and numbers that
  occur more often on the removed or on the added lines; where there are none, all those on changed lines.
- `names_real`: the share of the message's names that occur in the diff; 100 for a message without names. A word counts
  as a name if it looks like one (a number, quoted, `snake_case`, `camelCase`, `a.b`, `f()`, a single letter) or stands
  on a changed line. An invented name that looks like prose is therefore not noticed.
- `verb`: whether the message begins with a verb of the same class as the reference does (`delete` and `drop` are one).
- `direction`: 100 if the message says rightly what is new and what is old, or adds what was added; 0 if it says the
  opposite; 50 if it says neither. What is right follows from the names on added and removed lines, or else from the
  words that the reference uses for the new and the old. Rows whose reference says no direction are left out, because
  there a message could say nothing wrong.

The name `a` is left out everywhere, because nothing tells it from the article.

    score_messages(["Rename n to k"], ["Rename k to n"], [diff])["direction"].value  # 0.0
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from studykit.evaluation.scores import Score

LABELS = {
    "names_touched": "Touched names that are named",
    "names_real": "Names that the diff has",
    "verb": "Same verb",
    "direction": "Direction of the change",
}
WORD = re.compile(r"[A-Za-z_]\w*|\d+(?:\.\d+)*")
TERM = re.compile(r"\w+|[-+*/%<>=!]+")  # words and operators, by which the new is told from the old
MENTION = re.compile(
    r"`([^`]+)`|\"([^\"]+)\"|(?<!\w)'([^']+)'(?!\w)"  # quoted
    r"|(?<![\w.#])(\d+(?:\.\d+)*)(?!\w)"  # a number, but not that of an issue
    r"|([A-Za-z_]\w*(?:(?:\.|::|->|/)\w+)+)|([A-Za-z]\w*)\(\)"  # a.b, f()
    r"|\b(\w*_\w+|[a-z]+[A-Z]\w*)\b"  # snake_case, camelCase
    r"|(?<!['\w])([b-hj-zB-HJ-Z])(?!\w)"  # a single letter that is no English word
)
NO_NAMES = frozenset(
    "a A i I an and as at be by do for from if in into is it no not of on or that the this to with when while then "
    "else elseif elif end def function func fn return local let const var int str string bool float list class "
    "import true false nil null none None True False break continue case switch new public private static void "
    "puts begin each self package".split()
)  # words of prose and keywords: no message names them
CLASSES = {
    "add": "add introduce implement create support allow enable include insert append",
    "remove": "remove delete drop strip disable discard eliminate",
    "fix": "fix correct repair resolve prevent avoid",
    "change": "change update modify adjust alter edit",
    "replace": "replace use switch swap substitute",
    "rename": "rename",
    "move": "move extract relocate",
    "rewrite": "refactor simplify restructure clean rewrite tidy",
}
CLASS_OF = {verb: name for name, verbs in CLASSES.items() for verb in verbs.split()}
PREFIX = re.compile(r"^(?:\[[^\]]*\]|\w+(?:\([^)]*\))?!?:)\s*")  # "[api] ", "fix(api): "
CLAIMS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<new>.+?),? (?:instead of|rather than|in place of) (?P<old>.+)",
        r"(?P<new>.+?), not (?P<old>.+)",
        r".*?\bfrom (?P<old>.+?) (?:in)?to (?P<new>.+)",
        r"(?:rename|change|convert|switch)\w* (?P<old>.+?) (?:to|into|as) (?P<new>.+)",
        r"(?:replac|swap|substitut)\w* (?P<old>.+?) (?:with|by|for) (?P<new>.+)",
        r".*?(?P<old>\S+) ?(?:->|=>|→) ?(?P<new>\S+)",
    )
)


@dataclass(frozen=True)
class Diff:
    """A unified diff, as a set of names and two bags of changed ones."""

    text: str

    @cached_property
    def lines(self) -> tuple[list[str], list[str]]:
        """Returns the removed and the added lines, without their signs and without file headers."""
        changed: tuple[list[str], list[str]] = [], []
        lines = self.text.split("\n")
        for number, line in enumerate(lines):
            follows = lines[number + 1] if number + 1 < len(lines) else ""
            before = lines[number - 1] if number else ""
            header = line.startswith("--- ") and follows.startswith("+++ ")
            if header or line.startswith("+++ ") and before.startswith("--- "):
                continue
            if line[:1] in ("-", "+"):
                changed[line[0] == "+"].append(line[1:])
        return changed

    @cached_property
    def names(self) -> set[str]:
        """Returns every name in it, in lower case, those of context and file headers too, without the line numbers."""
        return {word.lower() for word in WORD.findall(re.sub(r"^@@[^@]*@@", "", self.text, flags=re.M))}

    @cached_property
    def changed(self) -> tuple[Counter[str], Counter[str]]:
        """Returns the names on removed and on added lines, in lower case, with their counts."""
        removed, added = (
            Counter(word.lower() for line in side for word in WORD.findall(line) if word not in NO_NAMES)
            for side in self.lines
        )
        return removed, added

    @property
    def gone(self) -> set[str]:
        """Returns the names that occur more often on removed lines."""
        return set(self.changed[0] - self.changed[1])

    @property
    def come(self) -> set[str]:
        """Returns the names that occur more often on added lines."""
        return set(self.changed[1] - self.changed[0])

    @property
    def touched(self) -> set[str]:
        """Returns the names whose number changes, or else all names on changed lines."""
        return self.gone | self.come or set(self.changed[0])


def score_messages(
    predictions: Sequence[str], references: Sequence[str], diffs: Sequence[str], samples: int = 1
) -> dict[str, Score]:
    """Returns the four scores of n messages by key.

    `names_touched` covers the rows whose diff touches a name, `direction` those whose reference says one.

    predictions, references, diffs: n first lines and n unified diffs; `samples` predictions of a row follow each other.
    """
    read = [Diff(text) for text in diffs]
    triples = list(zip(predictions, references, read, strict=True))
    touched = [index for index, diff in enumerate(read) if diff.touched]
    directed = [index for index, (_, reference, diff) in enumerate(triples) if says_direction(reference, diff)]
    covered = {"names_touched": touched, "direction": directed}
    values = {
        "names_touched": [share_named(predictions[i], read[i]) for i in touched],
        "names_real": [share_real(message, diff) for message, _, diff in triples],
        "verb": [100.0 * same_verb(message, reference) for message, reference, _ in triples],
        "direction": [direction(*triples[i]) for i in directed],
    }
    empty = sum(not message.strip() for message in predictions)
    scores = {}
    for name, per_example in values.items():
        if not per_example:
            continue
        n = len(per_example)
        rows = covered[name][::samples] if n < len(triples) else None
        scores[name] = Score(
            label=LABELS[name],
            value=float(np.mean(per_example)),
            signature=f"{name}|tok:names|smooth:none|level:sentence|case:lower|version:1|n:{n}",
            per_example=per_example,
            n=n,
            empty=empty,
            rows=rows and [index // samples for index in rows],
        )
    return scores


def share_named(message: str, diff: Diff) -> float:
    """Returns the percentage of the touched names that the message names."""
    words = {word.lower() for word in WORD.findall(message)}
    return 100 * len(diff.touched & words) / len(diff.touched)


def mentions(message: str, diff: Diff) -> list[str]:
    """Returns the names in a message: what looks like one, and words that stand on changed lines."""
    marked = ["".join(groups) for groups in MENTION.findall(message)]
    seen = {word for mention in marked for word in WORD.findall(mention)}
    on_changed_lines = diff.changed[0].keys() | diff.changed[1].keys()
    plain = [word for word in WORD.findall(message) if word not in seen and word.lower() in on_changed_lines]
    return marked + plain


def share_real(message: str, diff: Diff) -> float:
    """Returns the percentage of the message's names of which every word occurs in the diff; 100 if there is none."""
    found = [all(word.lower() in diff.names for word in WORD.findall(name)) for name in mentions(message, diff)]
    return 100.0 * sum(found) / len(found) if found else 100.0


def stems(word: str) -> set[str]:
    """Returns what a verb may be without its ending: "Dropped" gives drop and dropp."""
    word = word.lower()
    forms = {word}
    for ending in ("s", "es", "d", "ed", "ing"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word.removesuffix(ending)
            forms |= {stem, f"{stem}e"} | ({stem[:-1]} if stem[-1] == stem[-2] else set())
    return forms


def verb_of(message: str) -> str:
    """Returns the first word of a message, behind a prefix such as "fix(api):"; "" without a word."""
    words = re.findall(r"[A-Za-z]+", PREFIX.sub("", message.strip()))
    return words[0] if words else ""


def verb_class(message: str) -> str:
    """Returns the class of a message's verb; "" for a verb that no class has."""
    return next((CLASS_OF[stem] for stem in sorted(stems(verb_of(message))) if stem in CLASS_OF), "")


def same_verb(message: str, reference: str) -> bool:
    """Returns whether two messages begin with verbs of one class, or with the same verb."""
    ours, theirs = verb_class(message), verb_class(reference)
    if ours or theirs:
        return ours == theirs
    return verb_of(message) != "" and bool(stems(verb_of(message)) & stems(verb_of(reference)))


def claim(message: str) -> tuple[set[str], set[str]] | None:
    """Returns the words that a message uses for the new and for the old, in lower case; None if it says neither."""
    for pattern in CLAIMS:
        if found := pattern.match(message.strip()):
            new, old = ({term.lower() for term in TERM.findall(found[side])} for side in ("new", "old"))
            return new - old, old - new
    return None


def evidence(message: str, come: set[str], gone: set[str]) -> int:
    """Returns how many words of a message's claim are on the right side, minus those on the wrong one."""
    if (sides := claim(message)) is None:
        return 0
    new, old = sides
    return len(new & come) + len(old & gone) - len(new & gone) - len(old & come)


def verb_direction(verb: str, diff: Diff) -> int:
    """Returns 1 if a class of verbs fits a diff that only adds or only removes, -1 if it is the opposite, 0 else."""
    removed, added = map(bool, diff.lines)
    return {"add": added - removed, "remove": removed - added}.get(verb, 0)


def says_direction(reference: str, diff: Diff) -> bool:
    """Returns whether a reference says what is new and what is old, or adds or removes what its diff does."""
    return any(claim(reference) or ()) or verb_direction(verb_class(reference), diff) > 0


def direction(message: str, reference: str, diff: Diff) -> float:
    """Returns 100 for the direction of a change that the reference says, 0 for the opposite, 50 for neither."""
    by_diff = evidence(reference, diff.come, diff.gone)
    found = 0 if by_diff < 0 else evidence(message, diff.come, diff.gone)  # a reference may use words in its own way
    if not found and (sides := claim(reference)):
        found = evidence(message, *sides)
    found = found or verb_direction(verb_class(message), diff)
    return 100.0 if found > 0 else 0.0 if found < 0 else 50.0

"""Languages made from Lua, whose kinship with the target is known: the share of what they have in common with it.

The target is a **cipher** of Lua: each keyword, operator and built-in has another word in its place, so that no base
has read the language. The words are those that a base reads elsewhere, so that it can write them. A source is made like
the target, in one of two ways:

- `tokens`: it shares the target's words for tokens that make up a share k of all occurrences, and has another word than
  the target for each of the others;
- `structure`: it shares all words, and a share k of four rules of grammar (see `GRAMMAR`).

k = 1 is a clone; with k = 0 no word has the target's meaning, or no rule is shared. Names, numbers, strings and
brackets are never changed. A cipher is a bijection of words, so every completion in it can be translated back
(`translated`) and run as Lua.

    made = kin(["amber", "birch"], "cedar", kinship=[1.0, 0.25], axis="tokens", seed=0)
    made["birch"].kinship, made["birch"].code(program)
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studykit.data.polyglot.program import PolyglotProgram
from studykit.data.polyglot.renderers import Lua
from studykit.data.polyglot.sampler import programs

LANGUAGE = "lua"  # that all are made from
WORDS = (
    *("local", "function", "return", "if", "then", "end", "for", "in", "ipairs", "do", "table", "insert", "math"),
    *("max", "min", "upper", "rep", "#", "=", "==", "~=", "<", ">", "<=", ">=", "+", "-", "*", "%", ".."),
)  # of Lua's tokens, those that get a word
NEW_WORDS = (
    *("and", "at", "by", "const", "def", "divisible", "equals", "filter", "first", "followed", "func", "given", "Go"),
    *("init", "int", "is", "JavaScript", "Julia", "last", "least", "len", "length", "let", "list", "map", "minus"),
    *("most", "of", "otherwise", "over", "plus", "Python", "range", "repeat", "repeated", "Ruby", "select", "string"),
    *("strings", "sum", "times", "under", "upcase", "where"),
)  # of descriptions and of other languages, none of which is Lua's or a program's name
TOKEN = re.compile(r'"[^"\n]*"|[A-Za-z_]\w*|\.\.|[=~<>]=|\d+|[^\S\n]+|.|\n')
COUNTED = 1000  # programs in which occurrences of tokens are counted
_PREFIX = {op: f"({symbol.replace('%', '%%')} %s %s)" for op, (symbol, _) in Lua.infix.items()}
GRAMMAR: dict[str, dict] = {  # what a language writes otherwise that does not share a rule
    "operators stand between their operands": {"infix": {}, "calls": Lua.calls | _PREFIX, "compound": "+ %s %s"},
    "a statement begins with its keyword": {"return_": "%s return", "let": "%s = %s local", "var": "%s = %s local"},
    "a block begins with its keyword": {
        "if_": "then %s if",
        "for_list": "do _, %s in ipairs(%s) for",
        "for_range": "do %s = 1, %s for",
        "head": "local %s(%s) function",
    },
    "a block ends with a word": {"end": None},
}


@dataclass(frozen=True)
class Kin:
    """A language made from Lua."""

    kinship: float  # share of occurrences of words, or of rules, that it has in common with the target
    words: dict[str, str]  # of Lua -> of this language
    broken: tuple[str, ...] = ()  # the rules of `GRAMMAR` that it does not share with Lua

    def code(self, program: PolyglotProgram) -> str:
        """Returns the program as source of this language, without a trailing newline."""
        changes = {name: value for rule in self.broken for name, value in GRAMMAR[rule].items()}
        return translated(type("Renderer", (Lua,), changes)().function(program.function), self.words)


def translated(code: str, words: Mapping[str, str]) -> str:
    """Returns code with all words exchanged, in both directions: words of either side become those of the other.

    So it also translates back: of a text without spaces that a word needs, the tokens are the same again. A completion
    that uses Lua's own words is translated away from Lua, and fails.
    """
    exchanged = {**words, **{new: old for old, new in words.items()}}
    parts: list[str] = []
    for token in TOKEN.findall(code):
        new = exchanged.get(token, token)
        if parts and re.match(r"\w", new) and re.search(r"\w$", parts[-1]):
            parts.append(" ")  # `#xs` is two tokens, and so are two words
        parts.append(new)
    return "".join(parts)


def kin(sources: Sequence[str], target: str, kinship: Sequence[float], axis: str, seed: int) -> dict[str, Kin]:
    """Returns a language for each source and for the target, by name.

    Args:
        kinship: (sources,) shares, which the seed deals to the sources: a name says nothing of its language.
        axis: "tokens" or "structure".
        seed: of the words, of what is shared, and of the deal.
    """
    rng = random.Random(f"kin {axis} {seed}")
    counts = Counter(
        token
        for program in programs(COUNTED, seed=seed, split="train")
        for token in TOKEN.findall(program.code(LANGUAGE))
        if token in WORDS
    )
    dealt = rng.sample(list(kinship), len(kinship))
    words = dict(zip(WORDS, rng.sample(NEW_WORDS, len(WORDS)), strict=True))
    made = {}
    for source, share in zip(sources, dealt, strict=True):
        if axis == "tokens":
            shared = _of_share(share, counts, rng)
            made[source] = Kin(sum(counts[word] for word in shared) / counts.total(), _others(words, shared, rng))
        else:
            broken = tuple(rng.sample(list(GRAMMAR), round((1 - share) * len(GRAMMAR))))
            made[source] = Kin(1 - len(broken) / len(GRAMMAR), words, broken)
    return made | {target: Kin(1.0, words)}


def _of_share(share: float, counts: Counter[str], rng: random.Random) -> list[str]:
    """Tokens in a random order, each taken if the occurrences of all that are taken stay within the share."""
    order, taken, room = list(WORDS), [], share * counts.total() + 0.5
    rng.shuffle(order)
    for word in order:
        if counts[word] <= room and (counts[word] or share == 1):
            taken.append(word)
            room -= counts[word]
    return taken


def _others(words: Mapping[str, str], shared: Sequence[str], rng: random.Random) -> dict[str, str]:
    """The words of the target for what is shared, and another word for everything else."""
    kept = {word: words[word] for word in shared}
    free, changed = [new for new in NEW_WORDS if new not in kept.values()], [word for word in WORDS if word not in kept]
    while True:
        drawn = dict(zip(changed, rng.sample(free, len(changed)), strict=True))
        if all(drawn[word] != words[word] for word in changed):
            return kept | drawn

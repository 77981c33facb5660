"""Pairing: which completions people compare, drawn at random, blind and balanced.

- Each pair of methods is shown equally often, or once more than others, on the rows that were drawn least so far.
- Both completions are of one row and of one seed, where both methods have seeds in common.
- Each method is the first text about as often as the second one.
- Pairs are drawn until enough can be shown. Equal texts, apart from white space around them, are not shown: such a pair
  is a tie. Since drawing goes on for the same number of shown pairs, the share of ties stays that of the test set.
- A tenth of the shown pairs comes a second time.

The same evaluations, options and seed give the same page.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from studykit.errors import UserError
from studykit.evaluation.ratings import Origin, PageKey, Pair, text_digest
from studykit.evaluation.samples import Sample
from studykit.evaluation.scoring import first_line_of

REPEATED = 0.1  # share of the shown pairs
Written = Mapping[int | None, Mapping[str, Sample]]  # the completions of a method, by seed and row


@dataclass(frozen=True)
class Shown:
    """What a rater reads of a pair."""

    prompt: str
    reference: str  # "" where there is none
    first: str
    second: str


def draw_pairs(
    study: str, written: Mapping[str, Written], count: int, seed: int, first_line: bool = False
) -> tuple[PageKey, dict[str, Shown]]:
    """Draws the pairs of a page, and returns its key and the texts of each shown pair by the pair's id.

    Args:
        written: by method, at least two.
        count: pairs to show, without repeated ones; fewer are shown where no others differ.
        seed: of the draw.
        first_line: whether a text is its first line that is not empty, as where only that line is scored.

    Raises UserError where all texts are alike, or for fewer pairs than methods.
    """
    if count < len(written):
        raise UserError(f"{count} pairs of {len(written)} methods are too few; ask for at least one pair per method.")
    rng = random.Random(f"{study} {seed}")
    drawn = _Draw(written, rng, first_line)
    opponents = list(combinations(written, 2))
    rng.shuffle(opponents)
    wanted = {two: count // len(opponents) + (n < count % len(opponents)) for n, two in enumerate(opponents)}
    for turn in range(max(wanted.values())):
        for two in opponents:
            if turn < wanted[two]:
                drawn.show_one(two)
    if not drawn.pairs:
        raise UserError(f"All completions of {', '.join(written)} are alike, so people have nothing to choose from.")
    shown = sorted(drawn.pairs, key=lambda pair: pair.id)
    again = rng.sample(shown, round(REPEATED * len(shown)))
    repeats = {drawn.new_id(): pair.id for pair in again}
    content = PageKey(page="", study=study, pairs=shown, repeats=repeats, alike=drawn.alike)
    page = hashlib.sha256(json.dumps(content.model_dump(), sort_keys=True).encode()).hexdigest()[:10]
    return content.model_copy(update={"page": page}), drawn.texts


class _Draw:
    """Pairs while they are drawn."""

    def __init__(self, written: Mapping[str, Written], rng: random.Random, first_line: bool):
        self.written, self.rng, self.first_line = written, rng, first_line
        self.pairs: list[Pair] = []
        self.texts: dict[str, Shown] = {}
        self.alike: dict[str, list[Pair]] = {}
        self.ids: set[str] = set()
        self.of_row: Counter[str] = Counter()  # how often each row was drawn
        self.lead: Counter[str | tuple[str, str]] = Counter()  # how much more often a method was first than second
        self.left = {two: self._candidates(*two) for two in combinations(written, 2)}

    def _candidates(self, a: str, b: str) -> list[tuple[str, int | None, int | None]]:
        """All (row, seed of a, seed of b), in random order."""
        of_a, of_b = self.written[a], self.written[b]
        common = [(seed, seed) for seed in of_a if seed in of_b]
        rows = next(iter(of_a.values()))
        found = [(row, *seeds) for seeds in common or product(of_a, of_b) for row in rows]
        self.rng.shuffle(found)
        return found

    def new_id(self) -> str:
        """Returns an id that no other pair has."""
        while (id := f"{self.rng.getrandbits(32):08x}") in self.ids:
            pass
        self.ids.add(id)
        return id

    def show_one(self, two: tuple[str, str]) -> None:
        """Draws pairs of two methods until their texts differ, or until none is left."""
        skipped: list[Pair] = []
        while self.left[two]:
            drawn = min(self.left[two], key=lambda candidate: self.of_row[candidate[0]])
            self.left[two].remove(drawn)
            self.of_row[drawn[0]] += 1
            pair, texts = self._pair(two, *drawn)
            if texts.first.strip() != texts.second.strip():
                self.pairs.append(pair)
                self.texts[pair.id] = texts
                self.alike[pair.id] = skipped
                for side, sign in ((pair.first.method, 1), (pair.second.method, -1)):
                    self.lead[side] += sign
                self.lead[two] += 1 if pair.first.method == two[0] else -1
                return
            skipped.append(pair)
        self.alike.setdefault("", []).extend(skipped)

    def _pair(self, two: tuple[str, str], row: str, seed_a: int | None, seed_b: int | None) -> tuple[Pair, Shown]:
        samples = [self.written[method][seed][row] for method, seed in zip(two, (seed_a, seed_b), strict=True)]
        origins = [
            Origin(method=method, seed=seed, digest=text_digest(sample.prompt, sample.prediction))
            for method, seed, sample in zip(two, (seed_a, seed_b), samples, strict=True)
        ]
        ahead = self.lead[two] or self.lead[two[0]] - self.lead[two[1]] or self.rng.choice((1, -1))
        order = (1, 0) if ahead > 0 else (0, 1)
        first, second = (self._text(samples[n].prediction) for n in order)
        pair = Pair(id=self.new_id(), row=row, first=origins[order[0]], second=origins[order[1]])
        return pair, Shown(samples[0].prompt, self._text(samples[0].reference), first, second)

    def _text(self, text: str) -> str:
        return first_line_of(text) if self.first_line else text


def first_samples(samples: Sequence[Sample]) -> dict[str, Sample]:
    """Returns the first completion of each row, by the row's id."""
    found: dict[str, Sample] = {}
    for sample in samples:
        found.setdefault(sample.id, sample)
    return found

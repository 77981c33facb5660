"""Near duplicates: rows whose texts are nearly the same, by the Jaccard similarity of their token 5-grams.

The search is exact, by prefix filtering (Chaudhuri et al., ICDE 2006; Bayardo et al., WWW 2007): with the 5-grams of
every text sorted from rare to frequent, two sets of similarity t or more must share one of the first
|x| - ceil(t |x|) + 1 of each. Only texts that meet there are compared, so no estimate (MinHash) is needed.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from studykit.data.rows import Row

TOKEN = re.compile(r"\w+|[^\w\s]")
NGRAM = 5


def shingles(text: str) -> frozenset[int]:
    """Hashes of the text's token 5-grams; a shorter text is one shingle, an empty one has none."""
    tokens = TOKEN.findall(text)
    if not tokens:
        return frozenset()
    count = max(1, len(tokens) - NGRAM + 1)
    return frozenset(hash(tuple(tokens[i : i + NGRAM])) for i in range(count))


def near(texts: Sequence[str], threshold: float, protected: int = 0) -> dict[int, int]:
    """{index: index of an earlier text that stays and is as similar as `threshold` or more}.

    Args:
        protected: the first so many texts stay whatever they resemble.
    """
    sets = [shingles(text) for text in texts]
    frequency = Counter(gram for grams in sets for gram in grams)
    kept_with: defaultdict[int, list[int]] = defaultdict(list)  # by 5-gram of the prefix
    found: dict[int, int] = {}
    for index, grams in enumerate(sets):
        size = len(grams)
        rare = sorted(grams, key=lambda gram: (frequency[gram], gram))
        prefix = rare[: size - math.ceil(threshold * size - 1e-9) + 1]
        if index >= protected:
            met = {other for gram in prefix for other in kept_with[gram]}
            alike = (other for other in sorted(met) if similarity(grams, sets[other]) >= threshold)
            if (other := next(alike, None)) is not None:
                found[index] = other
                continue
        for gram in prefix:
            kept_with[gram].append(index)
    return found


def similarity(a: frozenset[int], b: frozenset[int]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 1.0


def thin(
    splits: dict[str, list[Row]], threshold: float
) -> tuple[dict[str, list[Row]], dict[tuple[str, str], list[Row]]]:
    """The rows of one language without near duplicates, and those that went: {(split, split of its like): rows}.

    Test rows always stay. A validation row goes if a test row is like it, a training row if any row that stays is.
    """
    order = [(split, row) for split in ("test", "valid", "train") for row in splits[split]]
    found: dict[int, int] = {}
    texts = [f"{row.body_text}\n{row.target}" for _, row in order]
    n_test, n_valid = len(splits["test"]), len(splits["valid"])
    like_test = near(texts[: n_test + n_valid], threshold, protected=n_test)
    # Validation rows that resemble each other both stay: only what leaks from the test is their fault.
    found |= {i: j for i, j in like_test.items() if j < n_test}
    stay = [i for i in range(len(order)) if i not in found]
    n_held = n_test + n_valid - len(found)
    found |= {stay[i]: stay[j] for i, j in near([texts[i] for i in stay], threshold, protected=n_held).items()}
    gone: dict[tuple[str, str], list] = defaultdict(list)
    kept: dict[str, list[Row]] = {split: [] for split in splits}
    for index, (split, row) in enumerate(order):
        if index in found:
            gone[split, order[found[index]][0]].append(row)
        else:
            kept[split].append(row)
    return kept, dict(gone)

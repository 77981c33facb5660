"""Near duplicates: rows whose texts are nearly the same, by the Jaccard similarity of their token 5-grams.

The search is exact, by prefix filtering (Chaudhuri et al., ICDE 2006; Bayardo et al., WWW 2007): with the 5-grams of
every text sorted from rare to frequent, two sets of similarity t or more must share one of the first
|x| - ceil(t |x|) + 1 of each. Only texts that share one there are compared, so no estimate (MinHash) is needed.
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


def find_similar(texts: Sequence[str], threshold: float, protected: int = 0) -> dict[int, int]:
    """Finds the texts that are as similar as `threshold` or more to an earlier text that stays.

    Returns: {index of such a text: index of the earlier one}.

    Args:
        protected: number of texts at the beginning that stay whatever they resemble.
    """
    sets = [shingles(text) for text in texts]
    frequency = Counter(gram for grams in sets for gram in grams)
    kept_with: defaultdict[int, list[int]] = defaultdict(list)  # by 5-gram of the prefix
    similar: dict[int, int] = {}
    for index, grams in enumerate(sets):
        size = len(grams)
        rare = sorted(grams, key=lambda gram: (frequency[gram], gram))
        prefix = rare[: size - math.ceil(threshold * size - 1e-9) + 1]
        if index >= protected:
            candidates = {other for gram in prefix for other in kept_with[gram]}
            alike = (other for other in sorted(candidates) if similarity(grams, sets[other]) >= threshold)
            if (other := next(alike, None)) is not None:
                similar[index] = other
                continue
        for gram in prefix:
            kept_with[gram].append(index)
    return similar


def similarity(a: frozenset[int], b: frozenset[int]) -> float:
    """Returns the Jaccard similarity of two sets; 1 for two empty ones."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 1.0


def drop_near_duplicates(
    splits: dict[str, list[Row]], threshold: float
) -> tuple[dict[str, list[Row]], dict[tuple[str, str], list[Row]]]:
    """Drops the near duplicates among the rows of one language.

    Test rows always stay. A validation row is dropped if it is similar to a test row, a training row if similar to
    any row that stays.

    Returns: the rows that stay by split, and the dropped ones: {(split, split of the similar row): rows}.
    """
    order = [(split, row) for split in ("test", "valid", "train") for row in splits[split]]
    similar: dict[int, int] = {}
    texts = [f"{row.body_text}\n{row.target}" for _, row in order]
    n_test, n_valid = len(splits["test"]), len(splits["valid"])
    similar_to_test = find_similar(texts[: n_test + n_valid], threshold, protected=n_test)
    # Validation rows that resemble each other both stay: only a resemblance to the test makes a score wrong.
    similar |= {i: j for i, j in similar_to_test.items() if j < n_test}
    stay = [i for i in range(len(order)) if i not in similar]
    n_held = n_test + n_valid - len(similar)
    similar_to_any = find_similar([texts[i] for i in stay], threshold, protected=n_held)
    similar |= {stay[i]: stay[j] for i, j in similar_to_any.items()}
    dropped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    kept: dict[str, list[Row]] = {split: [] for split in splits}
    for index, (split, row) in enumerate(order):
        if index in similar:
            dropped[split, order[similar[index]][0]].append(row)
        else:
            kept[split].append(row)
    return kept, dict(dropped)

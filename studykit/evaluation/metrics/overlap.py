"""Overlap of characters and words: chrF, ROUGE-L, edit similarity.

chrF is sacrebleu's chrF2 (Popović 2015), ROUGE-L is rouge-score's without stemmer (Lin 2004). Both are computed from
counts, which a bootstrap needs, in a fraction of the libraries' time, and tests compare them with the libraries.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein

CHRF_ORDERS = 6


def edit_similarity(prediction: str, reference: str) -> float:
    """Returns 100 (1 - d / m), where d is the Levenshtein distance in characters (insertions, deletions and
    replacements cost 1) and m the length of the longer text.

    White space around both texts is dropped. An empty prediction scores 0.

        edit_similarity("x = 1", "x = 2")  # 80
    """
    return 100 * Levenshtein.normalized_similarity(prediction.strip(), reference.strip())


def rouge_l(prediction: str, reference: str) -> float:
    """Returns F1 of the longest common subsequence of words, 0 to 100.

    Words are runs of a-z and 0-9 in lower case, so operators and other scripts do not count: `x += 1` and `x -= 1`
    score 100.
    """
    predicted, expected = (re.findall("[a-z0-9]+", text.lower()) for text in (prediction, reference))
    return 200 * LCSseq.similarity(predicted, expected) / max(1, len(predicted) + len(expected))


def chrf_counts(prediction: str, reference: str) -> list[int]:
    """Returns 18 counts: per order 1-6, the character n-grams of the prediction, of the reference, and their matches.

    White space is left out. As in sacrebleu, an order for which the reference is too short counts nothing.
    """
    predicted, expected = ("".join(text.split()) for text in (prediction, reference))
    counts = []
    for n in range(1, CHRF_ORDERS + 1):
        a, b = (Counter([text[i : i + n] for i in range(len(text) - n + 1)]) for text in (predicted, expected))
        counts += [a.total() if b else 0, b.total(), sum(min(count, b[gram]) for gram, count in a.items() if gram in b)]
    return counts


def chrf(counts: np.ndarray) -> np.ndarray:
    """Returns the corpus score chrF2 (...) from counts (..., 18), see `chrf_counts`."""
    prediction, reference, match = (counts[..., i::3].astype(float) for i in range(3))
    used = (prediction > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=-1), 1)
    precision = np.where(used, match / np.maximum(prediction, 1), 0).sum(axis=-1) / orders
    recall = np.where(used, match / np.maximum(reference, 1), 0).sum(axis=-1) / orders
    beta_squared = 4  # recall weighs twice as much as precision
    return 100 * (1 + beta_squared) * precision * recall / np.maximum(beta_squared * precision + recall, 1e-300)

"""Overlap of characters and words: chrF, ROUGE-L, edit similarity.

chrF is sacrebleu's chrF2 (Popović 2015), ROUGE-L is rouge-score's without stemmer (Lin 2004); both are recomputed here
from counts, which a bootstrap needs, in a fraction of the time, and are tested against the libraries.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein

CHRF_ORDERS = 6


def edit_similarity(prediction: str, reference: str) -> float:
    """100 (1 - d / m): d the Levenshtein distance in characters (insert, delete and replace cost 1), m the length of
    the longer text; both stripped of surrounding white space. 0 for an empty prediction."""
    return 100 * Levenshtein.normalized_similarity(prediction.strip(), reference.strip())


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0-100. Words are runs of a-z and 0-9 in lower case, so signs and
    other scripts do not count: `x += 1` and `x -= 1` score 100."""
    found, wanted = (re.findall("[a-z0-9]+", text.lower()) for text in (prediction, reference))
    return 200 * LCSseq.similarity(found, wanted) / max(1, len(found) + len(wanted))


def chrf_counts(prediction: str, reference: str) -> list[int]:
    """Per order 1-6 [n-grams of the prediction, of the reference, matches] of characters, white space left out;
    sacrebleu skips orders that the reference is too short for."""
    found, wanted = ("".join(text.split()) for text in (prediction, reference))
    counts = []
    for n in range(1, CHRF_ORDERS + 1):
        a, b = (Counter([text[i : i + n] for i in range(len(text) - n + 1)]) for text in (found, wanted))
        counts += [a.total() if b else 0, b.total(), sum(min(count, b[gram]) for gram, count in a.items() if gram in b)]
    return counts


def chrf(counts: np.ndarray) -> np.ndarray:
    """chrF2 corpus score from counts (..., 18), see `chrf_counts`."""
    prediction, reference, match = (counts[..., i::3].astype(float) for i in range(3))
    used = (prediction > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=-1), 1)
    precision = np.where(used, match / np.maximum(prediction, 1), 0).sum(axis=-1) / orders
    recall = np.where(used, match / np.maximum(reference, 1), 0).sum(axis=-1) / orders
    beta = 4  # beta = 2, squared
    return 100 * (1 + beta) * precision * recall / np.maximum(beta * precision + recall, 1e-300)

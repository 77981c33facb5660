"""BLEU in the variants that papers on code report; each cuts a text into words and smooths in its own way.

- paper: 13a words, +1 on matches and totals of all orders (TF-NMT; Hugging Face `bleu` with smooth=True).
- CodeXGLUE code-to-code, which CodeTransOcean uses: words between white space, otherwise the same.
- B-Norm, CodeXGLUE code-to-text: lower case, punctuation split off, +1 for orders above 1 and on the lengths in the
  brevity penalty, a mean over sentences.
- sacreBLEU: 13a words, exponential smoothing (Post 2018).

All variants are functions of rows of ten counts: matches of order 1-4, n-grams of order 1-4 in the prediction, words of
the prediction, and words of the reference. A corpus score is the same function of the sum of rows.

    row = counts(words_13a("a b c"), words_13a("a b d"))  # [2, 1, 0, 0, 3, 2, 1, 0, 3, 3]
    add1_bleu(np.array(row))                              # 70.7
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ORDERS = 4
TOKENIZER = Tokenizer13a()  # shared, because it caches the texts that it has tokenized
NORM_WORD = re.compile(r"[^\W_]+|_|[^\s\w]")


def words_13a(text: str) -> list[str]:
    """Returns the words of mteval's tokenizer 13a, which splits off punctuation and keeps case."""
    return TOKENIZER(text.rstrip()).split()


def words_norm(text: str) -> list[str]:
    """Returns B-Norm's words, e.g. "Add foo_bar()" -> add foo _ bar ( )."""
    return NORM_WORD.findall(text.lower())


def ngrams(sequence: Sequence, orders: int) -> list[Counter]:
    """Returns one Counter of n-grams (tuples) per order, from 1 to `orders`."""
    return [Counter(zip(*(islice(sequence, i, None) for i in range(n)), strict=False)) for n in range(1, orders + 1)]


def counts(prediction: list[str], reference: list[str]) -> list[int]:
    """Returns the row of ten counts of a pair of word lists."""
    predicted, expected = (ngrams(words, ORDERS) for words in (prediction, reference))
    matches = [(a & b).total() for a, b in zip(predicted, expected, strict=True)]
    return [*matches, *(order.total() for order in predicted), len(prediction), len(reference)]


def add1_bleu(counts: np.ndarray) -> np.ndarray:
    """Returns BLEU (paper), or BLEU of CodeXGLUE code-to-code, (...) from counts (..., 10).

    An empty prediction scores 0; the original implementations divide by zero there.
    """
    matches, totals = counts[..., :ORDERS], counts[..., ORDERS : 2 * ORDERS]
    return _brevity(counts) * 100 * np.exp(np.mean(np.log((matches + 1.0) / (totals + 1.0)), axis=-1))


def norm_bleu(counts: np.ndarray) -> np.ndarray:
    """Returns B-Norm of sentences (...) from counts (..., 10).

    By definition, the +1 on lengths gives even an empty prediction 100 exp(-words of the reference).
    """
    tiny = sys.float_info.min
    above = np.arange(ORDERS) > 0
    matches, totals = (counts[..., part] + above + tiny for part in (slice(ORDERS), slice(ORDERS, 2 * ORDERS)))
    brevity = np.minimum(0.0, 1 - (counts[..., -1] + 1.0) / (counts[..., -2] + 1.0))
    return 100 * np.exp(np.mean(np.log(matches) - np.log(totals), axis=-1) + brevity)


def sacre_bleu(counts: np.ndarray) -> np.ndarray:
    """Returns the corpus score of sacreBLEU (...) from counts (..., 10), with its default smoothing.

    Under that smoothing (exp), the k-th order without a match counts as 1 / 2^k of a match (Post 2018).
    """
    matches, totals = counts[..., :ORDERS].astype(float), counts[..., ORDERS : 2 * ORDERS]
    zero = (matches == 0) & (totals > 0)
    smoothed = np.where(zero, 0.5 ** np.cumsum(zero, axis=-1), matches)
    usable = np.asarray((totals > 0).all(axis=-1) & (matches > 0).any(axis=-1))
    precision = np.where(usable[..., None], smoothed / np.maximum(totals, 1), 1.0)
    return np.where(usable, _brevity(counts) * 100 * np.exp(np.mean(np.log(precision), axis=-1)), 0.0)


def _brevity(counts: np.ndarray) -> np.ndarray:
    """Returns the brevity penalty (...) from counts (..., 10); 0 for an empty prediction."""
    prediction, reference = counts[..., -2].astype(float), counts[..., -1].astype(float)
    return np.where(prediction > 0, np.exp(np.minimum(0.0, 1 - reference / np.maximum(prediction, 1e-300))), 0.0)

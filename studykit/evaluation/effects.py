"""Effect sizes and exact tests for two systems on the same rows: how much they differ, beside how surely.

A p value says nothing of size. For scores of text the size is **Cliff's delta within rows** (d_w; Cliff 1996): the
share of rows on which a scores higher, less the share on which b does, from -1 to 1. Rows are compared with themselves,
which is what a paired design is for; the delta of two independent groups would compare every row with every other.
For pass rates it is the **odds ratio**, beside the difference itself.

McNemar's exact test asks whether the rows that one system alone passes fall to both equally often. It is exact for
one program per row and system; for several, or for clusters of rows, there is the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from studykit.params import UserError

TIE = 1e-9  # scores closer than this are equal: they differ by rounding


def within_rows_delta(a: Sequence[float], b: Sequence[float]) -> float:
    """Cliff's d_w of scores (n,) of the same rows: P(a > b) - P(a < b)."""
    first, second = _paired(a, b)
    return float(np.mean(first - second > TIE) - np.mean(second - first > TIE))


def odds_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Odds of passing of a over those of b, from shares passed (n,), 0..1.

    Half a success and half a failure are added to each, so that it stays finite (Haldane 1956, Anscombe 1956).
    """
    first, second = _paired(a, b)
    won = [side.sum() + 0.5 for side in (first, second)]
    odds = [passed / (len(first) + 1 - passed) for passed in won]
    return float(odds[0] / odds[1])


def discordant(a: Sequence[float], b: Sequence[float]) -> tuple[int, int]:
    """Rows on which a alone scores higher, and those on which b alone does."""
    first, second = _paired(a, b)
    return int(np.sum(first - second > TIE)), int(np.sum(second - first > TIE))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test from the numbers of discordant rows: a fair coin thrown as often. McNemar
    1947."""
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def _paired(a: Sequence[float], b: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(a) != len(b) or len(a) == 0:
        raise UserError(f"{len(a)} and {len(b)} rows: an effect needs the same rows on both sides, and at least one")
    return np.asarray(a, dtype=float), np.asarray(b, dtype=float)

"""Effect sizes of paired differences, and McNemar's exact test.

    within_rows_delta([5, 7, 1, 2], [4, 6, 3, 2])           # Cliff's delta of scores of text: 0.25
    odds_ratio([1, 1, 1, 0], [1, 0, 0, 0])                  # of pass rates: 5.4
    mcnemar(*discordant([1, 1, 1, 0], [1, 0, 0, 0]))        # p value of passes and failures: 0.5
    conditional_odds_ratio(2, 0)                            # the effect that this p is about: 5

Every p value comes with an effect size, because p says nothing about size. For scores of text it is Cliff's delta
within rows, for pass rates the odds ratio: of the two rates, or, beside McNemar's test, of the discordant rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from studykit.errors import UserError
from studykit.evaluation.statistics import TIE

Numbers = Sequence[float] | np.ndarray


def within_rows_delta(a: Numbers, b: Numbers) -> float:
    """Returns Cliff's delta within rows, d_w = P(a > b) - P(a < b), of scores (n,) of the same rows.

    It is the share of rows on which a scores higher, less the share on which b does, from -1 to 1. Each row is compared
    with itself, which is the point of a paired design; the more common delta of two independent groups would compare
    every row with every other one (Cliff 1996, "Ordinal methods for behavioral data analysis").

        within_rows_delta([5, 7, 1, 2], [4, 6, 3, 2])  # two won, one lost, one tie: (2 - 1) / 4 = 0.25
    """
    first, second = _paired(a, b)
    return float(np.mean(first - second > TIE) - np.mean(second - first > TIE))


def odds_ratio(a: Numbers, b: Numbers) -> float:
    """Returns the odds of passing of a, divided by those of b, from the shares (n,) that passed, each 0 to 1.

    Half a success and half a failure are added to each side, so that the ratio stays finite where one side passes
    always or never (Haldane 1956, Anscombe 1956).

        odds_ratio([1, 1, 1, 0], [1, 0, 0, 0])  # (3.5 / 1.5) / (1.5 / 3.5) = 5.4
    """
    first, second = _paired(a, b)
    passed = [side.sum() + 0.5 for side in (first, second)]
    odds = [successes / (len(first) + 1 - successes) for successes in passed]
    return float(odds[0] / odds[1])


def discordant(a: Numbers, b: Numbers) -> tuple[int, int]:
    """Returns the number of rows on which a scores higher, and the number on which b does."""
    first, second = _paired(a, b)
    return int(np.sum(first - second > TIE)), int(np.sum(second - first > TIE))


def conditional_odds_ratio(only_a: int, only_b: int) -> float:
    """Returns the odds that a row which one system alone passes is passed by a, from the numbers of such rows.

    It is the odds ratio *within* rows, b / c, which McNemar's test compares with 1. The odds ratio of the two rates is
    nearer to 1, since it mixes easy and hard rows (Agresti 2013, section 11.2). Half a row is added to both numbers, so
    that the ratio stays finite.

        conditional_odds_ratio(7, 1)  # 7.5 / 1.5 = 5
    """
    return (only_a + 0.5) / (only_b + 0.5)


def mcnemar(only_a: int, only_b: int) -> float:
    """Returns the two-sided exact p value of McNemar's test, from the numbers of discordant rows.

    The rows that both systems pass, or both fail, say nothing about a difference. If the systems are equally good, each
    of the others falls to a or to b like a fair coin, so p is a tail of the binomial distribution, doubled (McNemar
    1947; the exact form is discussed by Fagerland, Lydersen and Laake 2013). The test is exact for one program per row
    and system; several programs per row, or clusters of rows, need the bootstrap.

        mcnemar(1, 7)  # 2 * (C(8, 0) + C(8, 1)) / 2^8 = 0.070
    """
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def _paired(a: Numbers, b: Numbers) -> tuple[np.ndarray, np.ndarray]:
    if len(a) != len(b) or len(a) == 0:
        raise UserError(f"{len(a)} and {len(b)} rows: an effect needs the same rows on both sides, and at least one.")
    return np.asarray(a, dtype=float), np.asarray(b, dtype=float)

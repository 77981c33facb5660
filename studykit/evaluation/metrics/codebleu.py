"""CodeBLEU: n-grams, weighted n-grams, syntax and data flow of programs (Ren et al. 2020, arXiv 2009.10297).

    CodeBLEU = 0.25 BLEU + 0.25 BLEU_weighted + 0.25 Match_syntax + 0.25 Match_dataflow

- n-grams: corpus BLEU-4 of words between white space; an order without a match counts 0.1.
- weighted n-grams: the same with recall in place of precision, without a brevity penalty (published code takes every
  reference for two words long); single words weigh 1 (keywords) or 0.2.
- syntax: the share of the reference's subtrees, leaf texts left out, that occur in the prediction.
- data flow: the share of the reference's edges that the prediction has too (`dataflow.py`).

All four are quotients of sums over examples, so the score of a corpus is a function of the sum of the examples' rows,
and a bootstrap can draw these rows.

There are two modes. `compat` computes published numbers: a data flow match of exactly 0 counts as 1, so an empty
prediction scores 25, and every text counts at least one n-gram of each order. Where the published code does not find a
language's data flow and this module does (`REPAIRED`), the score has another name, "repaired". `fixed` is the one to
report: 0 stays 0, orders that no reference is long enough for are left out, and so is the data flow where the
references have none; the other components share its weight. Languages without an extractor of data flow have only
these three, and the score has another name, CodeBLEU-3.

    row, parses = compare("x = 1", "x = 2", "python")
    fixed(np.array(row))
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from studykit.evaluation.metrics import syntax_trees
from studykit.evaluation.metrics.bleu import ORDERS, ngrams
from studykit.evaluation.metrics.dataflow import RULES, flows
from studykit.evaluation.metrics.keywords import KEYWORDS
from studykit.evaluation.metrics.syntax_trees import MODULES, SyntaxTree

COMPONENTS = ("ngram", "weighted_ngram", "syntax", "dataflow")
REPAIRED = frozenset({"rust", "c", "c++", "c#"})  # published code misses their data flow
EPSILON = 0.1  # matches that an order without any counts as (Chen & Cherry 2014, method 1)
OTHER_WORD_WEIGHT = 0.2  # of a word that is no keyword; keywords weigh 1


def supported(language: str) -> bool:
    """Returns whether there is a grammar for the language (canonical name)."""
    return language in MODULES


def has_dataflow(language: str) -> bool:
    """Returns whether there is an extractor of data flow for the language (canonical name)."""
    return language in RULES


def compare(prediction: str, reference: str, language: str) -> tuple[list[float], bool]:
    """Returns the row of counts of a pair, and whether the prediction parses.

    A row has 30 numbers: for n-grams and then for weighted n-grams, matches and totals of orders 1-4; matches and
    totals of subtrees and of edges; tokens of the prediction and of the reference; and what published code adds to
    each of the eight totals of n-grams, so that none is below 1. language: a canonical name.
    """
    words = [text.split() for text in (prediction, reference)]
    predicted, expected = (ngrams(tokens, ORDERS) for tokens in words)
    matches = [(a & b).total() for a, b in zip(predicted, expected, strict=True)]
    totals: list[float] = [order.total() for order in predicted]
    keywords = KEYWORDS[language]
    weighted = [
        sum(count * (1 if word in keywords else OTHER_WORD_WEIGHT) for (word,), count in counts.items())
        for counts in (predicted[0] & expected[0], expected[0])
    ]
    weighted_totals = [weighted[1], *(order.total() for order in expected[1:])]
    row: list[float] = [*matches, *totals, weighted[0], *matches[1:], *weighted_totals]
    trees = [syntax_trees.parse(text.strip(), language) for text in (prediction, reference)]
    row += _syntax(*trees)
    edges = [flows(tree, language) if has_dataflow(language) else Counter() for tree in trees]
    row += [(edges[0] & edges[1]).total(), edges[1].total()]
    added = [max(0.0, 1 - total) for total in (*totals, *weighted_totals)]
    return [*row, *map(len, words), *added], trees[0].parsed


def components(counts: np.ndarray, published: bool = False) -> np.ndarray:
    """Returns the four components (..., 4), 0 to 1, from counts (..., 30); nan where no reference has data flow.

    published: whether each text counts at least one n-gram of each order; else orders without any are left out.
    """
    counts = np.asarray(counts, dtype=float)
    brevity = np.exp(np.minimum(0.0, 1 - counts[..., 21] / np.maximum(counts[..., 20], 1)))
    added = counts[..., 22:30] if published else np.zeros_like(counts[..., 22:30])
    known = (counts[..., 12:16] > 0) | published  # orders of the references
    shares = [
        brevity * _precision(counts[..., 0:4], counts[..., 4:8] + added[..., :4], known),
        _precision(counts[..., 8:12], counts[..., 12:16] + added[..., 4:], known),
    ]
    for matches, total in ((16, 17), (18, 19)):
        known = counts[..., total] > 0
        shares.append(np.where(known, counts[..., matches] / np.where(known, counts[..., total], 1), np.nan))
    return np.stack([*shares[:2], np.nan_to_num(shares[2]), shares[3]], axis=-1)


def fixed(counts: np.ndarray) -> np.ndarray:
    """Returns CodeBLEU (...), 0 to 100, from counts (..., 30): the mean of the components that the references have."""
    return 100 * np.nanmean(components(counts), axis=-1)


def compat(counts: np.ndarray) -> np.ndarray:
    """Returns CodeBLEU (...), 0 to 100, from counts (..., 30) as published: a data flow match of 0 counts as 1."""
    shares = components(counts, published=True)
    substituted = np.where(shares[..., 3:] > 0, shares[..., 3:], 1.0)  # nan > 0 is false as well
    return 100 * np.concatenate([shares[..., :3], substituted], axis=-1).mean(axis=-1)


def _precision(matches: np.ndarray, totals: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the geometric mean (...) of the shares of those of orders 1-4 that are known; 0 without a matching word.

    matches, totals, known: (..., 4).
    """
    shares = np.where(matches > 0, matches, EPSILON) / np.where(totals > 0, totals, 1)
    logarithms = np.where(known, np.log(shares), 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    return np.where(matches[..., 0] > 0, np.exp(logarithms), 0.0)


def _syntax(prediction: SyntaxTree, reference: SyntaxTree) -> list[int]:
    """Returns the number of the reference's subtrees that the prediction has, and the number of all of them."""
    numbers: dict[tuple, int] = {}
    predicted, expected = (_subtrees(tree, numbers) for tree in (prediction, reference))
    known = set(predicted)
    return [sum(subtree in known for subtree in expected), len(expected)]


def _subtrees(tree: SyntaxTree, numbers: dict[tuple, int]) -> list[int]:
    """Returns the numbers of all subtrees with children; subtrees that differ only in texts have the same number."""
    if len(tree.nodes) == 1:
        return []  # only the root of an empty text
    number = [0] * len(tree.nodes)
    for node in reversed(tree.nodes):  # children come after their parents
        if node.named or node.children:  # punctuation and keywords are no part of a shape
            shape = tuple([(child.field, number[child.index]) for child in node.children if child.named])
            number[node.index] = numbers.setdefault((node.kind, shape), len(numbers))
    return [number[node.index] for node in tree.nodes if node.children]

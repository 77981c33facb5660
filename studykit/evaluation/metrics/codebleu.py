"""CodeBLEU: n-grams, weighted n-grams, syntax and data flow of programs (Ren et al. 2020, arXiv 2009.10297).

    CodeBLEU = 0.25 BLEU + 0.25 BLEU_weighted + 0.25 Match_syntax + 0.25 Match_dataflow

- n-grams: corpus BLEU-4 of words between white space; an order without a match counts 0.1.
- weighted n-grams: the same with recall in place of precision, without a brevity penalty (published code takes every
  reference for two words long); single words weigh 1 (keywords) or 0.2.
- syntax: the share of the reference's subtrees, leaf texts left out, that occur in the prediction.
- data flow: the share of the reference's edges that the prediction has too (`dataflow.py`).

All four are quotients of sums over examples, so a corpus is the sum of the examples' rows, which a bootstrap can draw.

Two modes. `compat` is what published numbers were made with: a data flow match of exactly 0 counts as 1, so an empty
prediction scores 25. `fixed` is what to report: 0 stays 0, and references without any data flow leave this component
out, its weight shared by the others. Languages without an extractor of data flow have only the other three, under
another name, CodeBLEU-3.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from studykit.evaluation.metrics import syntax_trees
from studykit.evaluation.metrics.bleu import ORDERS, ngrams
from studykit.evaluation.metrics.dataflow import RULES, flows
from studykit.evaluation.metrics.keywords import KEYWORDS
from studykit.evaluation.metrics.syntax_trees import MODULES, Program

COMPONENTS = ("ngram", "weighted_ngram", "syntax", "dataflow")
EPSILON = 0.1  # matches of an order that has none (Chen & Cherry 2014, method 1)
OTHER_WORDS = 0.2


def supported(language: str) -> bool:
    """Whether there is a grammar for the language (canonical name)."""
    return language in MODULES


def has_dataflow(language: str) -> bool:
    return language in RULES


def compare(prediction: str, reference: str, language: str) -> tuple[list[float], bool]:
    """The row of counts of a pair, and whether the prediction parses.

    A row is, for n-grams and then for weighted n-grams, matches and totals of orders 1-4; matches and totals of
    subtrees and of edges; tokens of prediction and of reference: 22 numbers. language: a canonical name.
    """
    words = [text.split() for text in (prediction, reference)]
    found, wanted = (ngrams(tokens, ORDERS) for tokens in words)
    matches = [(a & b).total() for a, b in zip(found, wanted, strict=True)]
    row = [*matches, *(max(1, order.total()) for order in found)]
    keywords = KEYWORDS[language]
    weighted = [
        sum(count * (1 if word in keywords else OTHER_WORDS) for (word,), count in counts.items())
        for counts in (found[0] & wanted[0], wanted[0])
    ]
    row += [weighted[0], *matches[1:], max(1, weighted[1]), *(max(1, order.total()) for order in wanted[1:])]
    programs = [syntax_trees.parse(text.strip(), language) for text in (prediction, reference)]
    row += _syntax(*programs)
    edges = [flows(program, language) if has_dataflow(language) else Counter() for program in programs]
    row += [(edges[0] & edges[1]).total(), edges[1].total()]
    return [*row, *map(len, words)], programs[0].parsed


def components(counts: np.ndarray) -> np.ndarray:
    """The four components (..., 4) on a 0-1 scale from counts (..., 22); nan for data flow without any reference's."""
    counts = np.asarray(counts, dtype=float)
    brevity = np.exp(np.minimum(0.0, 1 - counts[..., -1] / np.maximum(counts[..., -2], 1)))
    shares = [
        brevity * _precision(counts[..., 0:4], counts[..., 4:8]),
        _precision(counts[..., 8:12], counts[..., 12:16]),
    ]
    for matches, total in ((16, 17), (18, 19)):
        known = counts[..., total] > 0
        shares.append(np.where(known, counts[..., matches] / np.where(known, counts[..., total], 1), np.nan))
    return np.stack([*shares[:2], np.nan_to_num(shares[2]), shares[3]], axis=-1)


def fixed(counts: np.ndarray) -> np.ndarray:
    """CodeBLEU (...) from counts (..., 22), 0-100: the mean of the components that the references have."""
    return 100 * np.nanmean(components(counts), axis=-1)


def compat(counts: np.ndarray) -> np.ndarray:
    """CodeBLEU (...) from counts (..., 22), 0-100, as published: no data flow match counts as a full one."""
    shares = components(counts)
    substituted = np.where(shares[..., 3:] > 0, shares[..., 3:], 1.0)  # nan > 0 is false, too
    return 100 * np.concatenate([shares[..., :3], substituted], axis=-1).mean(axis=-1)


def _precision(matches: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Geometric mean (...) of the shares of orders 1-4; 0 without a matching word."""
    shares = np.where(matches > 0, matches, EPSILON) / np.maximum(totals, 1)
    return np.where(matches[..., 0] > 0, np.exp(np.mean(np.log(shares), axis=-1)), 0.0)


def _syntax(prediction: Program, reference: Program) -> list[int]:
    """Subtrees of the reference that the prediction has, and all of the reference's."""
    numbers: dict[tuple, int] = {}
    found, wanted = (_subtrees(program, numbers) for program in (prediction, reference))
    known = set(found)
    return [sum(subtree in known for subtree in wanted), len(wanted)]


def _subtrees(program: Program, numbers: dict[tuple, int]) -> list[int]:
    """Numbers of all subtrees with children; equal ones, leaf texts aside, have the same number."""
    if len(program.nodes) == 1:
        return []  # nothing but the root of an empty text
    number = [0] * len(program.nodes)
    for node in reversed(program.nodes):  # children stand behind their parents
        if node.named or node.children:  # signs and keywords are no part of a shape
            shape = tuple([(child.field, number[child.place]) for child in node.children if child.named])
            number[node.place] = numbers.setdefault((node.kind, shape), len(numbers))
    return [number[node.place] for node in program.nodes if node.children]

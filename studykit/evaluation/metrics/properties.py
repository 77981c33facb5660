"""Properties that a metric's name decides: its unit, its direction, and its place in tables."""

from __future__ import annotations

import math
import re

# Tables show pass@k before these, and metrics that are not listed after them, the loss last.
TABLE_ORDER = (
    "tests_passed",
    "behaviour",
    "exact_match",
    "codebleu",
    "codebleu_compat",
    "codebleu_repaired",
    "codebleu_3",
    "bleu_paper",
    "bleu_paper_sentence",
    "bleu_codexglue",
    "b_norm",
    "sacrebleu",
    "chrf",
    "rouge_l",
    "edit_similarity",
    "parse_ok",
    "names_touched",
    "names_real",
    "verb",
    "direction",
    "identification",
    "embedding",
    "judge",
)
RATES = {"exact_match", "parse_ok", "tests_passed", "behaviour", "verb"}  # shares of rows, as pass@k is


def pass_k(metric: str) -> int | None:
    """Returns the k of a metric "pass_at_<k>", and None for any other metric."""
    match = re.fullmatch(r"pass_at_(\d+)", metric)
    return int(match[1]) if match else None


def is_rate(metric: str) -> bool:
    """Returns whether the metric is a share of rows: a row scores 0 or 100, or a mean of such values."""
    return metric in RATES or pass_k(metric) is not None


def less_is_better(metric: str) -> bool:
    """Returns whether a smaller value is the better one."""
    return metric == "loss"


def unit(metric: str) -> str:
    """Returns the unit of a metric's values."""
    return "nats per token" if metric == "loss" else "%" if is_rate(metric) else "points"


def limits(metric: str) -> tuple[float, float]:
    """Returns the least and the largest value of a metric; the cosine of embeddings (times 100) may be negative."""
    if metric == "loss":
        return 0.0, math.inf
    return (-100.0 if metric == "embedding" else 0.0), 100.0


def decimals(metric: str) -> int:
    """Returns the number of decimals that a value of the metric is shown with."""
    return 3 if metric == "loss" else 1


def sort_key(metric: str) -> tuple:
    """Returns a key that sorts metrics for tables: pass@k by k, then `TABLE_ORDER`, then others, the loss last."""
    if (k := pass_k(metric)) is not None:
        return 0, k
    if metric == "loss":
        return (2,)
    return 1, TABLE_ORDER.index(metric) if metric in TABLE_ORDER else len(TABLE_ORDER), metric


def format_score(value: float | None, metric: str) -> str:
    """Returns a score or a difference as text; a dash for None."""
    return "–" if value is None else f"{value:.{decimals(metric)}f}"

"""How many seeds and test rows a study needs to find a difference, from the spread that a finished comparison measured.

The finished comparison gives, for each difference, the standard error over rows and the standard deviation over seeds.
With other numbers of rows and seeds these errors shrink with the root of either number. What varies with rows and seeds
together is counted in both, so the numbers are rather too large than too small. All of them are for the first step of
Holm's correction and for a statement about other seeds (see `student.detectable`).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from studykit.errors import UserError
from studykit.evaluation.metrics.properties import format_score
from studykit.evaluation.results import Contrast, MetricComparison, read_results
from studykit.evaluation.student import StandardError, detectable
from studykit.runs.text import aligned, plural
from studykit.study.questions import Pair

SEEDS = (3, 5, 10, 20, 50)
MOST_ROWS = 1_000_000
LARGE = 200  # Student's t with more degrees of freedom is within 1 % of the normal distribution


def found_difference(contrast: Contrast, seeds: int, rows: float, alpha: float) -> float:
    """Returns the true difference that a study of so many seeds and clusters of rows finds in four of five cases."""
    clusters = contrast.clusters or contrast.n
    over_rows = StandardError((contrast.error or 0) * math.sqrt(clusters / rows), min(math.ceil(rows) - 1, LARGE))
    over_seeds = StandardError(float(np.std(contrast.by_seed, ddof=1)) / math.sqrt(seeds), seeds - 1)
    return detectable([over_rows, over_seeds], alpha)


def rows_needed(contrast: Contrast, seeds: int, difference: float, alpha: float) -> int | None:
    """Returns the clusters of rows with which so many seeds find a difference; None where a million do not."""
    low, high = 2.0, float(MOST_ROWS)
    if found_difference(contrast, seeds, high, alpha) > difference:
        return None
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if found_difference(contrast, seeds, middle, alpha) > difference else (low, middle)
    return math.ceil(high)


def report(run: str, pairs: Sequence[Pair], seeds: int, confidence: float, difference: float | None) -> str:
    """Returns a plain table for the differences that a study will test.

    Args:
        run: a finished compare run.
        pairs: of methods, all that the study will compare.
        seeds: of the study.
        difference: to be found, in the unit of the score that methods are judged by; None: the table says instead which
            difference is found with the rows of the finished comparison.

    Raises UserError for a difference that is not above 0, and where the run is no comparison, or has no such difference
    with at least two seeds.
    """
    if difference is not None and not 0 < difference < math.inf:
        raise UserError(f"--difference is {difference:g}; it must be a number above 0.")
    results = read_results(run)
    if results is None:
        raise UserError(f"{run} has no compare.json; a finished run of 06_compare is needed.")
    comparison, alpha = results.main_comparison, (1 - confidence) / max(1, len(pairs))
    made = [contrast for pair in pairs if (contrast := comparison.contrast(*pair))]
    usable = [contrast for contrast in made if len(contrast.by_seed) > 1 and contrast.error]
    if not usable:
        raise UserError(
            f"{run} has none of the study's differences with two seeds or more, so their spread is not known."
        )
    counts = sorted({*SEEDS, seeds} - {1})
    lines = [["difference", "sd", "error", *(f"{count} seeds" for count in counts[:1]), *map(str, counts[1:])]]
    for contrast in usable:
        sd = float(np.std(contrast.by_seed, ddof=1))
        numbers = [format_score(value, comparison.metric) for value in (sd, contrast.error)]
        clusters = contrast.clusters or contrast.n
        for count in counts:
            if difference is None:
                found = found_difference(contrast, count, clusters, alpha)
                impossible = comparison.unit == "%" and found > 100
                numbers.append("none" if impossible else format_score(found, comparison.metric))
            else:
                numbers.append(str(rows_needed(contrast, count, difference, alpha) or "never"))
        lines.append([f"{contrast.method} - {contrast.against}", *numbers])
    others = [f"{contrast.method} - {contrast.against}" for contrast in made if contrast not in usable]
    note = f"left out, with one seed or an equal difference on every row: {', '.join(others)}"
    noted = ["", textwrap.fill(note, 80, subsequent_indent="  ", break_on_hyphens=False)] if others else []
    heading = _heading(comparison, usable[0], len(pairs), confidence, difference)
    return "\n".join([heading, "", *aligned(lines), *noted])


def _heading(
    comparison: MetricComparison, contrast: Contrast, tests: int, confidence: float, difference: float | None
) -> str:
    rows = "groups of rows" if contrast.clusters else "rows"
    asked = (
        f"The true difference that is found with {contrast.clusters or contrast.n} {rows}"
        if difference is None
        else f"The number of {rows} with which a true difference of {difference:g} is found"
    )
    return textwrap.fill(
        f"{asked}, by {comparison.label} ({comparison.unit}), with a probability of 80 % for other seeds, at a "
        f"confidence of {confidence:g} over {plural(tests, 'comparison')}. sd: standard deviation over seeds; error: "
        "standard error over rows.",
        80,
    )

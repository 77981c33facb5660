"""The tables of a comparison as files: CSV in full precision, Markdown rounded, LaTeX to compile or to copy from.

The LaTeX file is a document of its own (booktabs, one table per metric). A table's caption names everything behind its
numbers: rows, clusters, seeds, the family of tests and the metric's signature. All text is escaped, since method names
may come from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from studykit.evaluation.metrics.properties import format_score
from studykit.evaluation.results import MetricComparison
from studykit.report.verdicts import sample_size, score_interval, signed, signed_interval
from studykit.runs.text import plural
from studykit.study.languages import display_name

OPENING = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,landscape,margin=2cm]{geometry}
\usepackage{booktabs}
\begin{document}
"""
COLUMNS = "Method,Mean,SD,Interval,Difference,Interval of the difference,$p$ (Holm),Effect,Verdict".split(",")
# A bracket stands in braces: at the start of a row it would be an argument of the line end before it.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "[": "{[}",
    "|": r"\textbar{}\allowbreak{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "\u2212": "$-$",
    "±": r"$\pm$",
    "\u00a0": "~",
}


def write_tables(metrics: Mapping[str, MetricComparison], stem: Path) -> None:
    """Writes `<stem>.csv`, `<stem>.md` and `<stem>.tex`, with all metrics in each."""
    frame = comparison_frame(metrics.values())
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    stem.with_suffix(".md").write_text(markdown(frame), encoding="utf-8")
    stem.with_suffix(".tex").write_text(latex(metrics.values()), encoding="utf-8")


def comparison_frame(comparisons: Iterable[MetricComparison]) -> pd.DataFrame:
    """Returns one row per metric and method, in full precision, with the difference to the baseline beside it."""
    lines = []
    for comparison in comparisons:
        contrasts = {contrast.method: contrast for contrast in comparison.to_baseline}
        for row in comparison.summaries:
            contrast = contrasts.get(row.method)
            of_difference = contrast and contrast.interval
            of_both = contrast and contrast.overall_interval
            line = {
                "metric": comparison.metric,
                "method": row.method,
                "mean": row.mean,
                "sd": row.sd,
                "low": row.interval and row.interval.low,
                "high": row.interval and row.interval.high,
                "n": row.n,
                "clusters": row.clusters,
                "seeds": len(row.points),
                "difference": contrast and contrast.value,
                "difference low": of_difference and of_difference.low,
                "difference high": of_difference and of_difference.high,
                "p": contrast and contrast.p,
                "test": contrast and contrast.test,
                "p_holm": contrast and contrast.verdict.p_holm,
                "overall low": of_both and of_both.low,
                "overall high": of_both and of_both.high,
                "p_overall_holm": contrast and contrast.verdict.p_overall,
                "effect": contrast and contrast.effect,
                "effect_name": contrast and contrast.effect_name,
                "verdict": contrast and str(contrast.verdict),
                "tests": contrast and comparison.tests,
                "interval": row.interval_method,
                "signature": comparison.signature,
            }
            lines.append(line)
    return pd.DataFrame(lines, dtype=object)


def markdown(frame: pd.DataFrame) -> str:
    """Returns a pipe table with numbers to four significant digits; pipes and line breaks in cells are escaped."""

    def cell(value: object) -> str:
        if isinstance(value, str):
            return " ".join(value.splitlines()).replace("|", "\\|")
        return "" if value is None else f"{value:.4g}"

    return frame.map(cell).to_markdown(index=False, disable_numparse=True) + "\n"


def latex(comparisons: Iterable[MetricComparison]) -> str:
    """Returns a document with a table per metric; it needs only booktabs and compiles with every LaTeX."""
    return OPENING + "\n".join(map(latex_table, comparisons)) + "\\end{document}\n"


def latex_table(comparison: MetricComparison) -> str:
    """Returns one metric as a table environment."""
    metric, contrasts = comparison.metric, {contrast.method: contrast for contrast in comparison.to_baseline}
    lines = []
    for row in comparison.summaries:
        line = dict.fromkeys(COLUMNS, "–") | {
            "Method": row.method,
            "Mean": format_score(row.mean, metric),
            "SD": format_score(row.sd, metric),
            "Interval": score_interval(row.interval, metric),
        }
        if contrast := contrasts.get(row.method):
            p = contrast.verdict.p_holm
            line |= {
                "Difference": signed(contrast.value, metric),
                "Interval of the difference": signed_interval(contrast.interval, metric),
                "$p$ (Holm)": "< 0.001" if p < 0.001 else f"{p:.3f}",
                "Effect": f"{contrast.effect:.2f}",
                "Verdict": str(contrast.verdict),
            }
        lines.append(line)
    frame = pd.DataFrame(lines).map(escape_latex)
    return frame.style.hide(axis="index").to_latex(
        caption=escape_latex(caption(comparison)),
        label=f"tab:{re.sub('[^a-z0-9]+', '-', metric.lower())}",
        column_format=f"l{'r' * (len(COLUMNS) - 2)}l",
        position_float="centering",
        hrules=True,
    )


def caption(comparison: MetricComparison) -> str:
    """Returns the sentences that explain a metric's numbers, as plain text."""
    sentences = [
        f"{comparison.label} ({comparison.unit}) on {display_name(comparison.language)}, "
        f"n = {sample_size(comparison.summaries[0])}, {plural(comparison.seeds, 'seed')}: mean and standard deviation "
        f"(SD) over seeds, {comparison.confidence:.0%} interval over rows."
    ]
    if contrasts := comparison.to_baseline:
        sentences.append(
            f"Differences from {comparison.baseline} are paired by row; p is corrected by Holm's method over "
            f"{plural(comparison.tests, 'difference')}; effect size: {contrasts[0].effect_name}."
        )
    return " ".join([*sentences, f"Signature: {comparison.signature}."])


def escape_latex(text: str) -> str:
    """Returns plain text as LaTeX.

    A sign that a font encoding may lack becomes a question mark, and a line break a space.
    """
    line = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    known = (sign if sign.isascii() or sign in SPECIAL else "?" for sign in line)
    return "".join(SPECIAL.get(sign, sign) for sign in known)

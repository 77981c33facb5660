"""A comparison's tables as files: CSV in full precision, Markdown rounded, LaTeX to compile or to copy from.

The LaTeX file is a document of its own (booktabs, one table per metric). A table's caption says what stands behind it:
rows, clusters, seeds, the family of tests and the metric's signature. All text is escaped: it may come from anywhere.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studykit.evaluation.comparison import rounded
from studykit.runs.text import plural

COLUMNS = ("Method", "Mean", "SD", "Interval", "Difference", "Interval", "$p$ (Holm)", "Effect", "Verdict")
OPENING = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,landscape,margin=2cm]{geometry}
\usepackage{booktabs}
\begin{document}
"""
SPECIAL = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
           **{sign: f"\\{sign}" for sign in "&%$#_"}, "[": "{[}", "|": r"\textbar{}\allowbreak{}", "<": r"\textless{}",
           ">": r"\textgreater{}", "–": "--", "\u2212": "$-$", "±": r"$\pm$", "\u00a0": "~"}  # fmt: skip


def write(metrics: Mapping[str, Mapping[str, Any]], stem: Path) -> None:
    """`<stem>.csv`, `<stem>.md` and `<stem>.tex` of results of `comparison.compare` by metric."""
    lines = flat(metrics)
    with stem.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    stem.with_suffix(".md").write_text(markdown(lines), encoding="utf-8")
    stem.with_suffix(".tex").write_text(latex(metrics.values()), encoding="utf-8")


def flat(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict]:
    """All metrics as one table, a line per metric and method, with the difference to the baseline beside it."""
    lines = []
    for metric, compared in metrics.items():
        against = to_baseline(compared)
        for row in compared["rows"]:
            names = ("method", "mean", "sd", "low", "high", "n", "clusters")
            line = {"metric": metric, **{name: row[name] for name in names}, "seeds": len(row["points"])}
            found = against.get(row["method"], {})
            line |= {f"difference {name}".replace(" value", ""): found.get(name) for name in ("value", "low", "high")}
            line |= {name: found.get(name) for name in ("p", "test", "p_holm", "effect", "effect_name", "verdict")}
            tests = compared["family"]["tests"] if found else None
            lines.append(line | {"tests": tests, "interval": row["interval"], "signature": compared["signature"]})
    return lines


def to_baseline(compared: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The contrasts with the baseline, by method."""
    return {c["method"]: c for c in compared["contrasts"] if c["against"] == compared["baseline"]}


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """A pipe table, numbers to four significant digits; pipes in cells are escaped."""
    def cell(value: Any) -> str:
        return value.replace("|", "\\|") if isinstance(value, str) else "" if value is None else f"{value:.4g}"

    rows = [list(lines[0]), ["---"] * len(lines[0]), *([cell(v) for v in line.values()] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def latex(compared: Sequence[Mapping[str, Any]]) -> str:
    """A document with a table per metric; it needs booktabs alone, and compiles with pdfLaTeX, XeLaTeX or LuaLaTeX."""
    return OPENING + "\n".join(map(latex_table, compared)) + "\\end{document}\n"


def latex_table(compared: Mapping[str, Any]) -> str:
    """One metric as a table environment."""
    against, metric = to_baseline(compared), compared["metric"]
    lines = []
    for row in compared["rows"]:
        found = against.get(row["method"])
        cells = [row["method"], rounded(row["mean"], metric), rounded(row["sd"], metric), _span(row, metric)]
        if found:
            p = "< 0.001" if found["p_holm"] < 0.001 else f"{found['p_holm']:.3f}"
            cells += [_minus(rounded(found["value"], metric)), _span(found, metric), p, f"{found['effect']:.2f}",
                      found["verdict"]]  # fmt: skip
        cells += ["–"] * (len(COLUMNS) - len(cells))
        lines.append(" & ".join(map(escaped, cells)) + r" \\")
    body = "\n".join(lines)
    return (f"\\begin{{table}}\n\\centering\n\\caption{{{escaped(caption(compared))}}}\n"
            f"\\label{{tab:{re.sub('[^a-z0-9]+', '-', metric.lower())}}}\n"
            f"\\begin{{tabular}}{{l{'r' * (len(COLUMNS) - 2)}l}}\n\\toprule\n{' & '.join(COLUMNS)} \\\\\n\\midrule\n"
            f"{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n")  # fmt: skip


def caption(compared: Mapping[str, Any]) -> str:
    """What stands behind a metric's numbers, as plain text."""
    first, found = compared["rows"][0], list(to_baseline(compared).values())
    clusters = f" in {first['clusters']} clusters" if first["clusters"] else ""
    seeds = max(len(row["points"]) for row in compared["rows"])
    said = [f"{compared['label']} ({compared['unit']}) on {compared['language']}, n = {first['n']} rows{clusters}, "
            f"{plural(seeds, 'seed')}: mean and SD over seeds, {compared['confidence']:.0%} interval over "
            "rows."]  # fmt: skip
    if found:
        tests = compared["family"]["tests"]
        said.append(f"Differences to {compared['baseline']} are paired by row; p is corrected after Holm over "
                    f"{plural(tests, 'test')}; the effect is the {found[0]['effect_name']}.")  # fmt: skip
    return " ".join([*said, f"Signature: {compared['signature']}."])


def escaped(text: str) -> str:
    """Plain text as LaTeX; what a font encoding may lack becomes a question mark, a line break a space.

    A bracket stands in braces: at the start of a row it would be an argument of the line end before it.
    """
    line = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    known = "".join(sign if sign.isascii() or sign in SPECIAL else "?" for sign in line)
    return "".join(SPECIAL.get(sign, sign) for sign in known)


def _span(found: Mapping[str, Any], metric: str) -> str:
    if found["low"] is None:
        return "–"
    return f"{_minus(rounded(found['low'], metric))} to {_minus(rounded(found['high'], metric))}"


def _minus(number: str) -> str:
    return number.replace("-", "\u2212")

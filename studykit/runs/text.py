"""Numbers, sizes, durations and plurals as text, the same in terminals, notebooks and pages.

format_bytes(3.25e9)           # 3.25 GB
format_duration(138)           # 2 min 18 s
format_value(12345.678)        # 12,346
plural(1, "seed")              # 1 seed
aligned([["a", "10"]])         # a  10
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any


def format_bytes(count: float) -> str:
    """Returns a number of bytes with three significant digits and a decimal unit (kB, MB ...)."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(count) < 999.5:
            break
        count, unit = count / 1000, larger
    return f"{count:.0f} B" if unit == "B" else f"{f'{count:#.3g}'.rstrip('.')} {unit}"


def format_duration(seconds: float, rounded: bool = False) -> str:
    """Returns a duration, such as "12.5 s" or "2 min 18 s"; rounded, in one unit: "2 min"."""
    if rounded:
        minutes = f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
        return f"{seconds:.0f} s" if seconds < 90 else minutes
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole, rest = divmod(round(seconds), 60)
    return f"{whole // 60} h {whole % 60} min" if whole >= 60 else f"{whole} min {rest} s"


def format_value(value: Any, digits: int = 4) -> str:
    """Returns a value as a table shows it.

    Thousands are grouped, fractions have `digits` significant digits, truth is yes or no, None is a dash. The items of
    mappings and lists are written in the same way, with commas between them; anything else is its `str`.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        short = f"{value:.{digits}g}"
        return f"{value:,.0f}" if abs(float(short)) >= 1000 else short
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {format_value(item, digits)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item, digits) for item in value)
    return str(value)


def plural(count: int, noun: str) -> str:
    """Returns a count and its noun, with an s unless the count is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def aligned(rows: Sequence[Sequence[str]], width: int = 80) -> list[str]:
    """Returns rows of equally many cells as lines of text with columns, at most `width` characters wide where possible.

    The first column is aligned to the left, and wrapped where a line would be too long; the others are aligned to the
    right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], max(20, width - sum(widths[1:]) - 2 * len(widths[1:])))
    lines = []
    for first, *others in rows:
        indent = first[: len(first) - len(first.lstrip())]
        begin, *more = textwrap.wrap(first, widths[0], subsequent_indent=f"{indent}  ", break_on_hyphens=False) or [""]
        cells = [cell.rjust(size) for cell, size in zip(others, widths[1:], strict=True)]
        lines += ["  ".join([begin.ljust(widths[0]), *cells]).rstrip(), *more]
    return lines

"""What notebooks show beside figures: computed sentences, small tables, blocks of text, and the closing table.

    say(f"The loss fell from **{first:.2f}** to **{last:.2f}**.")       # one sentence, Markdown, numbers computed
    facts({"trainable parameters": 18784, "time (s)": 12.5})            # two columns
    table([{"language": "lua", "rows": 30}, ...], "Rows per language.")  # one row per mapping
    texts([{"prompt": ..., "reference": ..., "after": ...}, ...])       # text of models and data sets, escaped
    footer(p)                                                           # versions and parameters, the last cell

Text in tables and blocks is escaped: it may come from anywhere. `say` is Markdown: only numbers and our own words.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from studykit.errors import UserError
from studykit.runs import store

# In a report the class decides (inline grids are not let through); in JupyterLab the style does.
GRID = 'class="{}" style="display: grid; grid-template-columns: repeat(auto-fit, minmax({}rem, 1fr)); gap: 0 1rem"'
NUMERAL = re.compile(r"[-+\u2212]?[\d,]*\.?\d+ ?%?")  # a number that the notebook has written out
LINES = 30  # of a block, at most: a model may write nothing but line breaks
SMALL = "font-size: 0.85em; margin: 0.4em 0 0.1em"
PRE = "white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.1em 0 0.6em"


def say(markdown: str) -> None:
    """Sentences that were computed, as Markdown."""
    _display(markdown, markdown, "text/markdown")


def facts(values: Mapping[str, Any], caption: str = "") -> None:
    """A table of two columns: what, and its value."""
    body = "".join(f"<tr>{_head(name, 'row')}{_cell(value)}</tr>" for name, value in values.items())
    _display(_figure(f"<table><tbody>{body}</tbody></table>", caption),
             "\n".join(f"{name}: {written(value)}" for name, value in values.items()))  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> None:
    """A table with a line per mapping; the columns are the keys of all of them, a missing value is a dash."""
    if not rows:
        return
    columns = list(dict.fromkeys(name for row in rows for name in row))
    number = {c: all(_is_number(row.get(c)) for row in rows) for c in columns}
    head = "".join(_head(c, "col", number[c]) for c in columns)
    body = "".join(f"<tr>{''.join(_cell(row.get(c), number[c]) for c in columns)}</tr>" for row in rows)
    _display(_figure(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", caption),
             "\n".join("\t".join(map(written, line)) for line in
                       [columns, *([row.get(c) for c in columns] for row in rows)]))  # fmt: skip


def texts(blocks: Sequence[Mapping[str, str]], caption: str = "", limit: int = 1500) -> None:
    """Blocks of text under their labels, one group per mapping: side by side where there is room, else stacked.

    Args:
        limit: characters of a block that are shown, in 30 lines at most; a note tells how many are left out.
    """
    if not blocks:
        return
    blocks = [{label: _clipped(text, limit) for label, text in block.items()} for block in blocks]
    groups = []
    for block in blocks:
        parts = "".join(f'<div><p style="{SMALL}"><b>{html.escape(label)}</b></p>'
                        f'<pre style="{PRE}">{html.escape(text) or " "}</pre></div>'
                        for label, text in block.items())  # fmt: skip
        grid = GRID.format("texts pairs", 20) if len(block) % 2 == 0 else GRID.format("texts", 15)
        groups.append(f"<div {grid}>{parts}</div>")
    plain = "\n\n".join("\n".join(f"[{label}]\n{text}" for label, text in block.items()) for block in blocks)
    _display(_figure("<hr>".join(groups), caption), plain)


def footer(p: Any) -> None:
    """How the run was made (versions, device, time) and its parameters with their meanings, folded."""
    try:
        made = store.manifest(p.out)
    except UserError:  # nothing was published
        made = None
    if made:
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        commit = made.get("commit")
        code = f" at commit {commit['id'][:10]}{', with changes' * bool(commit['dirty'])}" if commit else ""
        say(f"Made in {made['seconds']:.0f} s on {made['started'][:10]} with {versions}{code}; "
            f"{made['device']}, {made['threads']} thread{'s' * (made['threads'] != 1)}.")  # fmt: skip
    rows = []
    for name, field in type(p).model_fields.items():
        cells = _cell(getattr(p, name)) + _cell(field.description or "")
        rows.append(f"<tr>{_head(name, 'row')}{cells}</tr>")
    head = "".join(_head(c, "col") for c in ("parameter", "value", "meaning"))
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    _display(f"<details><summary>Parameters ({len(rows)})</summary>{inside}</details>",
             "\n".join(f"{name}: {written(value)}" for name, value in p.model_dump().items()))  # fmt: skip


def written(value: Any) -> str:
    """A value as a table shows it: thousands in groups, four significant digits, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {written(v)}" for k, v in value.items())
    return ", ".join(map(written, value)) if isinstance(value, list | tuple) else str(value)


def _clipped(text: str, limit: int) -> str:
    kept = "\n".join(text[:limit].split("\n")[:LINES])
    return text if kept == text else f"{kept}\n… ({len(text) - len(kept):,} more characters)"


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return NUMERAL.fullmatch(value) is not None
    return value is None or isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, number: bool = False) -> str:
    return f'<td style="text-align: {"right" if number else "left"}">{_breakable(written(value))}</td>'


def _breakable(text: str) -> str:
    """Escaped text that may wrap behind the bars of a signature."""
    return html.escape(text).replace("|", "|<wbr>")


def _head(name: str, scope: str, number: bool = False) -> str:
    side = "right" if number else "left"
    return f'<th scope="{scope}" style="text-align: {side}">{html.escape(str(name))}</th>'


def _figure(inside: str, caption: str) -> str:
    below = f'<figcaption style="font-size: 0.9em">{html.escape(caption)}</figcaption>' if caption else ""
    return f'<figure style="margin: 0.8em 0">{inside}{below}</figure>'


def _display(content: str, plain: str, mime: str = "text/html") -> None:
    from IPython.display import display

    display({mime: content, "text/plain": plain}, raw=True)

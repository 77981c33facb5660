"""Sentences, tables and blocks of text in notebooks, and the table that closes every notebook.

    say(f"The loss fell from **{first:.2f}** to **{last:.2f}**.")        # sentences, in Markdown
    facts({"trainable parameters": 18784, "time (s)": 12.5})             # names and values
    table([{"language": "lua", "rows": 30}, ...], "Rows per language.")  # one row per mapping
    texts([{"prompt": ..., "reference": ..., "prediction": ...}, ...])   # texts of models and data
    fold("How sure is this?", ["The seeds **agree**."])                  # sentences that open on a click
    footer(p)                                                            # versions and parameters

`facts`, `table`, `texts` and `footer` escape every text, which may come from a model or a data
set. `say` takes Markdown, so it is for numbers and for words of our own only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from studykit.errors import UserError
from studykit.runs.manifest import finished_run
from studykit.runs.text import format_duration, format_value, plural
from studykit.study.parameters import AnyParams

NUMERAL = re.compile(r"[-+\u2212]?[\d,]*\.?\d+ ?%?")  # a number that the notebook has formatted itself
MAX_LINES = 30  # of a block of text: a model may write nothing but line breaks

# JupyterLab obeys the inline styles. A report drops `display: grid` and obeys the class instead.
CAPTION = Markup('<figcaption style="font-size: 0.9em">{}</figcaption>')
CELL = Markup('<td style="text-align: {}">{}</td>')
FIGURE = Markup('<figure style="margin: 0.8em 0">{}{}</figure>')
FOLD = Markup("<details><summary>{}</summary>{}</details>")
GRID = Markup(
    '<div class="{}" style="display: grid; grid-template-columns: repeat(auto-fit, minmax({}rem, 1fr)); '
    'gap: 0 1rem">{}</div>'
)
HEADING = Markup('<th scope="{}" style="text-align: {}">{}</th>')
TEXT = Markup(
    '<div><p style="font-size: 0.85em; margin: 0.4em 0 0.1em"><b>{}</b></p>'
    '<pre style="white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.1em 0 0.6em">{}</pre></div>'
)


def say(markdown: str) -> None:
    """Shows sentences, in Markdown, whose numbers were computed."""
    _display(markdown, markdown, "text/markdown")


def facts(values: Mapping[str, Any], caption: str = "") -> None:
    """Shows a table of two columns: a name and its value in each row."""
    rows = Markup().join(_row([_heading(name, "row"), _cell(value)]) for name, value in values.items())
    _display(_figure(Markup("<table><tbody>{}</tbody></table>").format(rows), caption), _plain_facts(values))


def fold(title: str, sentences: Iterable[str] | Mapping[str, Iterable[str]]) -> None:
    """Shows sentences in a list that is closed until the reader opens it; **bold** as in Markdown. Nothing for none.

    sentences: a mapping has a list below each of its keys.
    """
    lists = sentences if isinstance(sentences, Mapping) else {"": sentences}
    groups = {heading: list(texts) for heading, texts in lists.items()}
    content = Markup().join(
        (Markup("<p>{}</p>").format(_bold(heading)) if heading else Markup())
        + Markup("<ul>{}</ul>").format(Markup().join(Markup("<li>{}</li>").format(_bold(text)) for text in texts))
        for heading, texts in groups.items()
    )
    if any(groups.values()):
        plain = [line for heading, texts in groups.items() for line in (heading, *texts) if line]
        _display(FOLD.format(_bold(title), content), "\n".join([title, *plain]))


def _bold(text: str) -> Markup:
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(text))))


def table(rows: Sequence[Mapping[str, Any]], caption: str = "", folded: str = "", zeros: bool = True) -> None:
    """Shows a table with one row per mapping.

    folded: the title of a fold that hides the table until the reader opens it.
    zeros: False leaves out the columns that are 0 in every row.

    The columns are the keys of all mappings, in the order in which they first appear; a missing
    value is a dash. Columns that hold only numbers are aligned to the right. Without rows nothing
    is shown.
    """
    if not rows:
        return
    columns = list(dict.fromkeys(name for row in rows for name, value in row.items() if zeros or value != 0))
    numeric = {name: all(_is_number(row.get(name)) for row in rows) for name in columns}
    head = _row(_heading(name, "col", numeric[name]) for name in columns)
    body = Markup().join(_row(_cell(row.get(name), numeric[name]) for name in columns) for row in rows)
    lines: list[list[Any]] = [columns, *([row.get(name) for name in columns] for row in rows)]
    plain = "\n".join("\t".join(map(format_value, line)) for line in lines)
    shown = _figure(_table(head, body), caption)
    _display(FOLD.format(folded, shown) if folded else shown, plain)


def texts(blocks: Sequence[Mapping[str, str]], caption: str = "", limit: int = 1500) -> None:
    """Shows groups of labelled texts, one group per mapping, side by side where there is room.

    Args:
        limit: characters of a text that are shown, in MAX_LINES lines at most; a note counts the rest.
    """
    if not blocks:
        return
    blocks = [{label: _shortened(text, limit) for label, text in block.items()} for block in blocks]
    groups = []
    for block in blocks:
        group = Markup().join(TEXT.format(label, text or " ") for label, text in block.items())
        in_pairs = len(block) % 2 == 0
        groups.append(GRID.format("texts pairs" if in_pairs else "texts", 20 if in_pairs else 15, group))
    plain = "\n\n".join("\n".join(f"[{label}]\n{text}" for label, text in block.items()) for block in blocks)
    _display(_figure(Markup("<hr>").join(groups), caption), plain)


def footer(p: AnyParams) -> None:
    """Shows how a run was made and, folded, its parameters with their meanings.

    Its time, device, versions and commit are those of its manifest; without one, only the
    parameters are shown.
    """
    try:
        manifest = finished_run(p.out).manifest
    except UserError:
        manifest = None
    if manifest:
        commit = manifest.commit
        changes = " with changes" if commit and commit.dirty else ""
        code = f", from commit {commit.id[:10]}{changes}" if commit else ""
        versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
        say(
            f"This run took {format_duration(manifest.seconds)} on {manifest.started[:10]}, on "
            f"{manifest.device} with {plural(manifest.threads, 'thread')}{code}. It used {versions}."
        )
    head = _row(_heading(name, "col") for name in ("parameter", "value", "meaning"))
    fields = type(p).model_fields.items()
    body = Markup().join(
        _row([_heading(name, "row"), _cell(getattr(p, name)), _cell(field.description or "")]) for name, field in fields
    )
    _display(FOLD.format(f"Parameters ({len(fields)})", _table(head, body)), _plain_facts(p.model_dump()))


def _shortened(text: str, limit: int) -> str:
    shown = "\n".join(text[:limit].split("\n")[:MAX_LINES])
    return text if shown == text else f"{shown}\n… ({len(text) - len(shown):,} more characters)"


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return NUMERAL.fullmatch(value) is not None
    return value is None or isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, numeric: bool = False) -> Markup:
    """Returns a table's cell; its text may wrap after the bars of a metric's signature."""
    return CELL.format("right" if numeric else "left", escape(format_value(value)).replace("|", Markup("|<wbr>")))


def _heading(name: str, scope: str, numeric: bool = False) -> Markup:
    return HEADING.format(scope, "right" if numeric else "left", name)


def _row(cells: Iterable[Markup]) -> Markup:
    return Markup("<tr>{}</tr>").format(Markup().join(cells))


def _table(head: Markup, body: Markup) -> Markup:
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body)


def _figure(content: Markup, caption: str) -> Markup:
    return FIGURE.format(content, CAPTION.format(caption) if caption else "")


def _plain_facts(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {format_value(value)}" for name, value in values.items())


def _display(content: str, plain: str, mime: str = "text/html") -> None:
    from IPython.display import display

    display({mime: str(content), "text/plain": plain}, raw=True)

"""The document of a report: its templates, its style, and the policy that lets it request nothing.

A page requests nothing from any network: its content policy forbids it, and allows no script but the explorer's. The
Jinja2 engine of the templates (`templates/`) escapes every text.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from studykit.report.sealed import content_hash
from studykit.runs import files as run_files
from studykit.runs import status as runs_status
from studykit.runs.text import format_bytes, format_duration, format_value, plural
from studykit.study.fields import kind
from studykit.study.parameters import STAGES
from studykit.study.plan import Run

FOLDER = Path(__file__).parent
TABLE_FORMATS = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}  # endings of a comparison's exported tables
MARK = "studykit-source"  # name of the <meta> that holds the digest of what a page was made from


@cache
def _templates() -> Environment:
    """Returns the engine of all templates; it escapes every value that is not clean HTML."""
    engine = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {
        "duration": format_duration,
        "memory": lambda mebibytes: format_bytes(mebibytes * 2**20),
        "number": lambda value: format_value(value, 3),
        "ordered_parameters": _ordered_parameters,
        "plural": plural,
        "state_words": lambda state: runs_status.WORDS.get(state, state),
        "strong": lambda text: Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))),
        "words": lambda name: name.replace("_", " "),
    }
    return engine


def render(template: str, **values: Any) -> Markup:
    """Returns a filled template as clean HTML."""
    return Markup(_templates().get_template(template).render(values))


def document(title: str, content: Markup, mark: str) -> str:
    """Returns a whole page: its content policy allows what is inside it and nothing else.

    Args:
        content: clean HTML; a frame in it can only be an explorer's. Then the policy names its script by its hash, and
            that of the report which opens the view that the page's address names.
        mark: a digest of what the page is made from.
    """
    scripts, script = "'none'", ""
    if "<iframe" in content:
        from studykit.report.explorer.page import link_script, page_script  # imports matplotlib

        script = link_script()
        scripts = f"'{content_hash(page_script())}' '{content_hash(script)}'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    style = Markup((FOLDER / "report.css").read_text(encoding="utf-8"))
    values = {"policy": policy, "mark_name": MARK, "mark": mark, "title": title, "style": style, "content": content}
    return str(render("document.html.j2", **values, script=Markup(script)))


def _ordered_parameters(run: Run) -> list[tuple[str, Any]]:
    """Returns a run's parameters with their values: its role first, the paths of its inputs last."""
    model = STAGES[run.stage].model
    ranks: dict[str | None, int] = {"role": 0, "path": 2}
    names = sorted(run.params, key=lambda name: ranks.get(kind(model, name), 1))
    return [(name, run.params[name]) for name in names if name != "out"]


def exported_tables(run: Run) -> dict[str, str]:
    """Returns the tables that a run has written for spreadsheets and papers: their names by their endings."""
    folder = run_files.project_path(run.dir)
    return {ending: name for ending, name in TABLE_FORMATS.items() if (folder / f"table.{ending}").is_file()}

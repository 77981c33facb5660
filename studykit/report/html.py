"""An executed notebook as a piece of HTML: prose and outputs without code, safe to show and complete without a network.

Outputs hold text that models and datasets wrote, so no HTML of theirs is trusted: it passes an allow-list (tables,
figures, images inside the page, frames that are sandboxed away from it), everything else is escaped or dropped.
Progress bars and the noise of warnings go; every image has an alternative text, every table a box to scroll in.
"""

from __future__ import annotations

import base64
import html
import re
import uuid
from typing import Any

import bleach
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup, Tag
from bs4.dammit import EntitySubstitution
from bs4.formatter import HTMLFormatter
from nbconvert import HTMLExporter
from nbconvert.filters import ansi2html
from nbformat import NotebookNode

TAGS = frozenset(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 "
    "hr i iframe img kbd li mark ol p pre q s small span strong sub summary sup table tbody td tfoot th thead tr u "
    "ul wbr".split()
)
STYLES = CSSSanitizer(allowed_css_properties=(
    "background background-color border color font-family font-size font-style font-weight height line-height margin "
    "max-width min-width padding text-align text-decoration vertical-align white-space width").split())  # fmt: skip
ATTRIBUTES = {"alt", "class", "colspan", "height", "href", "id", "open", "rowspan", "scope", "src", "srcdoc", "sandbox",
              "style", "title", "width", "start", "loading"}  # fmt: skip
INLINE = re.compile(r"data:image/(?:svg\+xml|png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
PROGRESS = re.compile(r"\d+%\||\b\d+it \[|(?:it|s)/(?:s|it)\]|^\s*\d+/\d+ \[")
WARNING = re.compile(r"^(?:\S*/)?([\w.-]+\.py):\d+: (\w*Warning): ")
NUMBER = re.compile(r"[-+−±]?[\d.,]+(?:e[-+]?\d+)?\s*%?|nan|NaN|inf|None|–|-|")
NOT_IN_REPORT = "not-in-report"  # the tag of cells for who runs a notebook: what it needs, its parameters, what is next
SHOWN_MIMES = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/plain")
OBJECT = re.compile(r"^<[\w. ]+( object| at 0x|[^>]*>$)")


def body(notebook: NotebookNode, prose: NotebookNode | None = None) -> tuple[str, str]:
    """The title of an executed notebook and the rest of it, both HTML.

    What helps who runs the notebook and nobody who reads its report is tagged NOT_IN_REPORT: of such cells only errors
    and warnings are shown. `prose`: the notebook as it is now, whose markdown cells and tags (matched by id) replace
    those of the executed copy, so that mending a sentence needs no new run.
    """
    images = _Images()
    notebook = nbformat.from_dict(notebook)
    fresh = {(c["cell_type"], c["id"]): c for c in (prose or {}).get("cells", ()) if "id" in c}
    cells, heading = [], "this notebook"
    for cell in notebook.cells:
        now = fresh.get((cell.cell_type, cell.get("id")), cell)
        left_out = NOT_IN_REPORT in now["metadata"].get("tags", ())
        if cell.cell_type == "markdown" and "papermill-error-cell-tag" not in cell.metadata.get("tags", ()):
            if left_out:
                continue
            cell.source = images.lift(now["source"])
            headings = re.findall(r"^#+\s+(.+)$", cell.source, flags=re.M)
            heading = headings[-1] if headings else heading
            cells.append(cell)
        elif cell.cell_type == "code" and cell.outputs:
            alt = cell.metadata.get("alt") or f"Figure in the section “{heading}”"
            shown = [o for o in _joined(cell.outputs) if not left_out or _is_trouble(o)]
            parts = [_output(o, alt, images) for o in shown]
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": p}) for p in parts if p]
            cells.append(cell)
    notebook.cells = cells
    notebook.metadata.pop("widgets", None)
    text, _ = _exporter().from_notebook_node(notebook)
    soup = _finished(text)
    first = soup.find("h1")
    title = first.extract().decode_contents() if first else ""
    return title, images.restore(str(soup))


def _exporter() -> HTMLExporter:
    return HTMLExporter(
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True,
        exclude_anchor_links=True, mathjax_url="", require_js_url="", jquery_url="",
        mermaid_js_url="", mermaid_layout_elk_js_url="", jupyter_widgets_base_url="", widget_renderer_url="",
    )  # fmt: skip


class _Images:
    """Keeps inlined images out of the parsers' way: they are large, base64 and need no escaping."""

    def __init__(self) -> None:
        self.token, self.kept = uuid.uuid4().hex, []

    def lift(self, text: str) -> str:
        return INLINE.sub(lambda found: self.keep(found[0]), text)

    def keep(self, url: str) -> str:
        self.kept.append(re.sub(r"\s", "", url))
        return f"data:image/kept;{self.token}-{len(self.kept) - 1}"

    def restore(self, text: str) -> str:
        return re.sub(rf"data:image/kept;{self.token}-(\d+)", lambda found: self.kept[int(found[1])], text)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with runs of the same stream made one: papermill records a stream in pieces."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output.copy())
    return joined


def _is_trouble(output: NotebookNode) -> bool:
    return output.output_type == "error" or output.get("name") == "stderr"


def _output(output: NotebookNode, alt: str, images: _Images) -> str:
    """One output as HTML, or "" for what a reader does not need."""
    if output.output_type == "stream":
        return _stderr(output.text) if output.name == "stderr" else _pre(_terminal(output.text), "stdout")
    if output.output_type == "error":
        said = html.escape(f"{output.ename}: {output.evalue}".strip().split("\n")[0])
        trace = "\n".join(output.traceback)
        return (f'<div class="failure" role="alert"><p><strong>This cell failed.</strong> {said}</p>'
                f"<details><summary>Traceback</summary>{_pre(trace)}</details></div>")  # fmt: skip
    data: dict[str, Any] = output.data
    if any("widget-view" in mime for mime in data):
        return ""  # a live widget, in most cases a progress bar: dead outside JupyterLab
    mime = next((m for m in SHOWN_MIMES if m in data), None)
    if mime is None:
        return ""
    if mime == "text/html":
        return safe_html(images.lift(data[mime]))
    if mime == "text/markdown":
        return safe_html(HTMLExporter(exclude_anchor_links=True).markdown2html({}, images.lift(data[mime])))
    if mime == "text/plain":
        return "" if OBJECT.match(data[mime]) else _pre(data[mime])
    own = output.metadata
    alt = own.get(mime, {}).get("alt") or own.get("alt") or own.get("caption") or alt
    encoded = images.keep(f"data:{mime};base64,{_base64(data[mime], mime)}")
    width = own.get(mime, {}).get("width")
    size = f' width="{int(width)}"' if isinstance(width, int | float) else ""
    return f'<figure><img src="{encoded}" alt="{html.escape(str(alt))}"{size}></figure>'


def _base64(data: str, mime: str) -> str:
    return base64.b64encode(data.encode()).decode() if mime == "image/svg+xml" else data


def _pre(text: str, kind: str = "") -> str:
    """Terminal text: escaped, its ANSI colours kept."""
    text = text.strip("\n")
    return f'<pre class="{kind}" tabindex="0">{ansi2html(text)}</pre>' if text.strip() else ""


def _terminal(text: str) -> str:
    """What a terminal would show: a carriage return begins the line anew."""
    lines = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return "\n".join(line for line in lines if not PROGRESS.search(line))


def _stderr(text: str) -> str:
    """Standard error without progress bars; what is left is folded, warnings without the paths of this machine."""
    lines, skip = [], False
    for line in text.split("\n"):
        if skip:  # the source line that Python prints under a warning
            skip = False
            if line.startswith("  "):
                continue
        if "\r" in line or PROGRESS.search(line) or not line.strip():
            continue
        tidy = WARNING.sub(r"\2 (\1): ", line)
        skip = tidy != line
        lines.append(tidy)
    if not lines:
        return ""
    lines = list(dict.fromkeys(lines))
    count = "1 message" if len(lines) == 1 else f"{len(lines)} messages"
    return f'<details class="notes"><summary>{count} on standard error</summary>{_pre(chr(10).join(lines))}</details>'


def safe_html(text: str) -> str:
    """`text` with only the tags, attributes and styles that a table, a figure or prose needs."""
    soup = BeautifulSoup(text, "html.parser")
    for dropped in soup.select("script, style, link, meta, base, object, embed, form, noscript, template, title"):
        dropped.decompose()
    plain = soup.decode(formatter=_Quoted(EntitySubstitution.substitute_xml))
    return bleach.clean(plain, tags=TAGS, attributes=_allowed, css_sanitizer=STYLES, strip=True,
                        protocols=("http", "https", "mailto", "data"))  # fmt: skip


class _Quoted(HTMLFormatter):
    """Attributes in double quotes always: bleach escapes twice what stands in single ones."""

    def attribute_value(self, value: str) -> str:
        return super().attribute_value(value).replace('"', "&quot;")


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and value.startswith("data:image/")
    if name == "href":
        return tag == "a" and not value.strip().lower().startswith(("data:", "javascript:"))
    if name == "style":
        return "url" not in value.lower() and "\\" not in value
    if name == "srcdoc":
        return tag == "iframe"
    return name in ATTRIBUTES or name.startswith(("aria-", "data-")) or name == "role"


def _finished(text: str) -> BeautifulSoup:
    """The last repairs on the whole: alternative texts, boxes for tables, frames that stay sandboxed."""
    soup = BeautifulSoup(text, "html.parser")
    for dropped in soup.select("script, style, link"):
        dropped.decompose()
    for image in soup.find_all("img"):
        if not image.get("src", "").startswith("data:"):
            image.replace_with(f"[image {image.get('src', '')} is not in this report]")
        elif not image.get("alt", "").strip() or image["alt"].startswith("No description has been"):
            image["alt"] = "Figure without a description"
    for frame in soup.find_all("iframe"):
        asked = set(frame.get_attribute_list("sandbox"))
        frame["sandbox"] = " ".join(sorted(asked & {"allow-scripts", "allow-downloads"}))
        frame["title"] = frame.get("title") or "Interactive figure"
        on_paper = soup.new_tag("p", attrs={"class": "on-paper"})
        on_paper.string = f"Interactive in the page that this was printed from: {frame['title']}"
        frame.insert_before(on_paper)
    for table in soup.find_all("table"):
        _align(table)
        if table.find_parent("table") is None:
            table.attrs.pop("border", None)
            table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "region",
                                                  "aria-label": "Table"}))  # fmt: skip
    for heading in soup.select("h1, h2, h3, h4, h5, h6"):
        for anchor in heading.select("a.anchor-link"):
            anchor.decompose()
    return soup


def _align(table: Tag) -> None:
    """Mark the columns of numbers, which stand to the right; text stays to the left."""
    rows = [row.find_all("td", recursive=False) for row in table.find_all("tr")]
    rows = [row for row in rows if row]
    heads = [row.find_all("th") for row in table.select("thead tr")]
    for at in range(-1, -1 - min(map(len, rows), default=0), -1):
        column = [row[at] for row in rows]
        if all(NUMBER.fullmatch(cell.get_text().strip()) for cell in column):
            for cell in column + [head[at] for head in heads if len(head) >= -at]:
                cell["class"] = [*cell.get("class", []), "number"]

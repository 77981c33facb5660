"""An executed notebook as HTML for a report: its prose and outputs, made harmless.

Outputs and prose may hold HTML that a model or a data set wrote. The finished HTML is therefore
cleaned once, as a whole, last of all, and by a list of what is allowed: tags of prose, tables and
figures, and a few of their attributes and styles. Two kinds of content are put back after the
cleaning, as the value of an attribute and escaped: images that the notebook holds as base64, and
explorers, whose pages are made again with this library's script and the notebook's data. No other
frame and no other script reaches a report.

Progress bars and the noise of warnings are left out. Every image gets an alternative text, every
table a box in which it scrolls. Nothing in the HTML needs a network.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import nh3
from bs4 import BeautifulSoup, Tag
from bs4.element import AttributeValueList
from markupsafe import Markup, escape
from nbconvert import HTMLExporter
from nbconvert.filters import ansi2html
from nbformat import NotebookNode

from studykit.report import glossary
from studykit.report.sections import Section, answer_first, lead_links
from studykit.runs.text import plural

TAGS = set(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 "
    "hr i iframe img kbd li mark ol p pre q s small span strong sub summary sup table tbody td tfoot th thead tr u "
    "ul wbr".split()
)
DROPPED_WITH_CONTENT = set("embed math noscript object script select style svg template textarea title".split())
ATTRIBUTES = {
    "*": {"class", "id", "role", "style", "tabindex", "title"},
    "a": {"href"},
    "details": {"open"},
    "iframe": {"srcdoc"},
    "img": {"alt", "height", "src", "width"},
    "ol": {"start"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}
STYLES = set(
    "background background-color border color font-family font-size font-style font-weight height line-height margin "
    "max-width min-width padding text-align text-decoration vertical-align white-space width".split()
)
LINK_SCHEMES = {"http", "https", "mailto"}
SANDBOX = "allow-scripts allow-downloads"  # of an explorer's frame, which has no origin

INLINE_IMAGE = re.compile(r"data:image/(?:svg\+xml|png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
PROGRESS_BAR = re.compile(r"\d+%\||\b\d+it \[|(?:it|s)/(?:s|it)\]|^\s*\d+/\d+ \[")
PYTHON_WARNING = re.compile(r"^(?:\S*/)?([\w.-]+\.py):\d+: (\w*Warning): ")
NUMBER = re.compile(r"[-+−±]?[\d.,]+(?:e[-+]?\d+)?\s*%?|nan|NaN|inf|None|–|-|")
BARE_OBJECT = re.compile(r"^<[\w. ]+( object| at 0x|[^>]*>$)")  # the repr of a Python object
NOT_IN_REPORT = "not-in-report"  # tag of the cells that help only those who run a notebook
SHOWN_MIMES = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/plain")


@dataclass(frozen=True)
class RenderedNotebook:
    """A notebook as two pieces of clean HTML, and its contents as text."""

    title: Markup  # the content of its first heading; empty for a notebook without one
    content: Markup  # everything else
    contents: Sequence[tuple[str, str]] = ()  # id and text of each heading of a part


def render_notebook(
    notebook: NotebookNode, current: NotebookNode | None = None, methods: Sequence[str] = ()
) -> RenderedNotebook:
    """Returns the prose and the outputs of an executed notebook as clean HTML.

    Cells that are tagged NOT_IN_REPORT show nothing but their errors and warnings. `current` is
    the notebook as it is now: its Markdown cells and its tags replace those of the executed copy
    where the cell ids are equal, so that a sentence can be corrected without another run. `methods`
    are those of the study: explorers get their colours, which a run does not know.
    """
    embedded = _Embedded()
    current_cells = current.cells if current else []
    replacements = {(cell["cell_type"], cell["id"]): cell for cell in current_cells if "id" in cell}
    sections, heading = [Section("")], "this notebook"
    for cell in notebook["cells"]:
        latest = replacements.get((cell["cell_type"], cell.get("id")), cell)
        hidden = NOT_IN_REPORT in latest["metadata"].get("tags", ())
        written_by_papermill = "papermill-error-cell-tag" in cell["metadata"].get("tags", ())
        if cell["cell_type"] == "markdown" and (begins := re.match(r"## (.+)", latest["source"])):
            sections.append(Section(begins[1].strip()))
        if cell["cell_type"] == "markdown" and not hidden and not written_by_papermill:
            source = embedded.lift_images(latest["source"])
            heading = [heading, *re.findall(r"^#+\s+(.+)$", source, flags=re.M)][-1]
            sections[-1].parts.append(_markdown(source, cell))
        elif cell["cell_type"] == "code":
            alt = cell["metadata"].get("alt") or f"Figure in the section “{heading}”"
            for output in _joined_streams(cell["outputs"]):
                if not hidden or _is_trouble(output):
                    sections[-1].parts.append(_output(output, alt, embedded))
                    sections[-1].has_outputs = True
    parts = [part for section in answer_first(sections) for part in section.parts]
    soup = BeautifulSoup("\n".join(parts), "html.parser")
    _finish(soup, embedded, methods)
    first = soup.find("h1")
    heading = first.extract().decode_contents() if first else ""
    title, content = (embedded.put_back(_clean(text, embedded)) for text in (heading, str(soup)))
    contents = [(str(part["id"]), part.get_text().removesuffix("(?)").strip()) for part in soup.find_all("h2")]
    return RenderedNotebook(title, content, contents)


class _Embedded:
    """Large values of attributes, kept away from the parsers under tokens that nobody can guess."""

    def __init__(self) -> None:
        self.prefix = f"embedded-{uuid.uuid4().hex}-"
        self.values: list[str] = []

    def lift(self, value: str) -> str:
        """Keeps a value and returns its token."""
        self.values.append(value)
        return f"{self.prefix}{len(self.values) - 1}."

    def lift_images(self, text: str) -> str:
        """Returns `text` with a token in the place of every image that it holds as base64."""
        return INLINE_IMAGE.sub(lambda url: self.lift(re.sub(r"\s", "", url[0])), text)

    def put_back(self, text: str) -> Markup:
        """Returns clean HTML with the values, escaped, in the places of their tokens."""
        token = rf"{self.prefix}(\d+)\."
        return Markup(re.sub(token, lambda found: escape(self.values[int(found[1])]), text))


def _clean(text: str, embedded: _Embedded) -> str:
    """Returns `text` with only the tags, attributes and styles that are allowed.

    No text of a notebook reaches a report by another way.
    """

    def allowed(tag: str, name: str, value: str) -> str | None:
        if name in ("src", "srcdoc"):
            return value if value.startswith(embedded.prefix) else None
        if name == "style":  # neither url() nor image-set(), nor their names in escaped letters
            return None if "(" in value or "\\" in value else value
        return value

    text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be written to a file
    return nh3.clean(
        text,
        tags=TAGS,
        clean_content_tags=DROPPED_WITH_CONTENT,
        attributes=ATTRIBUTES,
        generic_attribute_prefixes={"aria-"},
        attribute_filter=allowed,
        filter_style_properties=STYLES,
        url_schemes=LINK_SCHEMES,
        set_tag_attribute_values={"iframe": {"sandbox": SANDBOX}},
    )


# Cells


def _markdown(source: str, cell: NotebookNode | None = None) -> str:
    return _exporter().markdown2html({"cell": cell or {}}, source)


@cache
def _exporter() -> HTMLExporter:
    return HTMLExporter(exclude_anchor_links=True)


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Returns outputs with the pieces of a stream joined; papermill records a stream in pieces."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if _is_stream(output) and last is not None and _is_stream(last) and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output.copy())
    return joined


def _is_stream(output: NotebookNode) -> bool:
    return output.output_type == "stream"


def _is_trouble(output: NotebookNode) -> bool:
    return output.output_type == "error" or output.get("name") == "stderr"


def _output(output: NotebookNode, alt: str, embedded: _Embedded) -> str:
    """Returns one output as HTML, not yet clean; "" for an output that a reader does not need."""
    if _is_stream(output) and output.name == "stderr":
        return _standard_error(output.text)
    if _is_stream(output):
        return _preformatted(_on_terminal(output.text))
    if output.output_type == "error":
        return _failure(output)
    data = output.data
    mime = next((mime for mime in SHOWN_MIMES if mime in data), None)
    if mime is None or any("widget-view" in form for form in data):
        return ""  # widgets are dead outside JupyterLab
    if mime == "text/html":
        return embedded.lift_images(data[mime])
    if mime == "text/markdown":
        return _markdown(embedded.lift_images(data[mime]))
    if mime == "text/plain":
        return "" if BARE_OBJECT.match(data[mime]) else _preformatted(data[mime])
    return _image(output, mime, alt, embedded)


def _failure(output: NotebookNode) -> Markup:
    message = f"{output.ename}: {output.evalue}".strip().split("\n")[0]
    return Markup(
        '<div class="failure" role="alert"><p><strong>This cell failed.</strong> {}</p>'
        "<details><summary>Traceback</summary>{}</details></div>"
    ).format(message, _preformatted("\n".join(output.traceback)))


def _image(output: NotebookNode, mime: str, alt: str, embedded: _Embedded) -> Markup:
    data, general = output.data[mime], output.metadata
    special = general.get(mime, {})  # metadata of this form of the output
    if mime == "image/svg+xml":
        data = base64.b64encode(data.encode()).decode()
    url = embedded.lift(f"data:{mime};base64,{data.strip()}")
    alt = special.get("alt") or general.get("alt") or general.get("caption") or alt
    width = special.get("width")
    size = Markup(' width="{}"').format(int(width)) if isinstance(width, int | float) else ""
    return Markup('<figure><img src="{}" alt="{}"{}></figure>').format(url, alt, size)


def _preformatted(text: str) -> Markup:
    """Returns terminal text as HTML: escaped, with its ANSI colours."""
    if not text.strip():
        return Markup()
    return Markup('<pre tabindex="0">{}</pre>').format(Markup(ansi2html(text.strip("\n"))))


def _on_terminal(text: str) -> str:
    """Returns the text that a terminal would show: a carriage return overwrites its line."""
    lines = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return "\n".join(line for line in lines if not PROGRESS_BAR.search(line))


def _standard_error(text: str) -> Markup:
    """Returns standard error, folded, without progress bars and the paths of this machine."""
    lines, after_warning = [], False
    for line in text.split("\n"):
        if after_warning:  # Python prints the line of source below its warning
            after_warning = False
            if line.startswith("  "):
                continue
        if "\r" in line or PROGRESS_BAR.search(line) or not line.strip():
            continue
        tidy = PYTHON_WARNING.sub(r"\2 (\1): ", line)
        after_warning = tidy != line
        lines.append(tidy)
    if not lines:
        return Markup()
    lines = list(dict.fromkeys(lines))
    return Markup('<details class="notes"><summary>{} on standard error</summary>{}</details>').format(
        plural(len(lines), "message"), _preformatted("\n".join(lines))
    )


# The whole


def _finish(soup: BeautifulSoup, embedded: _Embedded, methods: Sequence[str]) -> None:
    """Describes images, replaces frames and puts tables into boxes; the cleaning comes later."""
    for n, part in enumerate(soup.find_all("h2"), start=1):
        part["id"] = f"part-{n}"
    lead_links(soup)
    glossary.explain(soup)
    for replaced in soup.select(".untrusted"):
        replaced.decompose()  # a report shows the page that this picture stands for
    for image in soup.find_all("img"):
        if not str(image.get("src", "")).startswith(embedded.prefix):
            image.replace_with(f"[The image {image.get('src', '')} was left out of this report.]")
        elif not str(image.get("alt", "")).strip() or str(image["alt"]).startswith("No description has been"):
            image["alt"] = "Figure without a description"
    for frame in soup.find_all("iframe"):
        _replace_frame(frame, soup, embedded, methods)
    for table in soup.find_all("table"):
        if table.find_parent("table") is None:
            if table.find("table") is None:
                _align_numbers(table)
            box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Table"}
            table.wrap(soup.new_tag("div", attrs=box))


def _replace_frame(frame: Tag, soup: BeautifulSoup, embedded: _Embedded, methods: Sequence[str]) -> None:
    """Puts an explorer's page, made again, into its frame; a sentence replaces any other frame."""
    page = _explorer_page(str(frame.get("srcdoc", "")), methods)
    if page is None:
        frame.replace_with("[A frame was left out of this report, which keeps explorers only.]")
        return
    title = frame.get("title") or "Interactive figure"
    frame.clear()
    frame.attrs = {"title": title, "style": str(frame.get("style", "")), "srcdoc": embedded.lift(page)}
    on_paper = soup.new_tag("p", attrs={"class": "on-paper"})
    on_paper.string = f"Interactive on a screen, not printed: {str(title).partition('. ')[0]}."
    frame.insert_before(on_paper)


def _explorer_page(page: str, methods: Sequence[str]) -> str | None:
    """Returns an explorer's page with its data and this library's script; None for other pages."""
    soup = BeautifulSoup(page, "html.parser")
    data, summary = soup.select_one("script#data"), soup.select_one("main#explorer > p")
    if data is None or summary is None:
        return None
    from studykit.report.explorer.page import document  # imports matplotlib
    from studykit.report.explorer.payload import recoloured
    from studykit.report.figures.style import method_looks

    try:
        return document(recoloured(json.loads(data.get_text()), method_looks(methods)), summary.get_text())
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None  # its data are not those of an explorer


def _align_numbers(table: Tag) -> None:
    """Marks the columns of numbers, counted from the right, for the style sheet to align."""
    rows = [cells for row in table.find_all("tr") if (cells := row.find_all("td", recursive=False))]
    heads = [row.find_all("th") for row in table.select("thead tr")]
    for at in range(-1, -1 - min(map(len, rows), default=0), -1):
        column = [row[at] for row in rows]
        if all(NUMBER.fullmatch(cell.get_text().strip()) for cell in column):
            for cell in column + [head[at] for head in heads if len(head) >= -at]:
                cell["class"] = AttributeValueList([*(cell.get("class") or []), "number"])

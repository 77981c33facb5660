"""The figure style: colours and markers, alternative texts and captions, and the way into a notebook or a file.

A figure function is decorated with `styled` and returns (figure, alt, caption); its caller gets the matplotlib Figure
with `.alt` and `.caption` attached. `show` puts it into the notebook as an `<img>` that holds the SVG itself: nbconvert
gives SVG outputs no alternative text, JupyterLab drops inline `<svg>` from notebooks that it does not trust, and inside
an image no script can run and no id can collide. Text in the SVG stays text. A figure whose SVG is too large becomes a
PNG.

A method has one colour and one marker in all figures of a page (`method_looks`); members, phases and other categories
are told apart by `category_style`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from studykit.evaluation.results import Verdict
from studykit.study.methods import PHASE_1, titled

# Okabe and Ito's colours, which are distinct under every common colour blindness, without their yellow, which is hard
# to see as a line on white. The order alternates light and dark for grey print, where markers and dashes help.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
SEQUENTIAL = sns.color_palette("mako_r", as_cmap=True)  # perceptually uniform; 0 prints white, 1 black
DIVERGING = mpl.colormaps["PuOr_r"]  # centred at 0; both ends print dark, hence the sign in every cell
GREY = "#666666"
GOOD, BAD = "#00684a", "#a8321a"  # of verdicts
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    # Verdana has DejaVu's widths, so a reader without DejaVu sees the same layout
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.monospace": ["DejaVu Sans Mono", "Menlo", "Consolas", "monospace"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "hatch.linewidth": 0.4,
    "figure.facecolor": "none",  # the colour of the page
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a dollar sign in a token or a name is a dollar sign
}
# A figure has no ground of its own. On JupyterLab's dark theme, its light colours become dark and keep their hue. In a
# notebook that is not trusted, the style is dropped and the figure keeps a white ground, as it does elsewhere.
ON_DARK = (
    "<style>[data-jp-theme-light] .drawn img {background: none !important} "
    '[data-jp-theme-light="false"] .drawn img {filter: invert(1) hue-rotate(180deg)}</style>'
)
MAX_SVG_BYTES = 600_000  # a larger figure is shown as PNG
# Characters that XML 1.0 forbids even when they are escaped; tokens may hold them.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


WIDTH = 8.4  # inches of a figure: the column of a report
TITLE_WIDTH = 30  # characters of a line of a method's title beside an axis


def styled(draw: Callable[..., tuple[Figure, str, str]]) -> Callable[..., Figure]:
    """Decorates a figure function: it runs in the house style, and its figure gets its alternative text and caption."""

    @functools.wraps(draw)
    def draw_styled(*args, **kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            figure, alt, caption = draw(*args, **kwargs)
        figure.alt, figure.caption = alt, caption  # type: ignore[attr-defined]
        return figure

    return draw_styled


def new_figure(rows: int = 1, columns: int = 1, *, width=WIDTH, height=3.2, **kwargs) -> tuple[Figure, np.ndarray]:
    """Returns an empty figure of `width` x `height` inches and its axes (rows, columns).

    It is not part of pyplot's global state, so a notebook does not show it a second time.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def category_style(index: int) -> dict[str, Any]:
    """Returns colour, marker and dash of the index-th category; beyond seven the colours return with other dashes."""
    turn, place = divmod(index, len(COLOURS))
    dash = DASHES[(place + 3 * turn) % len(DASHES)]
    return {"color": COLOURS[place], "marker": MARKERS[(place + turn) % len(MARKERS)], "linestyle": dash}


@dataclass(frozen=True)
class Look:
    """The look of one method's points in every figure."""

    colour: str  # hexadecimal
    marker: str  # one of MARKERS
    filled: bool = True  # False, a hollow marker, for phase 1 of a method that has another phase


def method_looks(methods: Iterable[str]) -> dict[str, Look]:
    """Returns the look of each method of a study, to be passed to every figure of a page.

        looks = method_looks(["base", "bottleneck", "adapterfusion", "advfusion_zero"])
        scores(..., looks=looks)

    The base is grey. The other methods take colours and markers in the order of the study; no two have both in common.
    """
    looks: dict[str, Look] = {}
    for method in methods:
        turn, place = divmod(len(looks.keys() - {"base"}), len(COLOURS))
        looks[method] = Look(COLOURS[place], MARKERS[(place + turn) % len(MARKERS)])
    return looks | ({"base": Look(GREY, "o")} if "base" in looks else {})


def look_of(label: str, looks: Mapping[str, Look] | None) -> Look:
    """Returns the look of a method, or of one of its phases ("advfusion_zero, phase 1").

    A label that names none of the methods gets the first colour: then colours have no meaning in the figure.
    """
    method = max(
        (name for name in looks or {} if re.match(re.escape(name) + r"(?![\w@~^-])", label)), key=len, default=""
    )
    look = (looks or {}).get(method, Look(COLOURS[0], "o"))
    return replace(look, filled=PHASE_1.title not in label.removeprefix(method))


def method_rows(labels: Iterable[str]) -> tuple[list[str], float]:
    """Returns the titles of methods, in lines, for a figure with a row per method, and a row's height in inches."""
    names = [textwrap.fill(titled(label), TITLE_WIDTH, break_on_hyphens=False) for label in labels]
    lines = max((name.count("\n") + 1 for name in names), default=1)
    return names, max(0.42, 0.08 + 0.15 * lines)


def marker_style(look: Look, size: float = 8) -> dict[str, Any]:
    """Returns matplotlib's options for the marker of a method."""
    face = {"markeredgecolor": "black", "markeredgewidth": 0.8}
    if not look.filled:
        face = {"markerfacecolor": "white", "markeredgecolor": look.colour, "markeredgewidth": 1.8}
    return {"color": look.colour, "marker": look.marker, "markersize": size, **face}


def ink_on(colour: ColorType) -> str:
    """Returns "black" or "white", whichever has the higher contrast on the colour (by relative luminance)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour))
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"


def verdict_colour(verdict: Verdict) -> str:
    """Returns the colour of a verdict, which is grey for one that other seeds could reverse."""
    return {"better": GOOD, "worse": BAD}.get(verdict.direction, GREY) if verdict.seeds_confirm else GREY


def legend_above(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """Adds one legend for the whole figure, above the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(columns, len(labels)))


def logarithmic(axes: Axes, of: Literal["x", "y"] = "y", text: Callable[[float], str] = "{:g}".format) -> None:
    """Makes the scale of x or y logarithmic, with plain numbers as its labels: 1, 2 and 5, or all within one decade.

    `text` writes a number. Matplotlib's own labels are powers in TeX, which would be shown as they are written
    (`text.parse_math`).
    """
    axis = axes.xaxis if of == "x" else axes.yaxis

    def label(value: float, _: float) -> str:
        low, high = axis.get_view_interval()
        return text(value) if high < 10 * low or f"{value:e}"[0] in "125" else ""

    axes.set(**{f"{of}scale": "log"})
    axis.set_major_formatter(label)
    axis.set_minor_formatter(label)


def colour_bar(figure: Figure, scale: ScalarMappable, axes: Axes | Iterable[Axes], **options) -> Colorbar:
    """Adds a colour bar of 60 steps, as vectors: matplotlib would make a bitmap of its 256."""
    norm: Any = scale.norm
    bar = figure.colorbar(scale, ax=axes, boundaries=np.linspace(norm.vmin, norm.vmax, 61), **options)
    assert bar.solids is not None  # as there are boundaries
    bar.solids.set_rasterized(False)
    bar.solids.set_edgecolor("face")  # no hairlines between the steps
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    return bar


def svg(figure: Figure, alt: str | None = None) -> str:
    """Returns the figure as one `<svg>` element with role and title, without a prologue, a script or a link."""
    alt = NOT_XML.sub("\ufffd", _attached(figure, "alt", alt))
    salt = hashlib.sha256((alt + getattr(figure, "caption", "")).encode()).hexdigest()  # ids unique across figures
    blank = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    text = NOT_XML.sub("\ufffd", _render(figure, {"svg.hashsalt": salt}, format="svg", metadata=blank).decode())
    text = text[text.index("<svg") :]  # the document type before it names an outside file
    label = html.escape(alt)
    text = _compact(text).replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return text.replace(">", f">\n <title>{label}</title>", 1)


def figure_html(figure: Figure, alt: str | None = None, caption: str | None = None) -> str:
    """Returns a `<figure>` that holds the picture with its alternative text, and the caption below, both escaped."""
    alt, caption = _attached(figure, "alt", alt), _attached(figure, "caption", caption)
    kind, data = "svg+xml", svg(figure, alt).encode()
    if len(data) > MAX_SVG_BYTES:
        kind, data = "png", _render(figure, format="png", dpi=150)
    width = round(figure.get_figwidth() * 96)
    return (
        f'{ON_DARK}<figure class="drawn" style="margin: 0.8em 0; max-width: {width}px">'
        f'<img alt="{html.escape(alt)}" width="{width}" style="max-width: 100%; height: auto; background: white" '
        f'src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
        f'<figcaption style="font-size: 0.9em; line-height: 1.35">{html.escape(caption)}</figcaption></figure>'
    )


def show(figure: Figure, alt: str | None = None, caption: str | None = None, folded: str = "") -> None:
    """Displays a figure in the notebook; raises ValueError without an alternative text or a caption.

    folded: the title of a fold that hides the figure until the reader opens it; it is open in print.
    """
    from IPython.display import display

    alt, caption = _attached(figure, "alt", alt), _attached(figure, "caption", caption)
    shown = figure_html(figure, alt, caption)
    if folded:
        shown = f"<details><summary>{html.escape(folded)}</summary>{shown}</details>"
    display({"text/html": shown, "text/plain": f"[figure: {alt}]\n{caption}"}, raw=True)


def save(figure: Figure, path: str | Path) -> Path:
    """Writes the figure for a paper, in the format that the ending names: .svg, .pdf or .png (300 dpi)."""
    path = Path(path)
    if path.suffix == ".svg":
        path.write_text(svg(figure), encoding="utf-8")
    else:
        path.write_bytes(_render(figure, format=path.suffix[1:], dpi=300))
    return path


def _compact(text: str) -> str:
    """Returns an SVG with classes for repeated styles and without rotations by 0, which halves a token strip."""
    styled = re.compile(r'(<\w[^<>]*) style="([^"<>]*)"')  # only inside a tag, as a text may look like a style
    counts = Counter(style for _, style in styled.findall(text))
    names = {style: f"c{i}" for i, (style, count) in enumerate(counts.items()) if count > 1}
    text = styled.sub(lambda tag: f'{tag[1]} class="{names[tag[2]]}"' if tag[2] in names else tag[0], text)
    text = re.sub(r'(<text [^<>]*) transform="rotate\(-0 [^"]*\)"', r"\1", text)
    rules = "".join(f".{name}{{{html.unescape(style)}}}" for style, name in names.items())
    return text.replace("</style>", rules + "</style>", 1)


def _render(figure: Figure, style: dict | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({**STYLE, **(style or {})}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts may have what ours lack
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def _attached(figure: Figure, name: str, text: str | None) -> str:
    text = text if text is not None else getattr(figure, name, "")
    if not text:
        raise ValueError(f"the figure has no {name} text; give {name}=..., as only figures of studykit have one")
    return text

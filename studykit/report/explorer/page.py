"""The explorer's page: one HTML document that holds its data, style and script, shown in a sandboxed frame.

JupyterLab, a report and a file show the same bytes. The page is sealed (see `sealed`), and the frame has no origin.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studykit.attention import record as attention_record
from studykit.errors import UserError
from studykit.report.explorer.payload import Series, payload, series_of, source_of
from studykit.report.explorer.training import training_of
from studykit.report.figures.style import Look
from studykit.report.sealed import sealed_page
from studykit.runs.files import write_text

# Scripts in the order in which they are joined: each uses those before it.
SCRIPTS = tuple(
    "data colours pens words panels arrange charts views kinds training tokens strip samples link controls copy pdf "
    "export page bench pointer start".split()
)
SCRIPT_END = """})().catch(error => {
  const message = `This page could not start: ${error.message}. It needs a browser of 2023 or later.`;
  document.getElementById("explorer").append(message);
  throw error;
});
"""
SANDBOX = "allow-scripts allow-downloads"
HEIGHT = 640, 900  # pixels of the frame: of one method without layers, and at most
AROUND_PANELS, LOWEST, TALLEST = 170, 560, 1300  # pixels: of header and caption around all panels; bounds of a frame
VIEWS = ("layers", "compare", "all", "depth", "kinds", "tokens", "training")
# The page has the system's theme, which need not be JupyterLab's: then its light colours become dark, or the reverse. A
# report drops the style; it has the system's theme itself.
THEME_IN_JUPYTERLAB = (
    "@media (prefers-color-scheme: light) {[data-jp-theme-light=false] .explorer-frame "
    "{filter: invert(1) hue-rotate(180deg)}} @media (prefers-color-scheme: dark) {[data-jp-theme-light=true] "
    ".explorer-frame {filter: invert(1) hue-rotate(180deg)}}"
)
OF_BENCH = 300  # pixels of a bench above the views
BUDGET = 3_000_000  # compressed bytes of single tokens and their weights, which are at most 4 MB in a page


@dataclass(frozen=True)
class Explorer:
    """A page to explore fusion weights; a notebook shows it in a frame."""

    title: str
    summary: str  # text for readers without scripts and for screen readers
    html: str  # whole document
    height: int  # pixels of the frame
    series: Sequence[Series] = ()  # what it shows, for the picture in a notebook that is not trusted

    @property
    def frame(self) -> str:
        """Returns the document in an `<iframe>` that cannot reach the page around it."""
        return (
            f'<iframe class="explorer-frame" title="{html.escape(self.title)}. {html.escape(self.summary)}" '
            f'sandbox="{SANDBOX}" style="width: 100%; height: {self.height}px; border: 0" '
            f'srcdoc="{html.escape(self.html)}"></iframe>'
        )

    @property
    def untrusted(self) -> str:
        """Returns a picture of the mean weights, and how to trust the notebook, for readers of one without frames.

        A style hides them. JupyterLab drops it together with the frame where it does not trust the notebook.
        """
        from studykit.report.figures.heatmaps import fusion_panels
        from studykit.report.figures.style import figure_html

        first = self.series[0].records[0]
        alike = [one for one in self.series if one.records[0].members == first.members]
        means = {
            one.label: np.mean([attention_record.mean_weights(record) for record in one.records], 0) for one in alike
        }
        picture = figure_html(fusion_panels(means, first.members, first.target, samples=len(first.ids)))
        return (
            f'<style>.untrusted {{display: none}}</style><div class="untrusted">{picture}<p>This picture replaces an '
            "interactive page that JupyterLab shows in trusted notebooks only. If you trust the author, choose "
            "<i>Trust Notebook</i> in the command palette, or run the notebook.</p></div>"
        )

    def save(self, path: str | Path) -> Path:
        """Writes the document as a file that any browser opens, whole or not at all."""
        write_text(Path(path).absolute(), self.html)
        return Path(path)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        html_text = self.frame + (self.untrusted if self.series else "") + f"<style>{THEME_IN_JUPYTERLAB}</style>"
        return {"text/html": html_text, "text/plain": f"[{self.title}] {self.summary}"}


def explore(
    what: Any,
    *,
    title: str = "Fusion weights",
    tokens: str = "completion",
    view: str | None = None,
    at: str = "",
    height: int | None = None,
    budget: int = BUDGET,
    looks: Mapping[str, Look] | None = None,
    training: Mapping[str, Sequence[str | Path]] | None = None,
    live: Mapping[str, Any] | None = None,
) -> Explorer:
    """Returns the explorer of fusion records; a notebook shows it when it is the last value of a cell.

    Args:
        what: a FusionRecord; the path of one, of a fusion_attention run or of a fusion run; a list of these (records
            of one phase are its seeds); or a mapping of names to these, as {"AdvFusion": run, "AdapterFusion": run}.
        tokens: the tokens that are averaged at first, "completion", "prompt" or "both".
        view: the first view, "layers", "compare", "all", "depth", "kinds", "tokens" or "training"; by default
            "compare" for several series and "layers" for one.
        at: the choices that the page opens with, as "view=tokens&sample=2&layer=3", which *Copy link* gives;
            choices that it does not have stay as they are by default.
        height: pixels of the frame; by default as many as the layers or all panels need, within bounds.
        budget: compressed bytes of single tokens and their weights; samples beyond it are left out, and the page gives
            the number of those it holds.
        looks: colours and markers by method as in the figures of the page, see `figures.method_looks`.
        training: fusion runs by method, whose attention at each validation is shown as well.
        live: the form of a bench whose frame reaches a kernel, see `live.LivePage`.

    Raises UserError if there is nothing to explore, or `tokens` or `view` is unknown.
    """
    if view not in (None, *VIEWS):
        raise UserError(f"view={view!r} is unknown; accepted are {', '.join(VIEWS)}")
    series = series_of(what)
    data = payload(series, title=title, tokens=tokens, budget=budget, looks=looks)
    data["training"] = training_of(training or {})
    data["view"] = view or ("compare" if len(series) > 1 else "layers")
    data |= {"at": at, "live": live}
    if source := source_of(what):  # the arguments that make this page again
        given = {name: source_of(runs) for name, runs in (training or {}).items()}
        data["call"] = {"what": source, "title": title, "tokens": tokens, "view": data["view"], "training": given}
    summary = " ".join(f"{_summary(one, tokens)}." for one in series)
    deepest = max(len(one.records[0].layers) for one in series)
    methods = len({one.label.split(" · ")[0] for one in series})  # each has a line of chips
    tall = min(HEIGHT[0] + 24 * deepest + 28 * (methods - 1), HEIGHT[1])
    if view == "all":  # no panel is cut at the lower end, unless there are very many
        across = _panels_across(max(len(one.records[0].members) for one in series))
        tall = AROUND_PANELS + math.ceil(len(series) / across) * _panel_height(deepest)
        tall = min(max(tall, LOWEST), TALLEST)
    tall += OF_BENCH if live else 0
    return Explorer(title, summary, document(data, summary), height or tall, series)


def _panel_height(layers: int) -> int:
    """Returns the pixels of a panel in the view of all series, as `panels.js` draws it on a wide page."""
    row = next(height for most, height in ((6, 40), (12, 31), (24, 23), (50, 18), (layers, 13)) if layers <= most)
    return 108 + row * layers


def _panels_across(members: int) -> int:
    """Returns how many panels of so many members stand side by side there, beside the rail of choices."""
    em, gap, wide = 15, 18, 940
    return max(1, int((wide + gap) // ((2.4 + 1.75 * members) * em + gap)))


def _summary(series: Series, tokens: str) -> str:
    first = series.records[0]
    weight = np.mean([attention_record.target_weights(record, tokens).mean() for record in series.records])
    return (
        f"{series.label}: {len(first.members)} members in {len(first.layers)} layers, n = {len(first.ids)} samples; "
        f"the target's own adapter, {first.target}, gets {weight:.1%} on {tokens} tokens"
    )


def document(data: dict[str, Any], summary: str) -> str:
    """Returns the whole HTML document of a payload."""
    style = (Path(__file__).parent / "explorer.css").read_text(encoding="utf-8")
    content = f"<p>{html.escape(summary)}</p>"
    return sealed_page("explorer", data["title"], content, style, page_script(), data)


def page_script() -> str:
    """Returns the one script of every explorer; a report allows it by its `content_hash` and no other."""
    folder = Path(__file__).parent / "js"
    parts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return "".join(['"use strict";\n(async () => {\n', *parts, SCRIPT_END])


def link_script() -> str:
    """Returns the script of a report that holds explorers, with which its address may name a view of one of them."""
    return (Path(__file__).parent / "js/report.js").read_text(encoding="utf-8")

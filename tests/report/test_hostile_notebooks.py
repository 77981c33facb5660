"""Crafted notebooks in a real browser: nothing that they hold runs, loads, submits or leads away.

There are two borders, and each is tested without the other: the cleaning (in a page without a content policy) and the
content policy (in a page that was not cleaned).
"""

from __future__ import annotations

import re

import pytest
from markupsafe import Markup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from studykit.report import documents, html

RUN = "top.postMessage('ran','*')"
ADDRESS = "http://report.example/"
OUTSIDE = "http://outside.example"
# HTML that browsers have run, loaded or followed, in Markdown or in outputs
HTML = {
    "script": f"<script>{RUN}</script>",
    "module": f"<script type=module>{RUN}</script>",
    "script from outside": f"<script src={OUTSIDE}/x.js></script>",
    "script in capitals": f"<SCRIPT >{RUN}</SCRIPT\n>",
    "nested script": f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    "image error": f"<img src=x onerror=\"{RUN}\">",
    "image error with a slash": f"<img/src=x/onerror=\"{RUN}\">",
    "image of data": f"<img src='data:,x' onerror=\"{RUN}\">",
    "details": f"<details open ontoggle=\"{RUN}\"><summary>x</summary></details>",
    "autofocus": f"<input autofocus onfocus=\"{RUN}\">",
    "focus by tabindex": f"<p tabindex=0 id=a autofocus onfocus=\"{RUN}\">x</p>",
    "svg load": f"<svg onload=\"{RUN}\"></svg>",
    "svg script": f"<svg><script>{RUN}</script></svg>",
    "svg animation": f"<svg><animate onbegin=\"{RUN}\" attributeName=x dur=1s></svg>",
    "svg use": "<svg><use href='data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg></svg>#x'/></svg>",
    "svg foreign": f"<svg><foreignObject><body onload=\"{RUN}\"><img src=x onerror=\"{RUN}\"></foreignObject></svg>",
    "mathml": f"<math><mtext><table><mglyph><style><img src=x onerror=\"{RUN}\"></style></mglyph></table></mtext></math>",
    "mathml link": f"<math><maction xlink:href=\"javascript:{RUN}\">x</maction></math>",
    "style mutation": f"<svg></p><style><a title=\"</style><img src=x onerror={RUN}>\"></style></svg>",
    "title": f"<title><img title='</title><img src=x onerror=\"{RUN}\">'></title>",
    "noscript": f"<noscript><p title='</noscript><img src=x onerror=\"{RUN}\">'></noscript>",
    "textarea": f"<textarea><p title='</textarea><img src=x onerror=\"{RUN}\">'></textarea>",
    "comment": f"<!--><img src=x onerror=\"{RUN}\">-->",
    "comment with a bang": f"<!-- --!><img src=x onerror=\"{RUN}\"> -->",
    "cdata": f"<![CDATA[><img src=x onerror=\"{RUN}\">]]>",
    "template": f"<template><img src=x onerror=\"{RUN}\"></template>",
    "shadow": f"<div><template shadowrootmode=open><img src=x onerror=\"{RUN}\"></template></div>",
    "body": f"<body onload=\"{RUN}\" onpageshow=\"{RUN}\">",
    "media": f"<video><source onerror=\"{RUN}\" src=x></video><audio src=x onerror=\"{RUN}\"></audio>",
    "picture": f"<picture><source srcset={OUTSIDE}/a.png><img srcset={OUTSIDE}/b.png></picture>",
    "marquee": f"<marquee onstart=\"{RUN}\">x</marquee>",
    "animation": f"<style>@keyframes x{{}}</style><p style='animation-name:x' onanimationstart=\"{RUN}\">x</p>",
    "popover": f"<button popovertarget=x>x</button><p popover id=x onbeforetoggle=\"{RUN}\">x</p>",
    "frame": f"<iframe srcdoc=\"<script>{RUN}</script>\"></iframe>",
    "frame that asks for all": "<iframe sandbox='allow-scripts allow-same-origin allow-top-navigation' "
                               f"srcdoc=\"<script>{RUN}</script>\"></iframe>",
    "frame as an explorer": "<iframe sandbox=allow-scripts srcdoc=\"<main id=explorer><p>x</p></main><script id=data>"
                            f"{{'title':1}}</script><script>{RUN}</script>\"></iframe>",
    "frame to a script": f"<iframe src=\"javascript:{RUN}\"></iframe>",
    "frame to outside": f"<iframe src={OUTSIDE}></iframe>",
    "object": f"<object data=\"javascript:{RUN}\"></object><embed src=\"data:text/html,<script>{RUN}</script>\">",
    "link": f"<a href=\"javascript:{RUN}\">x</a><a href=' java\nscript:{RUN}'>x</a>",
    "link of data": f"<a href=\"data:text/html,<script>{RUN}</script>\">x</a>",
    "form": f"<form action={OUTSIDE}><input name=q><button>x</button></form>",
    "form to a script": f"<form><button formaction=\"javascript:{RUN}\">x</button></form>",
    "base": f"<base href={OUTSIDE}/><a id=inside href=x>x</a>",
    "refresh": f"<meta http-equiv=refresh content='0;url={OUTSIDE}'>",
    "refresh to a script": f"<meta http-equiv=refresh content=\"0;url=data:text/html,<script>{RUN}</script>\">",
    "stylesheet": f"<link rel=stylesheet href={OUTSIDE}/x.css><style>@import '{OUTSIDE}/y.css'</style>",
    "prefetch": f"<link rel=preload as=image href={OUTSIDE}/x.png><link rel=dns-prefetch href={OUTSIDE}>",
    "style of an element": f"<p style='background:url({OUTSIDE}/x.png)'>x</p>",
    "style with escapes": f"<p style='background:u\\72l({OUTSIDE}/x.png)'>x</p>",
    "image set": f"<p style='background:image-set(\"{OUTSIDE}/x.png\" 1x)'>x</p>",
}  # fmt: skip
# Markdown, and outputs that are not HTML, all around the same HTML
EVIL = f'<img src=x onerror="{RUN}"><details open ontoggle="{RUN}">'
BREAKING_OUT = f'"><img src=x onerror="{RUN}">'
CELLS = {
    "heading": new_markdown_cell(f"# T <input autofocus onfocus=\"{RUN}\">{EVIL}"),
    "markdown link": new_markdown_cell(f"[x](javascript:{RUN}) [y](<java\nscript:{RUN}>) ![z](x\"onerror=\"{RUN})"),
    "markdown image": new_markdown_cell("![](data:image/png;base64,AAAA\"onerror=\"top.postMessage(1,1)) ![](//o.example)"),
    "code block": new_markdown_cell(f"```html\n{EVIL}\n```\n```\"{BREAKING_OUT}\nx\n```\n```mermaid\n{EVIL}\n```"),
    "formula": new_markdown_cell(f"$x<{EVIL}$ $$</script>{EVIL}$$"),
    "attachment": new_markdown_cell("![](attachment:a)", attachments={"a": {f"image/png{BREAKING_OUT}": BREAKING_OUT}}),
    "alt of a cell": new_code_cell("", outputs=[new_output("display_data", {"image/png": "AA=="})],
                                   metadata={"alt": BREAKING_OUT}),
    "image that is none": new_code_cell("", outputs=[new_output("display_data", {"image/png": BREAKING_OUT})]),
    "svg output": new_code_cell("", outputs=[new_output("display_data", {"image/svg+xml": HTML["svg script"]})]),
    "other outputs": new_code_cell("", outputs=[new_output("display_data", {mime: EVIL}) for mime in (
        "text/plain", "text/markdown", "text/latex", "application/javascript", "application/pdf")]),
    "streams": new_code_cell("", outputs=[new_output("stream", name=n, text=EVIL) for n in ("stdout", "stderr", EVIL)]),
    "error": new_code_cell("", outputs=[new_output("error", ename=EVIL, evalue=EVIL, traceback=[EVIL, f"\x1b[1m{EVIL}"])]),
    "raw": {"cell_type": "raw", "metadata": {"raw_mimetype": "text/html"}, "source": EVIL, "id": "r"},
}  # fmt: skip


TOUCH = """outside => {
  for (const element of document.querySelectorAll('*')) {
    for (const kind of ['mouseover', 'focus', 'toggle', 'error', 'load', 'animationstart'])
      element.dispatchEvent(new Event(kind));
    if (element.matches('button, a[href^="java" i]')) element.click();
    if (element.matches('#inside') && element.href.startsWith(outside)) console.log('RAN');
  }
  return new Promise(done => setTimeout(done, 15));
}"""


def notebooks() -> dict[str, dict]:
    """Every crafted notebook by its name."""
    crafted = {f"{name}, cell": new_markdown_cell(text) for name, text in HTML.items()}
    for name, text in HTML.items():
        crafted[f"{name}, output"] = new_code_cell("", outputs=[new_output("display_data", {"text/html": text})])
    return {name: new_notebook(cells=[cell]) for name, cell in {**crafted, **CELLS}.items()}


@pytest.fixture
def visit(browser):
    """A function that opens a document, touches everything in it, and returns what ran or was asked for.

    With `patience` it looks that many times more while nothing has happened: a busy machine runs an event late.
    """
    page = browser.new_page()
    events: list[str] = []
    shown = [""]

    def answer(route) -> None:
        if route.request.url == ADDRESS:
            route.fulfill(body=shown[0], content_type="text/html; charset=utf-8")
        else:
            events.append(route.request.url)
            route.fulfill(status=204)  # the page stays where it is

    page.route("**", answer)
    page.add_init_script("addEventListener('message', event => console.log('RAN'))")
    page.on("console", lambda message: events.append("RAN") if message.text == "RAN" else None)

    def visit(document: str, patience: int = 0) -> list[str]:
        events.clear()
        shown[0] = document
        page.goto(ADDRESS)
        page.evaluate(TOUCH, OUTSIDE)
        while patience and not events:
            page.wait_for_timeout(20)
            patience -= 1
        return list(events)

    yield visit
    page.close()


def test_the_test_sees_what_a_page_does(visit):
    """Without either border most of these notebooks run something."""
    seen: set[str] = set()
    for patience in (0, 5, 100):  # most happens at once; only what is not seen yet is visited again
        if len(seen) <= len(HTML) / 2 or not {"script", "details", "form", "style of an element"} <= seen:
            seen |= {name for name, text in HTML.items() if name not in seen
                     and visit(f"<!DOCTYPE html><body>{text}</body>", patience)}  # fmt: skip
    assert len(seen) > len(HTML) / 2 and {"script", "details", "form", "style of an element"} <= seen


def test_nothing_in_a_cleaned_notebook_runs_or_loads(visit):
    for name, notebook in notebooks().items():
        rendered = html.render_notebook(notebook)
        document = f"<!DOCTYPE html><body><h1>{rendered.title}</h1><main>{rendered.content}</main></body>"
        assert visit(document) == [], name
        tags = set(re.findall(r"<([a-z]\w*)", rendered.title + rendered.content))
        assert tags <= html.TAGS - {"iframe"}, name


def test_the_content_policy_stops_what_is_not_cleaned(visit):
    """Links and refreshes that leave the page are the cleaning's to remove: no policy of a page stops them."""
    for name, text in HTML.items():
        if "refresh" not in name:
            document = documents.document("Report", Markup(f"{text}<iframe srcdoc=''></iframe>"), "mark")
            assert visit(document) == [], name

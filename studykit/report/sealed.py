"""A sealed page: one HTML document with its data, style and script, in which nothing loads and no other script runs.

The explorer and the rating page are such documents. Their texts come from data sets and models: they are JSON in a tag
that is no script, without any character that HTML interprets, and the page's own script shows them as text alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any


def sealed_page(name: str, title: str, content: str, style: str, script: str, data: Any) -> str:
    """Returns the whole HTML document.

    Args:
        name: the id of the part of the page that the script fills.
        title: in the window's title and as the heading; any text.
        content: HTML below the heading, which the caller has escaped.
        data: what the script reads, see `as_json`.
    """
    policy = (
        f"default-src 'none'; script-src '{content_hash(script)}'; style-src '{content_hash(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    title = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style></head>\n"
        f'<body><main id="{name}"><h1>{title}</h1>{content}</main>\n'
        f'<script type="application/json" id="data">{as_json(data)}</script>\n<script>{script}</script>\n'
        "</body></html>\n"
    )


def as_json(data: Any) -> str:
    """Returns JSON without any character that HTML interprets, so that nothing in it can end the tag around it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def content_hash(text: str) -> str:
    """Returns the source expression with which a content policy allows an inline script or style of this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

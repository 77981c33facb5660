"""The sections of a page: their order, and links to their headings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bs4 import BeautifulSoup

ANSWER = "What we saw"  # the heading of a notebook's findings, which stand where its reader has computed them


@dataclass
class Section:
    """A heading of a notebook with all that follows it up to the next one."""

    heading: str  # "" for what stands before the first one
    parts: list[str] = field(default_factory=list)  # HTML, in order
    has_outputs: bool = False  # of its cells; a notebook that has failed has none from there on


def answer_first(sections: Sequence[Section]) -> list[Section]:
    """Returns the sections of a page with the findings before the others, which a reader of a report wants first."""
    return sorted(sections, key=lambda one: (bool(one.heading), not (one.heading == ANSWER and one.has_outputs)))


def lead_links(soup: BeautifulSoup) -> None:
    """Leads links to headings, written as JupyterLab resolves them, to these headings.

    A link to a heading that is the title of a fold leads into the fold: browsers open one to show a link's target.
    """
    headings = {title.get_text().strip().replace(" ", "-"): title for title in soup.find_all(re.compile("^h[1-6]$"))}
    for link in soup.select('a[href^="#"]'):
        heading = headings.get(str(link["href"])[1:])
        if heading is not None:
            fold = heading.find_parent("summary")
            target = (fold.find_next_sibling() if fold else None) or heading
            target["id"] = target.get("id") or f"linked-{str(link['href'])[1:]}"
            link["href"] = f"#{target['id']}"

"""The sections of a page: their order, and links to their headings."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from bs4.element import PageElement, Tag

ANSWER = "What we saw"  # the heading of a notebook's findings, which stand where its reader has computed them


def put_answer_first(soup: BeautifulSoup) -> None:
    """Moves the findings of a notebook before its first section, since a reader of the report wants them first."""
    headings = soup.find_all("h2")
    answer = next((heading for heading in headings if heading.get_text().strip() == ANSWER), None)
    if answer is None or answer is headings[0]:
        return
    section: list[PageElement] = [answer]
    for part in answer.next_siblings:
        if isinstance(part, Tag) and part.name == "h2":
            break
        section.append(part)
    headings[0].insert_before(*(part.extract() for part in section))


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

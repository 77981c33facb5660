"""Makes a small site of README and docs/, in site/: one HTML file a page, which requests nothing from a network.

    make docs        # the site also holds a report of the quickstart, as an example: your own, or docs/example_report.zip
    make example     # makes docs/example_report.zip of your own

The pages are the Markdown files themselves, in the style of a report. Links between them lead to pages, links to other
files of the repository to copies of these. Pictures stand inside the pages.
"""

from __future__ import annotations

import base64
import mimetypes
import re
import shutil
import sys
import zipfile
from pathlib import Path

from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from studykit.report import documents

ROOT = Path(__file__).parents[1]
# The pages in reading order: file and name in the navigation.
PAGES = {
    "README.md": "Overview",
    "docs/first_study.md": "First study",
    "docs/notebooks.md": "Notebooks",
    "docs/glossary.md": "Glossary",
    "docs/faq.md": "Questions",
    "docs/method.md": "Method",
    "docs/evaluation.md": "Statistics",
    "docs/findings.md": "Findings",
    "docs/reproduction.md": "Published results",
    "docs/clusters.md": "Clusters",
    "docs/extending.md": "Extending",
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changes",
}
EXAMPLE = "reports/quickstart"
PACKED = ROOT / "docs/example_report.zip"


def page_name(file: str) -> str:
    """Returns the name of a page's HTML file."""
    return "index.html" if file == "README.md" else f"{Path(file).stem.lower()}.html"


def build(site: Path, example: Path = ROOT / EXAMPLE) -> list[Path]:
    """Writes the site and returns its pages; `example` is a finished report, for which else the packed one stands."""
    site.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(site / "example", ignore_errors=True)
    if (example / "index.html").is_file():
        shutil.copytree(example, site / "example")
    else:
        shutil.unpack_archive(PACKED, site / "unpacked")
        (site / "unpacked" / Path(EXAMPLE).name).rename(site / "example")
        (site / "unpacked").rmdir()
    pages = []
    for file, title in PAGES.items():
        content = BeautifulSoup(markdown2html_mistune((ROOT / file).read_text(encoding="utf-8")), "html.parser")
        _finish(content, ROOT / file, site)
        links = [f'<a href="{page_name(other)}">{name}</a>' for other, name in PAGES.items()]
        links += ['<a href="example/index.html">Example report</a>']
        navigation = f"<nav>{' &middot; '.join(links)}</nav>"
        pages.append(site / page_name(file))
        page = documents.document(f"studykit: {title}", Markup(navigation + str(content)), mark="")
        pages[-1].write_text(page, encoding="utf-8")
    return pages


def pack(report: Path, archive: Path = PACKED) -> None:
    """Packs the pages of a report without the executed notebooks, which are two thirds of it, and without links to them."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for file in sorted(file for file in report.iterdir() if file.suffix != ".ipynb"):
            content = file.read_bytes()
            if file.suffix == ".html":
                content = re.sub(rb'<a href="[^"]+\.ipynb">[^<]*</a>\s*(\xc2\xb7)?', b"", content)
            packed.writestr(f"{report.name}/{file.name}", content)


def _finish(content: BeautifulSoup, source: Path, site: Path) -> None:
    """Gives headings the anchors that Markdown's links use, pictures their bytes, and links their place in the site."""
    for heading in content.find_all(re.compile("^h[1-4]$")):
        for mark in heading.find_all("a", class_="anchor-link"):
            mark.decompose()
        heading["id"] = re.sub(r"[^\w -]", "", heading.get_text().lower()).strip().replace(" ", "-")
    for table in content.find_all("table"):
        table.wrap(content.new_tag("div", attrs={"class": "scroll"}))
    for image in content.find_all("img"):
        file = source.parent / str(image["src"])
        kind = mimetypes.guess_type(file.name)[0]
        image["src"] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    for link in content.find_all("a", href=True):
        address, _, anchor = str(link["href"]).partition("#")
        if not address or "://" in address:
            continue
        file = (source.parent / address).resolve().relative_to(ROOT).as_posix()
        if file not in PAGES:
            (site / "files").mkdir(exist_ok=True)
            shutil.copy(ROOT / file, site / "files")
        name = page_name(file) if file in PAGES else f"files/{Path(file).name}"
        link["href"] = name + (f"#{anchor}" if anchor else "")


if __name__ == "__main__" and sys.argv[1:] == ["--pack"]:
    pack(ROOT / EXAMPLE)
elif __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site"))

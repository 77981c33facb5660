"""What docs/ shows is what happens: the worked examples of extensions are applied to a copy of the library and run."""

from __future__ import annotations

import csv
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup

from studykit.data.prepare import prepare
from studykit.study import methods
from studykit.study.family import load_plan
from studykit.study.fields import Task
from studykit.study.parameters import check
from tests.project import copy_library

ROOT = Path(__file__).parents[1]
EXTENSIONS = (ROOT / "docs/extending.md").read_text(encoding="utf-8").split("\n## ")[1:]


def blocks(text: str, language: str) -> list[str]:
    """Returns the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run_check(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=home, env=environment, text=True, capture_output=True)


def apply(difference: str, home: Path) -> None:
    """Applies a difference; the lines of each of its parts must stand in the file exactly once, or be a new file."""
    for section in difference.split("+++ ")[1:]:
        name, *parts = section.split("@@\n")
        file = home / name.strip()
        for part in parts:
            lines = part.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            text = file.read_text(encoding="utf-8") if old else ""
            assert not old or text.count(old) == 1, f"{name.strip()} holds {text.count(old)} times:\n{old}"
            file.write_text(text.replace(old, new) if old else new, encoding="utf-8")


@pytest.mark.parametrize("section", EXTENSIONS, ids=lambda section: section.split("\n")[0])
def test_a_worked_extension_works_and_needs_its_difference(section, tmp_path):
    copy_library(tmp_path)
    (difference,), (check,) = blocks(section, "diff"), blocks(section, "python")
    assert run_check(check, tmp_path).returncode != 0, "the check passes without the extension"
    apply(difference, tmp_path)
    done = run_check(check, tmp_path)
    assert done.returncode == 0, done.stderr


def test_quoted_messages_are_those_of_the_library():
    """What the FAQ quotes can be found there by whoever has read it on the screen."""
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "studykit").rglob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)  # literals that Python joins
    faq = (ROOT / "docs/faq.md").read_text(encoding="utf-8").replace("\n", " ")
    quotes = [part.strip() for title in re.findall(r"\*\*(.*?)\*\*", faq) for text in re.findall(r'"([^"]+)"', title)
              for part in text.split("...") if part.strip()]  # fmt: skip
    assert len(quotes) > 5
    assert [
        quote for quote in quotes if quote.replace("'check'", "{name!r}") not in source and quote != "Process"
    ] == []


def published(name: str) -> list[dict[str, str]]:
    with (ROOT / "studykit/report/published" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_published_claims_are_pairs_of_methods_of_the_kit():
    claims = published("claims.csv")
    for claim in claims:
        assert methods.parse(claim["better"]) != methods.parse(claim["worse"]) and claim["task"] in Task.__args__
        assert claim["source"].startswith("abstract") or claim["source"] == "second-hand summary"
        assert claim["strict"] in ("yes", "no")
    assert {claim["paper"] for claim in claims} == {"2307.07854", "2511.02869"}


def test_the_table_of_own_attention_is_that_of_the_data():
    page = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    rows = published("own_attention.csv")
    for target in {row["target"] for row in rows}:
        of_target = [row for row in rows if row["target"] == target]
        assert [int(row["layer"]) for row in of_target] == list(range(1, 13))
        means = [np.mean([float(row[name]) for row in of_target]) for name in ("adapterfusion", "advfusion")]
        assert f"| {target} | {means[0]:.1f} | {means[1]:.1f} |" in page


def test_the_site_has_every_page_and_its_links_lead_somewhere(tmp_path):
    build = runpy.run_path(str(ROOT / "docs/build.py"))
    example = tmp_path / "report"
    example.mkdir()
    (example / "index.html").write_text("<p>a report</p>")
    pages = build["build"](tmp_path / "site", example)
    sources = {
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        *(f"docs/{f.name}" for f in (ROOT / "docs").glob("*.md")),
    }
    assert build["PAGES"].keys() == sources
    contents = {page.name: BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser") for page in pages}
    for name, content in contents.items():
        assert all(image["src"].startswith("data:image/") for image in content.find_all("img"))
        assert not content.find_all(["script", "iframe"]) and not content.find_all("link", href=re.compile("^http"))
        for link in content.find_all("a", href=True):
            address, _, anchor = link["href"].partition("#")
            assert "://" in address or (tmp_path / "site" / (address or name)).exists(), (name, link["href"])
            assert not anchor or contents[address or name].find(id=anchor), (name, link["href"])


def test_the_packed_example_is_whole_and_tells_nothing_of_the_machine(tmp_path):
    build = runpy.run_path(str(ROOT / "docs/build.py"))
    build["build"](tmp_path / "site", tmp_path / "absent")
    pages = {page.name: page.read_text(encoding="utf-8") for page in (tmp_path / "site/example").glob("*.html")}
    assert {name[:2] for name in pages} == {"in", "00", "01", "02", "03", "04", "05", "06"}
    assert build["PACKED"].stat().st_size < 4e6, "every clone holds it"
    for name, page in pages.items():
        for address in re.findall(r'<a href="([^"#:]+)', page):
            assert (tmp_path / "site/example" / address).is_file(), (name, address)
        assert not re.search(r"/(tmp|home|root|work)/|src=.https?:", page), name


def test_packing_leaves_out_notebooks_and_links_to_them(tmp_path):
    (report := tmp_path / "quickstart").mkdir()
    link = '<a href="06.ipynb">the executed notebook</a>\n · its tables as <a href="06.csv">CSV</a>'
    for name, text in {"06.html": link, "06.csv": "a,b", "06.ipynb": "{}"}.items():
        (report / name).write_text(text, encoding="utf-8")
    runpy.run_path(str(ROOT / "docs/build.py"))["pack"](report, tmp_path / "packed.zip")
    shutil.unpack_archive(tmp_path / "packed.zip", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out/quickstart").iterdir()) == ["06.csv", "06.html"]
    assert (tmp_path / "out/quickstart/06.html").read_text(
        encoding="utf-8"
    ).strip() == 'its tables as <a href="06.csv">CSV</a>'


def test_the_first_study_has_rows_that_are_read_and_a_plan(tmp_path, monkeypatch):
    page = (ROOT / "docs/first_study.md").read_text(encoding="utf-8")
    (program,), (study,) = blocks(page, "python"), blocks(page, "yaml")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    (tmp_path / "Snakefile").touch()
    (tmp_path / "mine.yaml").write_text(study)
    monkeypatch.chdir(tmp_path)
    planned = load_plan("mine.yaml", check_paths=False)
    (data,) = [run for run in planned.runs if run.stage == "data"]
    rows, _ = prepare(
        check("data", {name: value for name, value in data.params.items() if name not in ("base", "out")})
    )
    assert {split: len(items) for split, items in rows["lua"].items()} == {"train": 40, "valid": 20, "test": 40}
    assert all(row.check for row in rows["lua"]["test"])
    assert f"of {len(planned.runs)} " in page or f" {len(planned.runs)} runs" in page

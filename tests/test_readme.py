"""README and docs name files, commands, options, study keys and methods that exist; the reading path is short."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from studykit import cli
from studykit.study import methods
from studykit.study.file import Study
from studykit.study.parameters import STAGES

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
)
# What commands and readers make, and placeholders.
MADE = ("site/", "my/", "params/mine.yaml", "work/", "reports/", "logs/", "runs/", "ratings/", "path/to/", "/")
READING_PATH = 2_000  # lines, at most


def spans(page: str) -> list[str]:
    """Returns what a page sets in code: the spans in backquotes and the lines of fenced blocks without comments.

    Blocks of differences are left out: their files may be new.
    """
    fenced, prose = [], []
    text = re.sub(r"^```diff.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for i, part in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        (fenced if i % 2 else prose).append(part)
    lines = [line.split(" #")[0].strip() for block in fenced for line in block.splitlines()]
    return re.findall(r"`([^`]+)`", " ".join(prose).replace("\n", " ")) + lines


def commands(page: str, name: str) -> list[list[str]]:
    return [words[1:] for span in spans(page) if (words := span.split()) and words[0] == name and words[1:]]


def exists(path: str) -> bool:
    """Whether a path exists from the root, from the library, or under the last part of its name in a package."""
    return any((at / path).exists() for at in (ROOT, ROOT / "studykit")) or any((ROOT / "studykit").rglob(path))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page):
    for link in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
        assert "://" in link or ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page):
    for span in spans(page):
        for word in span.split():
            is_path = re.fullmatch(r"[\w./-]+(/|\.(py|md|ya?ml|ipynb|json|svg|txt))", word)
            if (
                is_path
                and not word.startswith(MADE)
                and word not in ("manifest.json", "index.html", "fusion.ipynb", "answers.json")
            ):
                assert exists(word.strip("/")), word


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_exists(page, capsys):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for target, *_ in commands(page, "make"):
        assert target in targets, target
    for command, *words in commands(page, "studykit"):
        assert cli.main([command, "--help"]) == 0, command
        help_text = capsys.readouterr().out
        if command != "run":  # which passes options that it does not know on to Snakemake
            assert all(word in help_text for word in words if word.startswith("--")), (command, words)
    for words in commands(page, "papermill"):
        (notebook,) = [word for word in words if word.startswith("notebooks/")]
        (cell,) = [c for c in json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
                   if "parameters" in c["metadata"].get("tags", ())]  # fmt: skip
        for flag, name in zip(words, words[1:], strict=False):
            assert flag != "-p" or f"\n{name}: " in "\n" + "".join(cell["source"]), name


@pytest.mark.parametrize("page", PAGES)
def test_every_key_of_a_study_exists(page):
    for span in spans(page):
        section, _, key = span.split(":")[0].partition(".")
        if section in STAGES and re.fullmatch(r"[a-z_0-9]+", key):
            of_study = Study.model_fields.get(section)  # none of the section of families
            assert key in (of_study.annotation if of_study else STAGES[section].model).model_fields, span


def test_every_shipped_study_is_named():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "params").rglob("*.yaml")]
    assert len(files) > 20 and [file for file in files if file not in text] == []


def test_every_method_of_the_table_exists_and_none_is_missing():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Methods")[1].split("\n## ")[0]
    words = [word for row in re.findall(r"^\|(.*?)\|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)]
    assert sorted(words) == sorted(methods.WORDS)


def test_packages_and_reading_path_are_those_of_the_library():
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Development")[1]
    packages = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    assert set(packages) == {path.parent.name for path in (ROOT / "studykit").glob("*/__init__.py")}
    files = re.findall(r"`(\w+/\w+\.py)`", text.split("read these files")[1])
    lines = [len((ROOT / "studykit" / file).read_text(encoding="utf-8").splitlines()) for file in files]
    assert len(files) == 6 and sum(lines) < READING_PATH, dict(zip(files, lines, strict=True))

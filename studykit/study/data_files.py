"""Which files of a folder a run reads, by their names alone.

Data runs and the training of a base select their files with these functions, and the same functions say which files a
run depends on. A file that is not read may change without making a run out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from studykit.study.languages import ALIASES, LANGUAGE_NAMES, QUALIFIERS, canonical

ROW_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".csv")
SPLIT_WORDS = {"train": "train", "test": "test"} | dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
XCODEEVAL_PROBLEMS, XCODEEVAL_UNIT_TESTS = "problem_descriptions.jsonl", "unittest_db.json"
LINKED_FILES = (XCODEEVAL_PROBLEMS, XCODEEVAL_UNIT_TESTS)  # rows refer to them; they hold no rows themselves
FOLDERS_ABOVE = 2  # how many folders above its rows a linked file may be


class RowFile(NamedTuple):
    """A file of rows, and what its name says."""

    name: str  # relative to the folder, with slashes
    language: str | None  # as the study names it; None: the name says nothing
    split: str | None  # train, valid, test; None: the name says nothing


def files_of_rows(names: Iterable[str], languages: Sequence[str], *, root: str, is_test: bool) -> list[RowFile]:
    """Selects the files of rows that may serve these languages, in the order of their names.

    Args:
        names: files below a folder, relative to it.
        root: the folder; a whole copy of xCodeEval has folders of other tasks, which are not read.
        is_test: whether the rows are only for the test; then files of other splits are not read if there are any of
            the test.
    """
    rows = [name for name in names if name.endswith(ROW_SUFFIXES) and PurePosixPath(name).name not in LINKED_FILES]
    rows = [name for name in rows if "program_synthesis/" in f"{root}/{name}"] or rows
    files = [RowFile(name, *language_and_split(name, languages)) for name in sorted(rows)]
    files = [file for file in files if file.language is None or file.language in languages]
    return [file for file in files if is_test and file.split == "test"] or files


def language_and_split(name: str, languages: Sequence[str]) -> tuple[str | None, str | None]:
    """Finds the language, as the study names it, and the split in a file's name or in its folders' names.

    The language is a whole name (`c++/data.jsonl`) or the last word of one (`humaneval-go`). Where that word only
    qualifies another language (`objective-c++`), the whole name is the language.
    """
    path = PurePosixPath(name)
    parts = [re.sub(r"\.(jsonl?|parquet|csv)(\.gz)?$", "", path.name), *reversed(path.parts[:-1])]
    named_by_study = {canonical(language): language for language in languages}
    known = {*named_by_study, *LANGUAGE_NAMES, *ALIASES}
    language = split = None
    for part in parts:
        *before, last = re.split(r"[_-]", part.lower())
        is_known = [canonical(word) for word in (part.lower(), last) if word in known or canonical(word) in known]
        found = next(iter(is_known), None)
        if found and part.lower() not in known and before[-1:] and before[-1] in QUALIFIERS:
            found = part.lower()
        language = language or (named_by_study.get(found, found) if found else None)
        words = re.split(r"[_.-]", part.lower())
        split = split or next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
    return language, split


def corpus_files(names: Iterable[str], languages: Iterable[str]) -> list[str]:
    """Returns the file of a corpus for each language: `<language>.jsonl` by any name of the language (`cpp.jsonl`)."""
    named = {canonical(PurePosixPath(name).stem): name for name in names if name.endswith(".jsonl")}
    return [named.get(canonical(language), f"{language}.jsonl") for language in languages]

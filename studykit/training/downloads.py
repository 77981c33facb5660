"""The files of the hub that a study reads, put below `data/` once: its rows, what they refer to, and its base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from studykit.data.ingest import open_data_set
from studykit.runs.hub import HubRepository, commit_of
from studykit.runs.text import format_bytes
from studykit.study import plan
from studykit.study.bases import HUB_ID
from studykit.study.data_files import LINKED_FILES
from studykit.study.file import Study
from studykit.study.parameters import DataParams, check
from studykit.study.paths import is_local

BASE_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")  # weights, configuration, tokenizer
OLD_WEIGHTS = "pytorch_model*.bin"  # of a base that has no safetensors


class Download(NamedTuple):
    """One repository of the hub, of which a study reads some files."""

    repository: HubRepository
    files: tuple[str, ...]  # names in the repository


def fetch(studies: Iterable[Study]) -> Iterator[str]:
    """Puts what studies read of the hub below `data/`, and yields a line about each repository.

    What is there is not fetched again. Raises UserError for what the hub does not have.
    """
    read: dict[HubRepository, dict[str, None]] = {}
    for study in studies:
        for download in downloads(study):
            read.setdefault(download.repository, {}).update(dict.fromkeys(download.files))
    if not read:
        yield "The study reads nothing of the hub."
    for repository, names in read.items():
        kept = [repository.keep(name) for name in names]
        repository.keep_names()
        size = format_bytes(sum(file.stat().st_size for file in kept)).strip()
        yield f"{repository}: {len(kept)} files, {size}, in {repository.copy}"


def downloads(study: Study) -> list[Download]:
    """Returns what a study reads of the hub."""
    data = next(run.params for run in plan.plan(study) if run.stage == "data")
    p: DataParams = check("data", data)
    found = [_rows(p, address, address == p.test_path) for address in (p.path, p.test_path) if _is_on_hub(address)]
    if study.base == "scratch" or is_local(study.base) or Path(study.base).is_dir():
        return found
    name = HUB_ID.fullmatch(study.base)
    assert name is not None  # a study's base is checked
    repository = HubRepository(name["repo"], commit_of(name["repo"], name["revision"] or "main", "model"), "model")
    top = [file for file in repository.names() if "/" not in file]
    chosen = [file for file in top if any(fnmatch(file, pattern) for pattern in BASE_FILES)]
    if not any(file.endswith(".safetensors") for file in chosen):
        chosen += [file for file in top if fnmatch(file, OLD_WEIGHTS)]
    return [*found, Download(repository, tuple(chosen))]


def _is_on_hub(address: str | None) -> bool:
    return address is not None and address.startswith("hf://")


def _rows(p: DataParams, address: str | None, is_test: bool) -> Download:
    """The files of rows behind an address that serve the study's languages, and those that rows refer to."""
    assert address is not None
    data_set = open_data_set(p, address, "auto" if is_test else p.format, is_test=is_test)
    source = data_set.source
    names = [file.name for file in data_set.files]
    if data_set.format_name == "xcodeeval":
        names += [file.name for name in LINKED_FILES if (file := source.find_linked(name))]
    assert isinstance(source.root, HubRepository)
    return Download(source.root, tuple(names))

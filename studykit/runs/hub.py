"""Repositories of the Hugging Face hub: data sets and bases at one commit, and their copies below `data/`.

A file is taken from `data/<owner>/<name>@<commit>/` if `studykit fetch` has put it there, else from the hub's cache,
else from the hub. The copy is an ordinary directory: on a machine without a network a study names it as a path, or
keeps the hub's address and finds the copy by its commit.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from studykit.errors import UserError
from studykit.runs import files

COMMIT = re.compile(r"[0-9a-f]{40}")
NAMES_FILE = ".names.json"  # in a copy: the names of all files of its repository


class HubRepository(NamedTuple):
    """A repository at one commit."""

    repo: str  # owner/name
    revision: str  # 40 hexadecimal digits
    kind: str = "dataset"  # dataset | model

    def __str__(self) -> str:
        return (
            f"hf://datasets/{self.repo}@{self.revision}" if self.kind == "dataset" else f"{self.repo}@{self.revision}"
        )

    @property
    def copy(self) -> Path:
        """Returns the directory of the files that were fetched into the project; it may not exist."""
        return _copies() / f"{self.repo}@{self.revision}"

    def names(self) -> list[str]:
        """Returns the names of all its files; without a network, of those in the copy and in the hub's cache."""
        import huggingface_hub as hub

        if (listed := self.copy / NAMES_FILE).is_file():
            return files.read_json(listed)
        with hub_errors(f"the list of files of {self}"):
            if not hub.constants.HF_HUB_OFFLINE:
                return sorted(hub.HfApi().list_repo_files(self.repo, repo_type=self.kind, revision=self.revision))
            folders = [self.copy, _cached(self.repo, self.kind) / "snapshots" / self.revision]
            if not any(folder.is_dir() for folder in folders):
                raise FileNotFoundError("no file of it is in the cache")
            return sorted({file.relative_to(x).as_posix() for x in folders for file in x.rglob("*") if file.is_file()})

    def keep_names(self) -> None:
        """Writes the names of all files into the copy, so that nobody has to ask the hub again."""
        import huggingface_hub as hub

        if not hub.constants.HF_HUB_OFFLINE:
            files.write_json(self.copy / NAMES_FILE, self.names())

    def fetch(self, name: str) -> Path:
        """Returns the local copy of a file, which is fetched if need be."""
        import huggingface_hub as hub

        if (self.copy / name).is_file():
            return self.copy / name
        with hub_errors(f"{self}/{name}"):
            return Path(hub.hf_hub_download(self.repo, name, repo_type=self.kind, revision=self.revision))

    def keep(self, name: str) -> Path:
        """Puts a file into the copy, fetched if need be, and returns it there.

        It is linked where the hub's cache is on the same disk, so that nothing is stored twice.
        """
        kept = self.copy / name
        if not kept.is_file():
            fetched = self.fetch(name).resolve()
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f".{kept.name}.{os.getpid()}.part")
            try:
                os.link(fetched, part)
            except OSError:
                shutil.copyfile(fetched, part)
            part.replace(kept)
        return kept


@cache
def commit_of(repo: str, revision: str, kind: str = "dataset") -> str:
    """Returns the commit of a branch or tag, resolved once per process; the commit of a commit is itself.

    Where `data/` holds a copy of one commit alone, it is that one; without a network, the one in the hub's cache.

    Raises: UserError if it cannot be resolved.
    """
    if COMMIT.fullmatch(revision):
        return revision
    import huggingface_hub as hub

    if copy := copy_of(repo, revision, kind):
        return copy.name.rpartition("@")[2]
    named = f"hf://datasets/{repo}@{revision}" if kind == "dataset" else f"{repo}@{revision}"
    if hub.constants.HF_HUB_OFFLINE:
        if (known := _cached(repo, kind) / "refs" / revision).is_file():
            return known.read_text(encoding="utf-8").strip()
        raise UserError(
            f"{named} cannot be resolved while HF_HUB_OFFLINE is set; name the commit by its 40 hexadecimal digits."
        )
    with hub_errors(named):
        asked = hub.HfApi().dataset_info if kind == "dataset" else hub.HfApi().model_info
        commit = asked(repo, revision=revision.replace("%2F", "/")).sha
        assert commit is not None  # the hub gives it with every revision
        return commit


def copy_of(repo: str, revision: str, kind: str = "dataset") -> Path | None:
    """Returns the copy below `data/` of a commit, or for a branch the only copy; None where there is none."""
    if COMMIT.fullmatch(revision):
        copy = HubRepository(repo, revision, kind).copy
        return copy if copy.is_dir() else None
    copies = [path for path in _copies().glob(f"{repo}@*") if COMMIT.fullmatch(path.name.rpartition("@")[2])]
    return copies[0] if len(copies) == 1 else None


def _copies() -> Path:
    """The directory of all copies; outside of a project, below the working directory."""
    try:
        return files.home() / "data"
    except UserError:
        return Path("data").resolve()


def _cached(repo: str, kind: str) -> Path:
    """The directory of a repository in the hub's cache."""
    import huggingface_hub as hub

    return Path(hub.constants.HF_HUB_CACHE, f"{kind}s--{repo.replace('/', '--')}")


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turns the errors of the hub's library into one sentence about `what`."""
    import huggingface_hub as hub

    try:
        yield
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        if hub.constants.HF_HUB_OFFLINE:
            raise UserError(
                f"{what} is not in the hub's cache, and HF_HUB_OFFLINE forbids fetching it; fetch it once on a machine "
                "with a network (`studykit fetch`), or unset HF_HUB_OFFLINE."
            ) from None
        message = str(error).strip().split("\n")[0]
        raise UserError(
            f"{what} cannot be fetched ({type(error).__name__}: {message}); check the address and the network, and log "
            "in if the data set is gated."
        ) from None

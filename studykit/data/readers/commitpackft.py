"""Commit messages: CommitPackFT (Muennighoff et al., arXiv 2308.07124), one changed file per commit.

A row has commit, old_file, new_file, old_contents, new_contents, subject, message, lang, license, repos. The prompt is
the unified diff, the target the `subject`, which is one line (`message` often says the same at length). The data has
one split: `data.split_by` says what its division keeps whole. `repos` lists every repository that holds the commit,
forks among them, so all of them are joined.
"""

from __future__ import annotations

from collections.abc import Iterator

from studykit.data.diffs import unified_diff
from studykit.data.rejects import BadRow, text
from studykit.data.request import Example, Location, ReadRequest
from studykit.data.rows import Row

MARKS = frozenset({"old_contents", "new_contents", "subject"})


def rows(raw: dict, location: Location, request: ReadRequest) -> Iterator[Example]:
    """Reads a commit."""
    language = request.language(text(raw, "lang"), location)
    old, new, commit = text(raw, "old_file"), text(raw, "new_file"), text(raw, "commit")
    contents = (text(raw, "old_contents", empty=True), text(raw, "new_contents", empty=True))
    subject = text(raw, "subject").strip()
    diff = unified_diff(*contents, old, new, request.diff_context)
    if not diff:
        raise BadRow("'old_contents' and 'new_contents' are the same")
    repositories = sorted({name.strip() for name in text(raw, "repos").split(",") if name.strip()})
    units = {
        "repository": repositories,
        "file": [f"{name}:{file}" for name in repositories for file in sorted({old, new})],
        "row": [commit],
    }[request.split_by]
    prompt = request.prompt("commit", {"diff": diff, "language": language})
    yield Example(Row(commit, language, prompt.text, subject, prompt.body), location.line, location.split, tuple(units))

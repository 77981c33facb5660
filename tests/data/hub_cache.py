"""A cache of the hub on disk, with the published names and fields of every data set that shipped studies read."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studykit.runs.hub import commit_of
from tests.data import published

COMMIT = "c" * 40
DATA_SETS = {  # repository -> the folder of a data set in it
    "bigcode/commitpackft": "data",
    "WeixiangYan/CodeTransOcean": "CodeTrans Datasets/NicheTrans",
    "NTU-NLP-sg/xCodeEval": "",
    "THUDM/humaneval-x": "data",
    "nuprl/MultiPL-E": "",
}
LANGUAGES = {"julia": "Julia", "ruby": "Ruby", "scala": "Scala", "swift": "Swift"}
ASKED = {"java": "Java", "javascript": "JavaScript", "go": "Go", "rust": "Rust", "ruby": "Ruby"}
EXTENSIONS = {"java": "java", "javascript": "js", "go": "go", "rust": "rs", "ruby": "rb"}


def use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets the hub's library use this cache and no network; returns it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    commit_of.cache_clear()
    return cache


def snapshot(cache: Path, repo: str, kind: str = "dataset", commit: str = COMMIT) -> Path:
    """Makes a repository in the cache whose branch main is a commit; returns the directory of its files."""
    place = cache / f"{kind}s--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs/main").write_text(commit)
    files = place / "snapshots" / commit
    files.mkdir(parents=True, exist_ok=True)
    return files


def lay_out(cache: Path) -> None:
    """Writes all data sets as they are published, with few rows."""
    commits = "fc56fe33c030c6daa414c2b112c932b8eed085e6"  # that of the shipped studies
    place = snapshot(cache, "bigcode/commitpackft", commit=commits) / "data"
    for word, name in LANGUAGES.items():
        rows = (published.commit(i, name, f"r/{word}{i}", f"f{i}") for i in range(40))
        published.write(place / word / "data.jsonl", *rows)
    place = snapshot(cache, "WeixiangYan/CodeTransOcean") / "CodeTrans Datasets/NicheTrans"
    pairs = [(a, b) for a in LANGUAGES.values() for b in LANGUAGES.values() if a != b]
    rows_of = {
        split: [published.niche(i, f"{split} {i} {a}", a, b) for i in range(3) for a, b in pairs]
        for split in ("train", "valid", "test")
    }
    published.nichetrans(place, **rows_of)
    place = snapshot(cache, "NTU-NLP-sg/xCodeEval")
    clusters = {**ASKED, "javascript": "Javascript"}  # as xCodeEval spells it
    programs = [
        published.program(100 * i + j, f"p{i}", name, name)
        for i in range(40)
        for j, name in enumerate(clusters.values())
    ]
    published.xcodeeval(place, train=programs)
    place = snapshot(cache, "THUDM/humaneval-x") / "data"
    for word in ("Python", "Go", "Rust"):
        rows = (published.humaneval_x(word, i) for i in range(40))
        published.write(place / word.lower() / "data/humaneval.jsonl", *rows)
    place = snapshot(cache, "nuprl/MultiPL-E")
    for extension in EXTENSIONS.values():
        rows = [published.multipl_e(i, extension) for i in range(5)]
        file = place / f"humaneval-{extension}" / "test-00000-of-00001.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), file)

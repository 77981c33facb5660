"""Files: every suffix, the hub and its cache, the places that errors name."""

from __future__ import annotations

import gzip
import io
import json
import os
import tracemalloc

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studykit.data import jsonl
from studykit.data.files import open_source, raw_rows
from studykit.data.jsonl import json_lines
from studykit.data.rejects import refuse_all
from studykit.errors import UserError
from studykit.runs.hub import commit_of
from tests.data.published import nichetrans, prepare, write

TEXT = st.text(st.characters(exclude_categories=("Cs",)))


def read(path):
    (file,) = open_source(str(path)).files
    return list(raw_rows(file))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.dictionaries(TEXT, TEXT, min_size=1), min_size=1, max_size=5))
def test_every_text_survives_with_the_order_of_its_keys(tmp_path, values):
    file = write(tmp_path / "x.jsonl", *values)
    assert [list(row.items()) for _, row in json_lines(file)] == [list(row.items()) for row in values]
    (tmp_path / "y.json").write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")
    assert [row for _, row in json_lines(tmp_path / "y.json")] == values


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    values = [{"a": "x\ny", "b": "NA"}, {"a": "\u2028é😀", "b": ""}]
    write(tmp_path / "a.jsonl", *(json.dumps(value) for value in values))
    write(tmp_path / "b.jsonl.gz", *values)
    (tmp_path / "c.json").write_bytes(b"\xef\xbb\xbf\n " + json.dumps(values).encode())
    (tmp_path / "d.csv").write_bytes('\ufeffa,b\r\n"x\ny",NA\r\n"\u2028é😀",\r\n'.encode())
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "e [1].parquet")
    files = open_source(str(tmp_path)).files
    assert len(files) == 5
    for file in files:
        assert [row for _, row in raw_rows(file)] == values, file.name
    assert [place.rsplit(", ")[1] for place, _ in raw_rows(files[0])] == ["line 1", "line 2"]
    assert [place.rsplit(", ")[1] for place, _ in raw_rows(files[3])] == ["line 2", "line 4"]


@pytest.mark.parametrize("name, data, said", [
    ("x.jsonl", b'{"a": 1}\n{"a"\n', "x.jsonl, line 2: not valid JSON"),
    ("x.jsonl", b'{"a": "\xe9"}\n', "x.jsonl, line 1: not UTF-8 text (invalid continuation byte at byte 7 of"),
    ("x.jsonl", b'\xef\xbb\xbf{"a": 1}\n\n{"a": "\xe9"}', "3: not UTF-8 text (invalid continuation byte at byte 20"),
    ("x.jsonl", b'\xff\xfe{\x00"\x00', "x.jsonl is text in UTF-16; it must be saved as UTF-8"),
    ("x.csv", "a,b".encode("utf-16-be"), "x.csv is text in UTF-16 or UTF-32, or no text; it must be saved as UTF-8"),
    ("x.jsonl", '{"a": 1}'.encode("utf-32"), "x.jsonl is text in UTF-16; it must be saved"),
    ("x.jsonl", gzip.compress(b"{}", mtime=0), "x.jsonl is packed by gzip; its name must end in .gz"),
    ("x.jsonl.gz", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "x.jsonl.gz is packed by gzip; its name must end in .gz"),
    ("x.csv", b"PK\x03\x04", "x.csv is a zip archive; it must be unpacked"),
    ("x.json", b"PAR1", "x.json is a parquet file; its name must end in .parquet"),
    ("x.parquet", b"version https://git-lfs.github.com/spec/v1\n", "x.parquet is a pointer of Git LFS"),
    ("x.parquet", gzip.compress(b"{}", mtime=0), "x.parquet is packed by gzip"),
    ("x.jsonl", '{"a": "é"}'.encode("cp1252"), "; text in Windows-1252 or Latin-1 must be saved as UTF-8)"),
    ("x.jsonl", b'{"a": 1, "b": 2, "a": 3}\n', "x.jsonl, line 1: a key stands twice in an object ('a')"),
    ("x.jsonl", b'{"a": [{"b": 1, "b": 1}]}\n', "x.jsonl, line 1: a key stands twice in an object ('b')"),
    ("x.json", b'[{"a": 1},\n{"a": 1, "a": 1}]', "x.json, line 2: a key stands twice in an object ('a')"),
    ("x.csv", b"a,b,a\n1,2,3\n", "x.csv, line 1: the column 'a' stands twice"),
    ("x.json", b'[{"a": 1}\n{"a": 2}]', "x.json, line 2: a comma is missing in an array before '{'"),
    ("x.json", b'[{"a": 1},\n]', "x.json, line 2: an array ends after a comma"),
    ("x.json", b'[{"a": 1}]\n\n{"a": 2}', "x.json, line 3: text stands behind the end of the array"),
    ("x.json", b'[{"a": 1},\n{"a": "\xe9"}]', "not UTF-8 text (invalid continuation byte at byte 18 of the file"),
    ("x.json", b'\xef\xbb\xbf[{"a": "\xe9"}]', "not UTF-8 text (invalid continuation byte at byte 11 of the file"),
    ("x.jsonl", b"[1]\n", "line 1: an object is expected, not list"),
    ("x.jsonl", b'{"a": "\\ud800"}\n', "line 1: half of a surrogate pair"),
    ("x.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "line 1: not usable JSON"),
    ("x.jsonl", b'{"a": ' + b"[" * 100000 + b"}", "line 1: not usable JSON"),
    ("x.json", b'[{"a": "\\udc00"}]', "x.json, line 1: half of a surrogate pair"),
    ("x.json", b'[{"a": 1},\n{"a" 2}]', "x.json, line 2: not valid JSON in an array"),
    ("x.json", b'[{"a": 1},\n', "the array at its start has no end"),
    ("x.json", b'[{"a": 1},\n 2]', "line 2: an object is expected, not int"),
    ("x.csv", b"a,b\n1,2\n1,2,3\n", "x.csv, line 3: its number of columns differs from the header's"),
    ("x.csv", b"a,b\n1\n", "x.csv, line 2: its number of columns"),
    ("x.csv", b"a,b\n\xe9,2\n", "x.csv, line 2: not UTF-8 text (invalid continuation byte at byte 4"),
    ("x.csv", b'a,b\n"1"2,3\n', "line 2: not valid CSV"),
    ("x.parquet", b"nothing", "x.parquet is not a whole Parquet file"),
    ("x.jsonl.gz", b"nothing", "x.jsonl.gz is not a whole gzip file"),
])  # fmt: skip
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as error:
        read(tmp_path / name)
    assert said in str(error.value) and "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="x.jsonl is not a file; a file of rows is needed"):
        list(json_lines(tmp_path / "x.jsonl"))
    with pytest.raises(UserError, match="holds no file of rows"):
        open_source(str(tmp_path))


def test_shards_without_rows_have_none(tmp_path):
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "a.parquet")
    for name, text in (("b.csv", ""), ("c.csv", "a,b\n"), ("d.jsonl", ""), ("e.json", "[]"), ("f.json", " [\n]\n")):
        (tmp_path / name).write_text(text)
    write(tmp_path / "g.jsonl.gz")
    assert [list(raw_rows(file)) for file in open_source(str(tmp_path)).files] == [[]] * 7


def test_text_of_parquet_that_is_not_utf8_is_a_bad_row(tmp_path):
    texts = pa.array([b"x", b"\xe9", b"y"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"a": texts}), tmp_path / "x.parquet")
    (file,) = open_source(str(tmp_path)).files
    with pytest.raises(UserError, match="x.parquet, row 2: not UTF-8 text"):
        list(raw_rows(file))
    refused: list[str] = []
    assert [row["a"] for _, row in raw_rows(file, lambda place, bad: refused.append(place))] == ["x", "y"]
    assert refused == [f"{tmp_path}/x.parquet, row 2"]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT)), max_size=8),
       indent=st.sampled_from([None, 1]), chunk=st.integers(1, 40), bom=st.booleans())  # fmt: skip
def test_an_array_is_read_alike_however_it_is_cut_into_chunks(values, indent, chunk, bom):
    data = jsonl.BOM * bom + json.dumps(values, ensure_ascii=False, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "CHUNK_BYTES", chunk)
        assert [row for _, row in jsonl._array(io.BytesIO(data), "x", refuse_all)] == values


def test_a_packed_array_is_read_item_by_item(tmp_path):
    count, item = 20_000, b'{"a": "' + b"x" * 1000 + b'"}'
    with gzip.open(tmp_path / "x.json.gz", "wb") as file:
        file.write(b"[" + b",\n".join([item] * count) + b"]")
    tracemalloc.start()
    rows = json_lines(tmp_path / "x.json.gz")
    assert sum(1 for _ in rows) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6 < count * len(item), f"{peak:,} bytes of {count * len(item):,}"


def test_a_line_that_is_too_long_is_never_held(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LINE_BYTES", 100)
    file = write(tmp_path / "x.jsonl", {"a": "b"}, '{"a": "' + "x" * 5_000_000 + '"}', {"a": "c"})
    with pytest.raises(UserError, match="line 2: the line is longer than 100 bytes"):
        read(file)
    told = []
    kept = [row for _, row in json_lines(file, refuse=lambda place, bad: told.append(place))]
    assert kept == [{"a": "b"}, {"a": "c"}] and [place.rsplit(" ")[-1] for place in told] == ["2"]
    asked, real = [], file.open

    class Watched:
        def __init__(self):
            self.file = real("rb")

        def readline(self, size):
            asked.append(size)
            return self.file.readline(size)

    list(jsonl._lines(Watched(), "x", lambda place, bad: None))
    assert max(asked) == 2**20 and file.stat().st_size > 4 * 2**20


@pytest.mark.parametrize("path, said", [
    ("absent", "does not exist; it must be a directory or file of rows, or hf://datasets/<owner>/<name>@<commit>/<path>"),
    ("empty", "holds no file of rows; a file of rows ends in .jsonl, .json"),
    ("hf://models/x", "is no address"),
])  # fmt: skip
def test_no_rows_at_all(tmp_path, path, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("")
    with pytest.raises(UserError) as error:
        open_source(path if path.startswith("hf:") else str(tmp_path / path))
    assert said in str(error.value)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of one repository, o/n, in a folder; what was asked of it."""
    place, asked = tmp_path / "hub", []

    class Api:
        def list_repo_files(self, repo, *, repo_type, revision):
            assert (repo, repo_type, revision) == ("o/n", "dataset", COMMIT)
            return [f.relative_to(place).as_posix() for f in place.rglob("*") if f.is_file()]

        def dataset_info(self, repo, *, revision):
            asked.append(revision)
            if revision != "main":
                raise huggingface_hub.errors.HFValidationError(f"no revision {revision}")
            return type("Info", (), {"sha": COMMIT})

    def download(repo, name, *, repo_type, revision):
        assert (repo, repo_type, revision) == ("o/n", "dataset", COMMIT)
        asked.append(name)
        if huggingface_hub.constants.HF_HUB_OFFLINE or not (place / name).exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here\nat all")
        return str(place / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    commit_of.cache_clear()
    return place, asked


def test_files_of_the_hub_are_fetched_one_by_one(hub):
    place, asked = hub
    nichetrans(place / "A B/Niche")
    write(place / "other/x.jsonl", {"a": 1})
    rows_, manifest = prepare(f"hf://datasets/o/n@{COMMIT}/A B/Niche")
    assert rows_["julia"]["train"][0].target == "Julia train"
    (origin,) = manifest["sources"]
    assert origin["revision"] == COMMIT and len(origin["files"]) == 3
    assert origin["files"][0]["file"] == f"hf://datasets/o/n@{COMMIT}/A B/Niche/niche_test.json"
    assert all(len(file["sha256"]) == 64 for file in origin["files"])
    assert set(asked) == {f"A B/Niche/niche_{split}.json" for split in ("train", "valid", "test")}


@pytest.mark.parametrize("path, names", [
    ("A B/niche_*.json", 3), ("A B/niche_test.json", 1), ("A B", 3), ("", 4), ("*/*.jsonl", 1), ("A B/niche_t*", 2),
])  # fmt: skip
def test_an_address_is_a_file_a_folder_or_a_pattern(hub, path, names):
    nichetrans(hub[0] / "A B")
    write(hub[0] / "c/x.jsonl", {"a": 1})
    assert len(open_source(f"hf://datasets/o/n@{COMMIT}/{path}").files) == names


def test_a_branch_is_resolved_once_and_recorded(hub):
    nichetrans(hub[0])
    for path in ("hf://datasets/o/n@main/niche_test.json", "hf://datasets/o/n/niche_test.json"):
        assert open_source(path).root.revision == COMMIT
    assert hub[1] == ["main"]
    with pytest.raises(
        UserError, match=r"hf://datasets/o/n@dev cannot be fetched \(HFValidationError: no revision dev\)"
    ):
        open_source("hf://datasets/o/n@dev/x.jsonl")


def test_a_file_that_the_hub_lacks(hub):
    file = open_source(f"hf://datasets/o/n@{COMMIT}/x.jsonl").files[0]
    with pytest.raises(UserError, match="x.jsonl cannot be fetched .*check the address and the network") as error:
        list(raw_rows(file))
    assert "\n" not in str(error.value)


def test_offline_it_says_what_to_do(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="@main cannot be resolved while HF_HUB_OFFLINE is set; name the commit"):
        open_source("hf://datasets/o/n/x.jsonl")
    with pytest.raises(UserError, match="x.jsonl is not in the hub's cache, and HF_HUB_OFFLINE forbids"):
        list(raw_rows(open_source(f"hf://datasets/o/n@{COMMIT}/x.jsonl").files[0]))
    with pytest.raises(UserError, match="the list of files of .* is not in the hub's cache"):
        open_source(f"hf://datasets/o/n@{COMMIT}/folder")


def test_offline_a_folder_is_what_the_cache_has_of_it(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    write(tmp_path / f"cache/datasets--o--n/snapshots/{COMMIT}/d/x.jsonl", {"a": 1})
    assert [f.name for f in open_source(f"hf://datasets/o/n@{COMMIT}/d").files] == ["d/x.jsonl"]


def test_what_rows_refer_to_is_found_above_them(tmp_path, hub):
    write(tmp_path / "p.jsonl", {"a": 1})
    write(tmp_path / "a/b/x.jsonl", {"a": 1})
    assert open_source(str(tmp_path / "a/b/x.jsonl")).find_linked("p.jsonl").path == tmp_path / "p.jsonl"
    assert open_source(str(tmp_path / "a/b")).find_linked("q.jsonl") is None
    write(hub[0] / "p.jsonl", {"a": 1})
    write(hub[0] / "a/x.jsonl", {"a": 1})
    assert open_source(f"hf://datasets/o/n@{COMMIT}/a").find_linked("p.jsonl").path == hub[0] / "p.jsonl"

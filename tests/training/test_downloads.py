"""What studies read of the hub, fetched below data/ from a hub cache on disk; shipped studies find their rows there."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest

from studykit import cli
from studykit.data.prepare import prepare
from studykit.errors import UserError
from studykit.runs.hub import HubRepository, commit_of
from studykit.study.family import load_plan
from studykit.study.file import Study
from studykit.study.parameters import check
from studykit.training import base, downloads
from tests.data import hub_cache, published
from tests.project import ROOT
from tests.tuners.models import tiny

PUBLISHED = sorted((ROOT / "params/published").glob("*.yaml"))
STUDY = {"study": "small", "task": "translation", "members": ["go"], "target": "julia", "methods": ["base"],
         "seeds": [0]}  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path / "project"))
    (tmp_path / "project").mkdir()
    yield hub_cache.use(tmp_path / "cache", monkeypatch)
    commit_of.cache_clear()


def study(path: str, **changes) -> Study:
    return Study.model_validate(STUDY | {"data": {"path": path}} | changes)


def rows_of(made: Study):
    data = {"path": made.data.path, "members": made.all_members, "target": made.target, "task": made.task}
    return prepare(check("data", data | {"test_path": made.data.test_path}))


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.stem)
def test_a_published_study_is_planned_for_all_bases_and_reads_its_rows(file, cache):
    planned = load_plan(file, ROOT)
    bases = {run.params["base"] for run in planned.runs if run.stage == "base_model"}
    assert len(bases) == 4 and len(planned.members) in (8, 16)
    hub_cache.lay_out(cache)
    made = planned.members[0].study
    rows, manifest = rows_of(made)
    for language in made.all_members:
        assert all(rows[language][split] for split in ("train", "valid", "test")), language
    assert manifest.counts["refused"] == 0 and len(manifest.sources[0]["revision"]) == 40


@pytest.mark.parametrize("repo, folder", hub_cache.DATA_SETS.items())
def test_every_data_set_is_found_in_the_cache_by_its_branch(repo, folder, cache):
    hub_cache.lay_out(cache)
    repository = HubRepository(repo, commit_of(repo, "main"))
    assert any(name.startswith(folder) for name in repository.names())


HUB = "hf://datasets/"
XCODEEVAL = f"{HUB}NTU-NLP-sg/xCodeEval@main/program_synthesis"
HUMANEVAL_X = f"{HUB}THUDM/humaneval-x@main/data"


@pytest.mark.parametrize("path, test_path, task, members, prompt, target", [
    (f"{HUB}bigcode/commitpackft@main/data", None, "commit", "scala ruby", "-two {n}\n+2 {n}", "Count {n} in digits"),
    (f"{HUB}WeixiangYan/CodeTransOcean@main/CodeTrans Datasets/NicheTrans", None, "translation", "scala ruby",
     "### Code written in Scala:\nScala test {n} Scala\n", "Ruby test {n} Scala"),
    (XCODEEVAL, None, "generation", "java ruby", "Print t{n}.", ""),
    (HUMANEVAL_X, None, "generation", "python rust go", "// Add {n}.", "    return a + {n}\n"),
    (HUMANEVAL_X, None, "translation", "python go", "def f{n}(a: int) -> int:", "    return a + {n}\n"),
    (XCODEEVAL, f"{HUB}nuprl/MultiPL-E@main/humaneval-*", "generation", "java ruby", "# Add {n}.", ""),
    (XCODEEVAL, HUMANEVAL_X, "generation", "go rust", " Add {n}.", "    a + {n}\n"),
], ids=["CommitPackFT", "NicheTrans", "xCodeEval", "HumanEval-X", "HumanEval-X, translation", "MultiPL-E",
        "xCodeEval, HumanEval-X"])  # fmt: skip
def test_the_rows_of_every_data_set_are_read_from_the_cache(path, test_path, task, members, prompt, target, cache):
    """By the published file names and fields, offline; the numbers of the made rows are those of their texts."""
    hub_cache.lay_out(cache)
    own = members.split()[-1]
    options = {"path": path, "test_path": test_path, "task": task, "members": members.split(), "target": own}
    rows, manifest = prepare(check("data", options))
    assert manifest.counts["refused"] == 0 and all(len(source["revision"]) == 40 for source in manifest.sources)
    assert all(rows[language][split] for language in rows for split in ("train", "valid", "test"))
    runs = task == "generation" or path == HUMANEVAL_X
    for row in rows[own]["test"]:
        assert [n for n in range(40) if prompt.format(n=n) in row.prompt and target.format(n=n) in row.target]
        assert bool(row.target) == bool(target) and (row.check is not None) == runs, row.id


def test_what_is_fetched_is_read_without_the_cache(cache, tmp_path):
    published.nichetrans(hub_cache.snapshot(cache, "o/n") / "A B")
    published.write(hub_cache.snapshot(cache, "o/n") / "other.jsonl", {"a": 1})
    made = study("hf://datasets/o/n@main/A B")
    before = rows_of(made)
    (line,) = downloads.fetch([made, made])
    copy = tmp_path / "project/data/o" / f"n@{hub_cache.COMMIT}"
    assert line.startswith(f"hf://datasets/o/n@{hub_cache.COMMIT}: 3 files, ") and line.endswith(str(copy))
    assert sorted(f.name for f in copy.rglob("*.*")) == [f"niche_{x}.json" for x in ("test", "train", "valid")]
    shutil.rmtree(cache)
    commit_of.cache_clear()
    assert rows_of(made) == before, "by the same address"
    there = rows_of(study(f"{copy}/A B"))
    assert there[0] == before[0], "as a directory"
    assert list(downloads.fetch([made])) == [line], "again, with nothing to fetch"


def test_files_that_rows_refer_to_are_fetched_too(cache):
    published.xcodeeval(hub_cache.snapshot(cache, "o/n"))
    made = study("hf://datasets/o/n@main/program_synthesis", task="generation", members=["python"], target="go")
    (download,) = downloads.downloads(made)
    names = {"problem_descriptions.jsonl", "unittest_db.json", "program_synthesis/train/train_000.jsonl"}
    assert names < set(download.files) and not any("code_translation" in name for name in download.files)


def test_a_base_is_fetched_and_loaded_from_there(cache, tmp_path):
    place = hub_cache.snapshot(cache, "o/base", "model")
    tiny("Llama").save_pretrained(place)
    for name in ("tokenizer.json", "README.md", "pytorch_model.bin", "original/weights.safetensors"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("{}")
    made = study(str(published.nichetrans(tmp_path / "rows")), base="o/base")
    (download,) = downloads.downloads(made)
    weights = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert set(download.files) == weights
    list(downloads.fetch([made]))
    shutil.rmtree(cache)
    commit_of.cache_clear()
    assert base.pinned("o/base") == base.pinned("o/base@main") == f"o/base@{hub_cache.COMMIT}"
    assert base.open_model("o/base").config.num_hidden_layers == tiny("Llama").config.num_hidden_layers


def test_what_is_nowhere_is_one_sentence(cache, monkeypatch):
    with pytest.raises(UserError, match="@main cannot be resolved while HF_HUB_OFFLINE is set") as error:
        list(downloads.fetch([study("hf://datasets/o/n@main/x")]))
    assert "\n" not in str(error.value)
    assert list(downloads.fetch([study(str(ROOT))])) == ["The study reads nothing of the hub."]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_the_command(cache, tmp_path, monkeypatch, capsys):
    published.nichetrans(hub_cache.snapshot(cache, "o/n"))
    (tmp_path / "project/params/own").mkdir(parents=True)
    text = "study: x\ntask: translation\nmembers: [go]\ntarget: julia\nmethods: [base]\nseeds: [0]\n"
    (tmp_path / "project/params/own/x.yaml").write_text(text + "data: {path: 'hf://datasets/o/n@main'}\n")
    monkeypatch.chdir(tmp_path / "project")
    assert cli.main(["fetch", "own/x"]) == 0
    assert "3 files" in capsys.readouterr().out

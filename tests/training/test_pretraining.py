"""A base from scratch is the same each time and loads as it was; a checkpoint is adopted by name; the probe is fair."""

from __future__ import annotations

import pytest
import torch

from studykit.errors import UserError
from studykit.runs import store
from studykit.study.parameters import check
from studykit.training import pretraining
from studykit.training.base import load_base
from studykit.training.pretraining import train_tokenizer

# Widths that 4-bit kernels for CPUs accept.
SIZES = {"vocab_size": 300, "hidden_size": 64, "layers": 1, "heads": 4, "intermediate_size": 64, "context": 64}
SMALL = SIZES | {"steps": 7, "batch_size": 4, "samples": 200, "languages": ["python", "go", "lua"], "target": "lua"}


def open_run(place) -> store.OpenRun:
    return store.OpenRun(place / "final", "base_model", {}, place / "staging", done=False)


def from_scratch(place, **values):
    p, run = check("base_model", SMALL | values), open_run(place)
    documents = pretraining.corpus(p)
    tokenizer = train_tokenizer((d.context + d.text for d in documents), p.vocab_size)
    model, headline = pretraining.train_base(documents, tokenizer, p, run)
    return model, tokenizer, headline, run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return from_scratch(tmp_path_factory.mktemp("base"))


def test_the_seed_decides_the_base(made, tmp_path):
    model, _, headline, _ = made
    again, _, same, _ = from_scratch(tmp_path / "again")
    assert same == headline
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    _, _, other, _ = from_scratch(tmp_path / "other", seed=1)
    assert other["validation loss"] != headline["validation loss"]


def test_the_saved_base_is_the_trained_one(made):
    model, tokenizer, headline, run = made
    loaded, own = load_base(run.staging / "publish")
    assert own.get_vocab() == tokenizer.get_vocab()
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert headline["parameters"] == run.read_json("base.json")["parameters"] == model.num_parameters()


def test_the_record_of_the_training(made):
    record = made[-1].read_json("training.json")
    looks = [row["step"] for row in record["log"] if "eval_loss" in row]
    assert looks[0] == 0 and 5 <= len(looks) <= 9 and record["steps"] == SMALL["steps"]
    assert sum(row["documents"] for row in record["corpus"]) == SMALL["samples"]
    assert {row["language"] for row in record["corpus"]} == {"python", "go", "lua"}
    assert 0 < record["held_out"] < record["blocks"] and 0 < record["block_tokens"] <= SMALL["context"]


def test_held_out_blocks_are_the_last_and_few():
    p = check("base_model", SMALL | {"samples": 3000})
    documents = pretraining.corpus(p)
    tokenizer = train_tokenizer((d.text for d in documents), 300)
    train, held_out = pretraining.split_blocks(documents, tokenizer, 64)
    assert 0 < len(held_out) <= 64
    ids = [token for block in held_out for token in block["input_ids"]]
    read = tokenizer.decode(ids, skip_special_tokens=True)
    assert documents[-60].text in read and documents[-61].text not in read
    assert len(held_out) < len(train) / 40


def test_the_probe_asks_what_no_corpus_holds(made):
    model, tokenizer, _, _ = made
    p = check("base_model", SMALL)
    rows = pretraining.probe(model, tokenizer, p)
    assert [row["language"] for row in rows[:3]] == ["python", "go", "lua"]
    assert rows[0]["prompt"].startswith("# Python: ") and rows[2]["prompt"].startswith("-- Lua: ")
    assert not {row["reference"] for row in rows} & {document.text for document in pretraining.corpus(p)}
    longest = max(len(tokenizer(row["reference"])["input_ids"]) for row in rows)
    assert pretraining.probe_counts(rows)[2] == {"language": "lua", "programs": 16, "same": 0, "ended": sum(
        row["ended"] for row in rows if row["language"] == "lua")}  # fmt: skip
    assert longest and pretraining.probe_counts([]) == []


def test_pieces_are_the_text(made):
    _, tokenizer, _, _ = made
    assert pretraining.pieces(tokenizer, "def solve(a):\n  return 42").replace("|", "") == "def solve(a):\n  return 42"
    assert "4|2" in pretraining.pieces(tokenizer, "return 42")
    assert len(pretraining.longest_entries(tokenizer, 5).split("  ")) == 5


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_checkpoint_is_adopted_by_its_name(made, tmp_path, monkeypatch, quantization):
    if quantization != "none" and torch.cuda.is_available():
        pytest.skip("tested on a CPU")
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    (tmp_path / "mine").symlink_to(made[-1].staging / "publish" / "model")
    monkeypatch.chdir(tmp_path)
    p, run = check("base_model", {"base": "./mine", "quantization": quantization}), open_run(tmp_path / "runs")
    model, tokenizer, headline = pretraining.adopt_base(p, run)
    about = run.read_json("base.json")
    assert about["family"] == "qwen2" and about["layers"] == 1 and about["quantization"] == quantization
    assert about["parameters"] == headline["parameters"] == made[0].num_parameters()
    assert not (run.staging / "publish" / "model").exists()
    again, _ = load_base(run.staging / "publish")
    assert type(again) is type(model) and len(pretraining.probe(model, tokenizer, p)) == 2 * 6


def test_a_checkpoint_is_shown_prompts_of_the_studys_task(made):
    model, tokenizer, _, _ = made
    marks = {"commit": "### Diff:\n", "translation": "### Code written in", "summarization": "### Response:\n"}
    for task, mark in marks.items():
        p = check("base_model", {"base": "./mine", "task": task, "languages": ["go", "lua"]})
        rows = pretraining.probe(model, tokenizer, p)
        assert [row["language"] for row in rows] == ["go", "lua"] * 2 and all(mark in row["prompt"] for row in rows)
    named = pretraining.probe(model, tokenizer, check("base_model", {"base": "./mine", "task": "naming"}))
    assert named[0]["prompt"].startswith("# Python: ") and len(named) == 2 * 6


def test_a_base_that_is_not_there(tmp_path):
    p = check("base_model", {"base": str(tmp_path / "absent")})
    with pytest.raises(UserError, match="cannot be read"):
        pretraining.adopt_base(p, open_run(tmp_path))
    assert not (tmp_path / "staging/publish/base.json").exists(), "nothing is written of it"


def test_muon_trains_the_matrices_of_a_base_and_adamw_the_rest(made):
    model, _, _, run = made
    saved = torch.load(run.checkpoints / f"checkpoint-{SMALL['steps']}/optimizer.pt")["state"].values()
    moved_by_muon = [state["mean"].shape for state in saved if "mean" in state]
    assert len(moved_by_muon) == 7 * SMALL["layers"], "the matrices of each layer"
    assert sum("exp_avg" in state for state in saved) == len(list(model.parameters())) - len(moved_by_muon)

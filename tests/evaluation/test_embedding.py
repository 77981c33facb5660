"""Sentence embeddings by a model that the reader brings: here a random one, made in the test."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config, T5Model

from studykit.errors import UserError
from studykit.evaluation.embedding import Embedder, find_model
from studykit.training.pretraining import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "minute_bert" / "weights"
    tokens = train_tokenizer(["rename a to b", "fix the parser", "use c instead of d"], 280)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokens), **sizes)).save_pretrained(place)
    tokens.save_pretrained(place)
    return place


def test_equal_texts_have_cosine_1_and_the_batch_does_not_matter(folder):
    texts = ["rename a to b", "fix", "use c instead of d", ""]
    score = Embedder(str(folder)).score(texts, texts)
    assert score.per_example[:3] == pytest.approx([100] * 3) and score.empty == 1
    alone, together = Embedder(str(folder)), Embedder(str(folder))
    vectors = together.embed(texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert alone.embed([text])[0] == pytest.approx(vector, abs=1e-5)
    assert Embedder(str(folder)).score(["fix"], ["rename a to b"]).value < 99.99


def test_the_signature_names_the_weights(folder):
    embedder = Embedder(str(folder))
    assert f"model:{embedder.digest}|" in embedder.score(["a"], ["b"]).signature and len(embedder.digest) == 12


def test_a_package_may_hold_the_model(folder, monkeypatch):
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder.parent.parent)
    assert find_model("minute_bert") == folder


@pytest.mark.parametrize("word", ["nowhere", "no_such_package", "json", "a.b"])
def test_what_holds_no_model_is_refused_in_one_sentence(word):
    with pytest.raises(UserError, match="accepted are a directory with a transformers model"):
        find_model(word)


def test_a_damaged_model_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"?")
    with pytest.raises(UserError, match="evaluate.embedding. cannot be loaded"):
        Embedder(str(tmp_path)).embed(["a"])


@pytest.mark.parametrize("lacks", ["padding", "encoder alone"])
def test_a_model_that_makes_no_vector_is_refused_in_one_sentence(folder, tmp_path, lacks):
    tokens, (bert, _) = train_tokenizer(["rename a to b"], 280), Embedder(str(folder))._loaded
    if lacks == "padding":
        tokens.pad_token = None
        bert.save_pretrained(tmp_path)
    else:
        sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
        T5Model(T5Config(vocab_size=len(tokens), **sizes)).save_pretrained(tmp_path)
    tokens.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="evaluate.embedding. cannot make a vector of a text: ") as failure:
        Embedder(str(tmp_path)).embed(["a"])
    assert "\n" not in str(failure.value)

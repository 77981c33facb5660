"""The base that comes with the kit has the sizes that notebook 00 would train, and writes described programs, none in Lua."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from studykit.study.bases import TINY_BASE
from studykit.study.file import load_study
from studykit.study.tiny_values import warnings
from studykit.training import pretraining
from studykit.training.base import open_model
from tests.project import ROOT


@pytest.fixture(scope="module")
def base():
    place = ROOT / TINY_BASE
    return open_model(str(place)), AutoTokenizer.from_pretrained(place)


def test_it_has_the_sizes_that_the_quickstart_would_train(base):
    model, tokenizer = base
    p = load_study(ROOT / "params/quickstart.yaml").base_model
    made = pretraining.model_config(p, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        assert getattr(model.config, name) == getattr(made, name), name
    assert model.dtype == torch.float32 and model.num_parameters() == 416_544


def test_it_writes_what_it_has_read_described_and_no_described_lua(base):
    p = pretraining.BaseModelParams(languages=["python", "lua"], target="lua")
    counts = {row["language"]: row for row in pretraining.probe_counts(pretraining.probe(*base, p))}
    assert counts["python"]["same"] >= 8 and counts["lua"]["same"] == 0


def test_values_for_a_tiny_base_fit_it():
    study = load_study(ROOT / "params/quickstart.yaml")
    assert study.base == TINY_BASE and warnings(study) == []
    assert warnings(study.model_copy(update={"base": "./models/mine"}))

"""Muting: a muted member is as if it were not there, and what has no output is worth nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studykit.attention import muting
from studykit.attention.capture import capture
from studykit.attention.record import COMPLETION
from studykit.training.base import load_base
from studykit.training.batches import Collator, token_losses
from studykit.training.fusions import load_trained, new_fusion
from studykit.training.generate import complete
from studykit.tuners import FusionConfig, fusion_layers, fusion_members
from studykit.tuners.model import active_fusions
from tests import tiny


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_HOME", str(home))
        patch.chdir(home)
        p = tiny.fusion_params(home)
        tokens = tiny.tokenizer()
        model = new_fusion(tiny.base_model(tokens), p)
    torch.manual_seed(0)
    for layer in fusion_layers(model):
        for parameter in layer.fusions["fusion"].parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return model, tokens


ROWS = tiny.rows(5, first=12)


def nats(model, tokens) -> np.ndarray:
    """The losses of the rows, (S,)."""
    batch = Collator(tokens.pad_token_id)(tiny.examples(tokens, 5, first=12))
    with torch.no_grad():
        return token_losses(model, batch, batch["labels"]).double().sum(1).numpy()


def test_losses_are_those_of_the_model_and_tokens_those_of_the_record(fused):
    model, tokens = fused
    losses = muting.mute(model, tokens, ROWS, tiny.LIMITS, batch_size=2)
    np.testing.assert_allclose(losses.nats.sum(1), nats(model.eval(), tokens), rtol=1e-5)
    record = capture(model, tokens, ROWS, target="lua", phase="phase 2", limits=tiny.LIMITS, progress=False)
    assert (losses.tokens.sum(0) == record.kind_counts[COMPLETION]).all()
    assert (losses.tokens.sum(1) == record.counts[:, COMPLETION]).all()
    assert losses.by_layer.shape[0] == 0 and all(layer.masked[name][0] == () for layer, name in active_fusions(model))


def test_a_muted_member_equals_a_fusion_without_it(fused):
    model, tokens = fused
    losses = muting.mute(model, tokens, ROWS, tiny.LIMITS, batch_size=8)
    for n, member in enumerate(tiny.MEMBERS):
        rest = [name for name in tiny.MEMBERS if name != member]
        model.add_adapter("rest", FusionConfig(members=rest, task_type="CAUSAL_LM"))
        for layer in fusion_layers(model):
            layer.fusions["rest"].load_state_dict(layer.fusions["fusion"].state_dict())
        model.set_adapter("rest")
        without = nats(model.eval(), tokens)
        model.set_adapter("fusion")
        model.delete_adapter("rest")
        np.testing.assert_allclose(losses.muted["exclude"][n].sum(1), without, rtol=1e-5)


def test_a_member_without_output_is_worth_exactly_nothing_when_zeroed(fused):
    model, tokens = fused
    saved = [{k: v.clone() for k, v in layer.adapters["ruby"].state_dict().items()} for layer in fusion_layers(model)]
    for layer in fusion_layers(model):
        layer.adapters["ruby"].up.weight.data.zero_()
        layer.adapters["ruby"].up.bias.data.zero_()
    model.eval()  # weights changed through .data
    losses = muting.mute(model, tokens, ROWS, tiny.LIMITS)
    for layer, state in zip(fusion_layers(model), saved, strict=True):
        layer.adapters["ruby"].load_state_dict(state)
    ruby = tiny.MEMBERS.index("ruby")
    assert (losses.muted["zero"][ruby] == losses.nats).all()
    assert (losses.muted["exclude"][ruby] != losses.nats).any(), "the others share the weight of its slot"


def test_muting_in_every_layer_of_one_is_muting_there(fused):
    model, tokens = fused
    losses = muting.mute(model, tokens, ROWS, tiny.LIMITS, by_layer=True)
    layers = active_fusions(model)
    assert losses.by_layer.shape == (len(layers), 3, 5, losses.tokens.shape[1])
    layer, name = layers[1]
    layer.masked[name] = ((2,), "exclude")
    np.testing.assert_allclose(losses.by_layer[1, 2].sum(1), nats(model, tokens), rtol=1e-5)
    layer.masked[name] = ((), "zero")


def test_a_case_is_what_the_fusion_writes_without_each_member(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    p = tiny.trained_fusion(tmp_path, "zero")
    base, tokens = load_base(p.base)
    row = tiny.rows(1, first=12)[0]
    written = muting.muted_case(base, tokens, p.out, row, tiny.LIMITS)
    assert list(written) == ["", *tiny.MEMBERS]
    model = load_trained(base, p.out, "phase2")
    for member, text in written.items():
        fusion_members(model, [member] if member else [], "exclude")
        assert text == complete(model, tokens, [row], tiny.LIMITS)[0]
    assert len(set(written.values())) > 1, "some member changes what it writes"

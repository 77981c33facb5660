"""Adapters that start from trained ones: the best on the validation rows, as it is or trained on."""

from __future__ import annotations

import pytest
import torch

from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.study.training_parameters import AdapterParams
from studykit.training import adapters, batches
from studykit.training.base import load_base
from studykit.training.train import train
from tests import tiny


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 12)[None]).logits


def started(home, p):
    base, tokens = load_base(p.base)
    valid = batches.encode_rows(DataRun(p.data).rows("lua", "valid"), tokens, *tiny.LIMITS)
    return *adapters.start_adapter(base, tokens, p, valid, home / "checkpoints"), tokens, valid


@pytest.mark.parametrize("kind", ["bottleneck", "compacterpp", "lora"])
def test_the_best_source_on_the_targets_validation_rows_is_the_start(home, kind):
    base, data = tiny.base_run(home), tiny.data_run(home)
    candidates = [tiny.adapter_run(home, base, language, kind) for language in ("python", "ruby")]
    p = AdapterParams(base=base, data=data, language="lua", method=kind, start=candidates, steps=0, batch_size=4,
                      eval_every=2, precision="fp32", learning_rate=1e-2, out="runs/adapter/lua-0000000009")  # fmt: skip
    model, losses, tokens, valid = started(home, p)
    assert list(losses) == candidates and len(set(losses.values())) == 2
    best = min(losses, key=losses.get)
    alone = AdapterParams(**p.model_dump() | {"start": [best]})
    assert torch.equal(logits(model), logits(started(home, alone)[0])), "none of the others is left"
    assert started(home, alone)[1] == {}, "nothing to choose"
    untouched, _ = train(model, tokens, [], valid, p, steps=0, trainer_state_dir=home / "c", seed=0)
    assert untouched.validation_loss() == losses[best]
    adapters.save_adapter(model, home / "saved", "lua")
    assert (home / "saved/lua/adapter_config.json").exists(), "it has the target's name"


def test_a_training_goes_on_from_its_start(home):
    base, data = tiny.base_run(home), tiny.data_run(home)
    p = AdapterParams(base=base, data=data, language="lua", start=[tiny.adapter_run(home, base, "ruby")], steps=4,
                      batch_size=4, eval_every=2, precision="fp32", learning_rate=1e-2, reduction_factor=4,
                      out="runs/adapter/lua-0000000009")  # fmt: skip
    model, _, tokens, valid = started(home, p)
    before = logits(model)
    rows = batches.encode_rows(adapters.training_rows(p), tokens, *tiny.LIMITS)
    train(model, tokens, rows, valid, p, steps=4, trainer_state_dir=home / "c", seed=0)
    assert not torch.equal(logits(model), before)


def test_pooled_rows_are_those_of_all_members(home):
    data = tiny.data_run(home)
    p = AdapterParams(data=data, language="lua", rows="pooled", start=[], steps=4)
    assert {row.language for row in adapters.training_rows(p)} == set(tiny.MEMBERS)
    assert len(adapters.training_rows(p)) == 3 * 8


def test_a_base_that_was_trained_whole_is_no_start(home):
    base = tiny.base_run(home)
    p = AdapterParams(base=base, data=tiny.data_run(home), language="lua", steps=4,
                      start=[tiny.adapter_run(home, base, "ruby", "full")])  # fmt: skip
    with pytest.raises(UserError, match="holds no adapter that a training could go on from"):
        started(home, p)

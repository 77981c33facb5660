"""Every method word of a study: parsed, trained on a tiny base, saved, loaded and taken off again."""

from __future__ import annotations

import json

import pytest
import torch

from studykit.attention import recording, snapshots
from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.evaluation import trained as evaluation_trained
from studykit.runs import store
from studykit.study import methods
from studykit.study.training_parameters import AdapterParams
from studykit.training import adapters, batches, fusions, phases, train
from studykit.training.base import load_base
from studykit.training.result import read_phase_results
from tests import tiny

COMPOSED = ["adapterfusion", "adapterfusion-static", "adapterfusion-lowrank", "average", "scalar_mix"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("word, parts", {
    "base": ("base", "none", None, "full"),
    "houlsby": ("houlsby", "none", None, "full"),
    "advfusion_zero": ("advfusion", "zero", "bottleneck", "full"),
    "advfusion_exclude-lora-lowrank": ("advfusion", "exclude", "lora", "lowrank"),
    "adapterfusion-static": ("adapterfusion", "none", "bottleneck", "static"),
    "average-compacterpp": ("average", "none", "compacterpp", "full"),
    "arrow": ("arrow", "none", "lora", "full"), "mhr": ("mhr", "none", "lora", "full"),
}.items())  # fmt: skip
def test_a_word_says_what_is_done(word, parts):
    assert methods.parse(word)[:5] == (word, *parts)


@pytest.mark.parametrize("word, parts", {
    "advfusion_none": ("advfusion", "none", "", (), "none"),
    "advfusion_exclude@python": ("advfusion", "exclude", "python", (), "none"),
    "advfusion_zero-lora@target": ("advfusion", "zero", "", (), "none"),
    "adapterfusion~target": ("adapterfusion", "none", "", ("lua",), "none"),
    "adapterfusion~go~python": ("adapterfusion", "none", "", ("python", "go"), "none"),
    "adapterfusion~sources": ("adapterfusion", "none", "", ("python", "go"), "none"),
    "advfusion_exclude@go~lua^random": ("advfusion", "exclude", "go", ("lua",), "random"),
    "average-lora^shuffled": ("average", "none", "", (), "shuffled"),
    "merge~go": ("merge", "none", "", ("go",), "none"),
}.items())  # fmt: skip
def test_a_control_says_what_it_changes(word, parts):
    asked = methods.parse(word).among(["python", "go"], "lua")
    assert (asked.name, asked.mask, asked.masked_member, asked.left_out, asked.placebo) == parts


@pytest.mark.parametrize("word, title", {
    "base": "the base alone", "lora": "LoRA adapter", "adapterfusion": "AdapterFusion",
    "advfusion_none": "AdvFusion, two phases without a mask",
    "advfusion_exclude-lora-lowrank@python": "AdvFusion, mask exclude, lora members, low rank, Python hidden first",
    "adapterfusion~lua^random": "AdapterFusion, without Lua, random sources", "merge": "merge",
    "average~sources": "average, without the sources",
    "transfer": "bottleneck adapter of the best source, as it is",
    "lora_long": "LoRA adapter, trained for as many steps as members and fusion together",
}.items())  # fmt: skip
def test_a_word_has_a_title_for_readers(word, title):
    assert methods.title(word) == title


@pytest.mark.parametrize("word, said", {
    "lora~go": "~ leaves a member out, so it may follow only a composition",
    "advfusion_none@go": "@ names the member that phase 1 hides, so it may follow only a word with a mask",
    "advfusion_zero@go@python": "@ may stand once", "merge^random": r"\^ changes the source members, so it may follow",
    "adapterfusion^other": r"after \^ may come random or shuffled, not 'other'",
    "adapterfusion~": "after ~ must come a member's name",
    "adapterfusion~perl": "perl is no member; the members are python, go, lua",
    "adapterfusion~lua~target": "leaves lua out twice",
    "adapterfusion~sources~target": "leaves every member out",
    "advfusion_exclude~target": "whose phase 1 hides lua, which is left out",
    "advfusion_zero@go~go": "whose phase 1 hides go, which is left out",
    "advfusion_zero~sources": "whose phase 1 hides its only member",
    "adapterfusion~sources^random": "no source member that",
}.items())  # fmt: skip
def test_a_control_that_makes_no_sense_is_told_in_a_sentence(word, said):
    with pytest.raises(ValueError, match=said):
        methods.parse(word).among(["python", "go"], "lua")


@pytest.mark.parametrize("word, said", {
    "lorra": "the nearest known is lora", "": "known are base", "base-lora": "the nearest known is base",
    "adapterfusion-full": "may come members .* then a variant .* not 'full'", "average-static": "not 'static'",
    "merge-lora": "is unknown", "mhr-houlsby": "'mhr-houlsby' is unknown", "advfusion": "the nearest known is advfusion_",
    "adapterfusion-lowrank-lora": "not 'lora'",
}.items())  # fmt: skip
def test_an_unknown_word_is_told_in_a_sentence(word, said):
    with pytest.raises(ValueError, match=said):
        methods.parse(word)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 12)[None]).logits


@pytest.mark.parametrize("method", methods.ADAPTERS)
def test_every_adapter_trains_and_comes_back(home, method):
    base_dir, data = tiny.base_run(home), tiny.data_run(home)
    base, tokens = load_base(base_dir)
    bare = logits(base)
    place = home / f"runs/adapter/lua-{method}-s0-0000000009"
    p = AdapterParams(base=base_dir, data=data, language="lua", method=method, reduction_factor=2, batch_size=4,
                      eval_every=2, precision="fp32", learning_rate=1e-2, steps=4)  # fmt: skip
    model = adapters.new_adapter(base, p)
    examples = [batches.encode_rows(DataRun(data).rows("lua", s), tokens, *tiny.LIMITS) for s in ("train", "valid")]
    train.train(model, tokens, *examples, p, steps=4, trainer_state_dir=home / "checkpoints", seed=0)
    trained = logits(model)
    adapters.save_adapter(model, place / "adapter", "lua")
    run = tiny.finish(home, place, {"base": base_dir, "language": "lua", "method": method, "seed": 0})
    fresh, _ = load_base(base_dir)
    with evaluation_trained.loaded(fresh, evaluation_trained.EvaluatedCheckpoint("trained", 0, run)) as loaded:
        assert torch.equal(logits(loaded), trained) and not torch.equal(trained, bare)
    assert torch.equal(logits(fresh), bare), "the base is bare again"


def compose(home, word: str):
    """The work of notebook 03 for a word; (parameters, logits of what was trained)."""
    asked = methods.parse(word).among(tiny.MEMBERS[:-1], tiny.TARGET)
    given = {"masked_member": asked.masked_member, "left_out": list(asked.left_out), "placebo": asked.placebo}
    p = tiny.fusion_params(home, method=asked.name, mask=asked.mask, variant=asked.variant, rank=2, **given)
    members = {x: tiny.adapter_run(home, p.base, x, asked.members) for x in asked.remaining(list(p.members))}
    p = p.model_copy(update={"members": members})
    with store.open_run(p.out, stage="fusion", params=p) as run:
        base, tokens = load_base(p.base)
        snapshots.record_base(base, tokens, p, tiny.LIMITS, run)
        model = fusions.new_fusion(base, p)
        snapshots.record_snapshots(model, tokens, p, tiny.LIMITS, run)
        for phase, _ in phases.train_phases(model, tokens, p, tiny.LIMITS, run):
            snapshots.record_snapshots(model, tokens, p, tiny.LIMITS, run, phase)
        fusions.save_members(run.path(), p.members)
        run.publish(headline=recording.snapshot_headline(run.path(), p.method))
    return p, logits(model.eval())


@pytest.mark.parametrize("word", [
    *COMPOSED, *(f"advfusion_zero-{kind}" for kind in methods.FUSABLE[1:]), "average-lora",
    "adapterfusion-lora-lowrank", *methods.OF_LORAS, "advfusion_none", "advfusion_exclude@python",
    "adapterfusion~target", "adapterfusion~sources", "adapterfusion-houlsby^shuffled", "adapterfusion-compacterpp^random",
    "average-lora^shuffled", "merge~python", "mhr^random",
])  # fmt: skip
def test_every_composition_trains_and_comes_back(home, word):
    p, trained = compose(home, word)
    base, _ = load_base(p.base)
    bare = logits(base)
    with evaluation_trained.loaded(base, evaluation_trained.EvaluatedCheckpoint("trained", 0, p.out)) as loaded:
        torch.testing.assert_close(logits(loaded), trained, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(trained, bare)
    assert torch.equal(logits(base), bare) and base.config.use_cache, "the base is bare again"
    steps = {result.steps for result in read_phase_results(p.out, p.method).values()}
    assert steps == ({0} if p.method in methods.UNTRAINED else {4} if p.method == "advfusion" else {8})
    records = snapshots.load_snapshots(p.out, p.method)
    assert bool(records) == methods.parse(word).has_weights
    assert set(json.loads((home / p.out / "texts.json").read_text())) > {"base"}


def test_a_composition_of_loras_refuses_other_members(home):
    p = tiny.fusion_params(home, method="merge", mask="none")
    with pytest.raises(UserError, match="merge composes LoRAs, but the member 'python' in .* is a ADAPTER_COMPOSITION"):
        fusions.new_fusion(load_base(p.base)[0], p)


def test_a_fully_trained_base_is_no_member(home):
    p = tiny.fusion_params(home)
    full = tiny.adapter_run(home, p.base, "lua", "full")
    with pytest.raises(UserError, match="cannot be fused: it trained the whole base"):
        fusions.new_fusion(load_base(p.base)[0], p.model_copy(update={"members": p.members | {"lua": full}}))

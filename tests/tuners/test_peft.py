"""The tuner under PEFT and transformers: saving, switching, caching, checkpointing, precision."""

import importlib

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft import mapping as peft_mapping

import studykit.tuners
from studykit.tuners import BottleneckConfig, FusionConfig, fusion_members
from studykit.tuners.model import active_fusions
from tests.tuners.models import FAMILIES, fused, randomise, tiny, tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_disabling_restores_the_base_bit_for_bit(family):
    expected = tiny(family)(tokens()).logits
    model = fused(["a", "b"], family)
    assert not torch.equal(model(tokens()).logits, expected)
    with model.disable_adapter():
        assert torch.equal(model(tokens()).logits, expected)
    assert torch.equal(model.unload()(tokens()).logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("active", ["fusion", "a"])
def test_cached_generation_equals_uncached(family, active):
    model = fused(["a", "b"], family)
    model.set_adapter(active)
    ids = tokens(batch=3, length=7)
    mask = torch.ones_like(ids)
    mask[0, :3], ids[0, :3] = 0, 0  # one left-padded row
    mask[1, :1], ids[1, :1] = 0, 0
    arguments = dict(input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
    cached = model.generate(**arguments, use_cache=True)
    assert torch.equal(cached, model.generate(**arguments, use_cache=False))
    alone = model.generate(input_ids=ids[:1, 3:], max_new_tokens=12, do_sample=False)
    assert torch.equal(cached[0, 3 : 3 + alone.shape[1]], alone[0])


@pytest.mark.parametrize("name", ["a", "fusion"])
def test_save_and_reload_is_bit_identical(tmp_path, name):
    model = fused(["a", "b"])
    expected = model(tokens()).logits
    model.save_pretrained(tmp_path, selected_adapters=["a", "b", "fusion"])
    saved = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors")}
    assert saved == {f"{adapter}/adapter_model.safetensors" for adapter in ("a", "b", "fusion")}

    reloaded = PeftModel.from_pretrained(tiny(), tmp_path / "a", adapter_name="a")
    reloaded.load_adapter(tmp_path / "b", adapter_name="b")
    reloaded.load_adapter(tmp_path / "fusion", adapter_name="fusion")
    reloaded.set_adapter("fusion")
    assert torch.equal(reloaded.eval()(tokens()).logits, expected)

    renamed = PeftModel.from_pretrained(tiny(), tmp_path / "a", adapter_name="renamed").eval()
    model.set_adapter("a")
    assert torch.equal(renamed(tokens()).logits, model(tokens()).logits)


def test_saved_tensors_are_exactly_the_adapters_own(tmp_path):
    from safetensors.torch import load_file

    model = fused(["a", "b"])
    model.save_pretrained(tmp_path, selected_adapters=["fusion"])
    keys = {key.split(".composition.")[1] for key in load_file(tmp_path / "fusion" / "adapter_model.safetensors")}
    assert keys == {f"fusions.{k}" for k in ("query.weight", "query.bias", "key.weight", "key.bias", "value.weight")}


def test_compacter_reloads_bit_identical(tmp_path):
    config = BottleneckConfig(task_type="CAUSAL_LM", reduction_factor=4, phm_dim=4, activation="gelu")
    model = get_peft_model(tiny(), config, adapter_name="a")
    rules = {p.data_ptr() for n, p in model.named_parameters() if n.endswith("phm_rule")}
    assert len(rules) == 1, "the rule is one tensor for all layers"
    randomise(model)
    expected = model.eval()(tokens()).logits
    model.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(tiny(), tmp_path / "a", adapter_name="other").eval()
    assert torch.equal(reloaded(tokens()).logits, expected)


def test_set_adapter_makes_exactly_that_one_trainable():
    model = fused(["a", "b"])
    for name in ("a", "fusion", "b"):
        model.set_adapter(name)
        trainable = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trainable == {n for n, _ in model.named_parameters() if f".{name}." in n}
        assert not any("embed" in n or "lm_head" in n for n in trainable)


def test_gradient_checkpointing_gives_equal_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = fused(["a", "b"]).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(tokens(), labels=tokens()).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fusion_stays_fp32_on_a_half_precision_base(dtype):
    model = fused(["a", "b"])
    model.get_base_model().to(dtype)
    half = get_peft_model(tiny().to(dtype), BottleneckConfig(task_type="CAUSAL_LM"), adapter_name="a")
    half.add_adapter("fusion", FusionConfig(task_type="CAUSAL_LM", members=["a"]))
    half.set_adapter("fusion")
    assert {p.dtype for n, p in half.named_parameters() if ".composition." in n} == {torch.float32}
    out = half(tokens(), labels=tokens())
    assert out.logits.dtype == dtype
    out.loss.backward()


def test_missing_member_is_named():
    model = get_peft_model(tiny(), BottleneckConfig(task_type="CAUSAL_LM"), adapter_name="python")
    with pytest.raises(ValueError, match=r"needs adapters \['ruby'\], but the model holds \['python'\]"):
        model.add_adapter("fusion", FusionConfig(members=["python", "ruby"], task_type="CAUSAL_LM"))


def test_member_of_a_fusion_cannot_be_deleted():
    model = fused(["a", "b"])
    with pytest.raises(ValueError, match="'a' is a member of fusion 'fusion'"):
        model.delete_adapter("a")
    model.delete_adapter("fusion")
    model.delete_adapter("a")
    model.set_adapter("b")
    model(tokens())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: BottleneckConfig(activation="tanh"), "activation='tanh' is unknown"),
        (lambda: BottleneckConfig(reduction_factor=0.5), "must be at least 1"),
        (lambda: BottleneckConfig(dropout=1.0), r"must be in \[0, 1\)"),
        (lambda: FusionConfig(), "needs members"),
        (lambda: FusionConfig(members=["a", "a"]), "names an adapter twice"),
        (lambda: get_peft_model(tiny(), BottleneckConfig(), adapter_name="a.b"), "cannot be an adapter's name"),
        (lambda: fused(["a"]).merge_and_unload(), "cannot be merged"),
        (
            lambda: get_peft_model(tiny(), BottleneckConfig(phm_dim=5, reduction_factor=4), adapter_name="a"),
            "divisible by phm_dim=5",
        ),
    ],
)
def test_mistakes_get_one_clear_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_masking_survives_train_and_eval_switches():
    model = fused(["a", "b"])
    fusion_members(model, masked=["b"])
    masked = model(tokens()).logits
    model.train()
    model.eval()
    assert torch.equal(model(tokens()).logits, masked)


def test_import_names_the_supported_peft(monkeypatch):
    monkeypatch.delattr(peft_mapping, "PEFT_TYPE_TO_TUNER_MAPPING")
    with pytest.raises(ImportError, match=r"supports peft >=0.21,<0.22, but peft .* lacks PEFT_TYPE_TO_TUNER_MAPPING"):
        importlib.reload(studykit.tuners)


@pytest.mark.parametrize("trainable", [True, False])
def test_disabling_leaves_trainable_what_trains_and_frozen_what_is_frozen(trainable):
    model = fused(["a", "b"]).requires_grad_(False)
    for layer, name in active_fusions(model):
        layer.fusions[name].requires_grad_(trainable)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(tokens()).logits, tiny()(tokens()).logits)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert any(before.values()) == trainable


def test_a_batch_with_an_adapter_per_row_is_refused():
    model = fused(["a", "b"])
    with pytest.raises(ValueError, match="asks for an adapter per row"):
        model(tokens(), adapter_names=["a", "b", "a"])
    with pytest.raises(ValueError, match="asks for an adapter per row"):
        model.generate(input_ids=tokens(), max_new_tokens=1, adapter_names=["a", "b", "a"])

"""Adapters at every placement, in every family; what can be fused with what; compositions without attention."""

import copy
import os
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model

from studykit.tuners import PRESETS, BottleneckConfig, FusionConfig, fusion_layers, load_lora, record_fusion
from studykit.tuners.bottleneck import Bottleneck
from studykit.tuners.fusion import Fusion, MemberStack, ScalarMix, member_norms
from studykit.tuners.model import composition_layers
from tests.tuners.models import FAMILIES, SIZES, randomise, tiny, tokens

KINDS = [*PRESETS, "lora"]
SITES = {"output": ["output"], "houlsby": ["attention", "mlp"], "parallel": ["parallel"],
         "linear": ["q_proj", "v_proj"]}  # fmt: skip


def config(kind: str, **given) -> BottleneckConfig:
    return BottleneckConfig(**{"task_type": "CAUSAL_LM", **PRESETS[kind], "reduction_factor": 4, **given})


def lora(directory, names=("a", "b"), family="Qwen2", **given) -> dict[str, str]:
    """PEFT directories of LoRAs with random weights."""
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **given}
        model = get_peft_model(tiny(family), LoraConfig(task_type="CAUSAL_LM", **options), adapter_name=name)
        model.save_pretrained(directory, selected_adapters=[name])
    return {name: f"{directory}/{name}" for name in names}


def of_kind(kind: str, directory, family: str = "Qwen2", names=("a", "b")) -> PeftModel:
    """A tiny model with adapters of a kind and a fusion of them, active, all weights random."""
    if kind == "lora":
        model = tiny(family)
        for name, place in lora(directory, names, family).items():
            model = load_lora(model, place, name)
    else:
        model = get_peft_model(tiny(family), config(kind), adapter_name=names[0])
        for name in names[1:]:
            model.add_adapter(name, config(kind))
    model.add_adapter("fusion", FusionConfig(members=list(names), task_type="CAUSAL_LM"))
    model.set_adapter("fusion")
    randomise(model)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["houlsby", "parallel", "compacter", "lora"])
def test_cached_generation_equals_uncached_and_the_base_stays(tmp_path, family, kind):
    expected = tiny(family)(tokens()).logits
    model = of_kind(kind, tmp_path, family)
    with model.disable_adapter():
        assert torch.equal(model(tokens()).logits, expected)
    ids = tokens(batch=2, length=7)
    mask = torch.ones_like(ids)
    mask[0, :3], ids[0, :3] = 0, 0
    for active in ("fusion", "a"):
        model.set_adapter(active)
        assert not torch.allclose(model(tokens()).logits, expected)
        arguments = dict(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
        assert torch.equal(model.generate(**arguments, use_cache=True), model.generate(**arguments, use_cache=False))
    assert torch.equal(model.unload()(tokens()).logits, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fusion_sits_where_its_members_sit_and_trains_alone(tmp_path, kind):
    model = of_kind(kind, tmp_path)
    place = PRESETS.get(kind, {"placement": "linear"}).get("placement", "output")
    with record_fusion(model) as record:
        model(tokens(), labels=tokens()).loss.backward()
    assert sorted(record.weights) == [(layer, site) for layer in (0, 1) for site in SITES[place]]
    for weights in record.weights.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if ".fusions.fusion." in name}
    assert len(trained) == 5 * len(record.weights)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fusion_of_one_member_is_that_member(tmp_path, kind):
    model = of_kind(kind, tmp_path, names=("a",))
    for layer in fusion_layers(model):
        torch.nn.init.eye_(layer.fusions["fusion"].value.weight)
    expected = model(tokens()).logits
    model.set_adapter("a")
    torch.testing.assert_close(model(tokens()).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_reload_is_bit_identical(tmp_path, kind):
    model = of_kind(kind, tmp_path / "lora")
    expected = model(tokens()).logits
    model.save_pretrained(tmp_path, selected_adapters=["a", "b", "fusion"])
    again = PeftModel.from_pretrained(tiny(), tmp_path / "a", adapter_name="a")
    again.load_adapter(tmp_path / "b", adapter_name="b")
    again.load_adapter(tmp_path / "fusion", adapter_name="fusion")
    again.set_adapter("fusion")
    assert torch.equal(again.eval()(tokens()).logits, expected)


@pytest.mark.parametrize("kind", ["houlsby", "parallel", "lora"])
def test_gradient_checkpointing_gives_equal_gradients(tmp_path, kind):
    gradients = []
    for checkpointing in (False, True):
        model = of_kind(kind, tmp_path).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(tokens(), labels=tokens()).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_a_lora_is_the_same_in_peft_and_as_a_member(tmp_path):
    for scale in ({}, {"use_rslora": True}):
        place = lora(tmp_path, ["a"], **scale)["a"]
        theirs = PeftModel.from_pretrained(tiny(), place).eval()(tokens()).logits
        assert torch.equal(load_lora(tiny(), place, "a").eval()(tokens()).logits, theirs)


def test_the_average_of_loras_is_pefts_merge_by_concatenation(tmp_path):
    places = lora(tmp_path)
    model = tiny()
    for name, place in places.items():
        model = load_lora(model, place, name)
    model.add_adapter("mean", FusionConfig(members=["a", "b"], kind="average", task_type="CAUSAL_LM"))
    model.set_adapter("mean")
    assert model.get_nb_trainable_parameters()[0] == 0
    theirs = PeftModel.from_pretrained(tiny(), places["a"], adapter_name="a")
    theirs.load_adapter(places["b"], adapter_name="b")
    theirs.add_weighted_adapter(["a", "b"], [0.5, 0.5], "merged", combination_type="cat")
    theirs.set_adapter("merged")
    torch.testing.assert_close(model.eval()(tokens()).logits, theirs.eval()(tokens()).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("masked, mode", [((), "zero"), ((1,), "zero"), ((1,), "exclude")])
def test_heads_mix_the_updates_of_members_block_by_block(masked, mode):
    torch.manual_seed(0)
    members = [Bottleneck(8, 6, r, "identity", biased=False, scaling=0.5) for r in (2, 3, 4)]
    mix, x = ScalarMix(3, heads=4), torch.randn(2, 5, 8)
    torch.nn.init.normal_(mix.weight)
    with torch.no_grad():
        context, alpha, z = mix(x, MemberStack.from_members(members), masked, mode)
        scores = mix.weight.clone()
        scores[:, list(masked)] = 0.0 if mode == "zero" else float("-inf")
        by_head = scores.softmax(-1)  # (heads, members)
        norms = member_norms(mix, MemberStack.from_members(members), z, masked)
    expected = []
    for n, member in enumerate(members):
        update = 0.5 * member.up.weight @ member.down.weight  # (d_out, d_in)
        weights = by_head[:, n].repeat_interleave(2) * (n not in masked)
        expected.append(x @ (update * weights).T)
    torch.testing.assert_close(context, sum(expected))
    torch.testing.assert_close(alpha, by_head.mean(0).expand(2, 5, 3))
    torch.testing.assert_close(alpha * norms, torch.stack([part.norm(dim=-1) for part in expected], -1))


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from([*PRESETS]),
    lengths=st.lists(st.integers(1, 8), min_size=2, max_size=4),
    left=st.booleans(),
    seed=st.integers(0, 99),
)
def test_neither_the_order_of_a_batch_nor_padding_matters(kind, lengths, left, seed):
    model = copy.deepcopy(of_kind(kind, None)).double()  # in fp32 rounding alone may exceed the tolerance
    rows = [tokens(1, length, seed + i) for i, length in enumerate(lengths)]
    width = max(lengths)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    places = [slice(width - n, width) if left else slice(0, n) for n in lengths]
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        ids[i, place], mask[i, place] = row[0], 1
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad(), record_fusion(model) as record:
        together = model(input_ids=ids[order], attention_mask=mask[order]).logits
        weights = dict(record.weights)
        for at, i in enumerate(order.tolist()):
            alone = model(input_ids=rows[i]).logits
            torch.testing.assert_close(together[at, places[i]], alone[0], atol=1e-4, rtol=1e-4)
            for site, alpha in record.weights.items():
                torch.testing.assert_close(weights[site][at, places[i]], alpha[0], atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(widths=st.lists(st.integers(1, 4), min_size=2, max_size=4), masked=st.sets(st.integers(0, 3), max_size=2),
       mode=st.sampled_from(["zero", "exclude"]), seed=st.integers(0, 99))  # fmt: skip
def test_learned_weights_are_a_sum_of_outputs(widths, masked, mode, seed):
    torch.manual_seed(seed)
    masked = tuple(sorted(n for n in masked if n < len(widths)))[: len(widths) - 1]
    members, fusion, x = [Bottleneck(8, 8, r) for r in widths], ScalarMix(len(widths)), torch.randn(2, 3, 8)
    torch.nn.init.normal_(fusion.weight)
    context, alpha, _ = fusion(x, MemberStack.from_members(members), masked, mode)
    shown = sum(alpha[..., n, None] * m(x) for n, m in enumerate(members) if n not in masked)
    torch.testing.assert_close(context, shown, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alpha.sum(-1), torch.ones(2, 3))
    assert mode == "zero" or (alpha[..., list(masked)] == 0).all()


@pytest.mark.parametrize("rank", [1, 4])
def test_a_low_rank_fusion_starts_at_the_identity_and_is_small(rank):
    fusion, full = Fusion(16, 16, rank=rank), Fusion(16, 16)
    assert torch.equal(fusion.value.weight, torch.eye(16)) and fusion.value_deviation() == 0
    count = sum(p.numel() for p in fusion.parameters())
    assert count == 4 * rank * 16 + 2 * rank < sum(p.numel() for p in full.parameters())
    torch.nn.init.normal_(fusion.value.up.weight)
    expected = (fusion.value.weight - torch.eye(16)).square().sum()
    torch.testing.assert_close(fusion.value_deviation(), expected, rtol=1e-4, atol=1e-4)
    x = torch.randn(3, 16)
    torch.testing.assert_close(fusion.value(x), x @ fusion.value.weight.T, rtol=1e-4, atol=1e-5)


def test_temperature_divides_and_has_no_state():
    torch.manual_seed(0)
    stack, x = MemberStack.from_members([Bottleneck(8, 8, 2) for _ in range(3)]), torch.randn(1, 4, 8)
    hot, cold = Fusion(8, 8, temperature=1e6), Fusion(8, 8, temperature=0.5)
    for fusion in (hot, cold):
        for parameter in fusion.parameters():
            torch.nn.init.normal_(parameter)
    torch.testing.assert_close(hot(x, stack)[1], torch.full((1, 4, 3), 1 / 3), atol=1e-4, rtol=0)
    assert torch.equal(cold(x, stack)[0], cold(x, stack)[0])


def test_score_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    stack, x = MemberStack.from_members([Bottleneck(8, 8, 2) for _ in range(3)]), torch.randn(1, 4, 8)
    fusion = Fusion(8, 8, dropout=0.5)
    assert not torch.equal(fusion(x, stack)[1], fusion(x, stack)[1])
    assert torch.equal(fusion.eval()(x, stack)[1], fusion(x, stack)[1])


def test_what_cannot_be_fused_is_refused_with_the_reason(tmp_path):
    model = get_peft_model(tiny(), config("bottleneck"), adapter_name="a")
    model.add_adapter("h", config("houlsby"))
    for name, place in lora(tmp_path, ["l"]).items():
        load_lora(model, place, name)
    load_lora(model, lora(tmp_path, ["k"], target_modules=["k_proj"])["k"], "k")

    def refused(members, match):
        with pytest.raises(ValueError, match=match):
            model.add_adapter("fusion", FusionConfig(members=members, task_type="CAUSAL_LM"))
        assert "fusion" not in model.peft_config

    refused(["a", "h"], "Only adapters of one placement can be fused, but 'a' is at 'output', 'h' at 'houlsby'")
    refused(["a", "l"], "'l' at 'linear'")
    refused(["l", "k"], "'l' and 'k' adapt different modules")
    model.add_adapter("m", config("compacterpp"))
    model.add_adapter("fusion", FusionConfig(members=["a", "m"], task_type="CAUSAL_LM"))  # other kind, same placement


@pytest.mark.parametrize("given, said", [
    ({"use_dora": True}, "use_dora=True; only plain LoRA"), ({"bias": "lora_only"}, "bias='lora_only'"),
    ({"rank_pattern": {"q_proj": 2}}, "rank_pattern="),
])  # fmt: skip
def test_a_lora_that_is_more_is_refused(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        load_lora(tiny(), lora(tmp_path, ["a"], **given)["a"], "a")


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_a_lora_whose_start_changed_the_base_is_refused(tmp_path, start):
    with pytest.raises(ValueError, match=f"init_lora_weights='{start}', which changes the base"):
        load_lora(tiny(), lora(tmp_path, ["a"], init_lora_weights=start)["a"], "a")


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal"])
def test_a_lora_with_another_start_is_what_it_is_in_peft(tmp_path, start):
    place = lora(tmp_path, ["a"], init_lora_weights=start)["a"]
    theirs = PeftModel.from_pretrained(tiny(), place).eval()(tokens()).logits
    torch.testing.assert_close(load_lora(tiny(), place, "a").eval()(tokens()).logits, theirs)


def test_a_lora_of_another_model_is_refused(tmp_path):
    place = lora(tmp_path, ["a"])["a"]
    with pytest.raises(ValueError, match="does not fit the model"):
        load_lora(tiny(num_hidden_layers=3), place, "a")
    with pytest.raises(ValueError, match=r"is \(4, 32\), the model needs \(4, 64\)"):
        load_lora(tiny(hidden_size=64, head_dim=16), place, "a")
    with pytest.raises(ValueError, match="holds a ADAPTER_COMPOSITION adapter, not a LoRA"):
        get_peft_model(tiny(), config("bottleneck"), adapter_name="x").save_pretrained(tmp_path)
        load_lora(tiny(), tmp_path / "x", "x")


@pytest.mark.parametrize("make, said", [
    (lambda: BottleneckConfig(placement="mlp"), "placement='mlp' is unknown"),
    (lambda: BottleneckConfig(init="zeros"), "init='zeros' is unknown"),
    (lambda: BottleneckConfig(rank=0), "rank=0 is out of range"),
    (lambda: FusionConfig(members=["a"], kind="max"), "kind='max' is unknown"),
    (lambda: FusionConfig(members=["a"], temperature=0.0), "temperature=0.0 is out of range"),
    (lambda: FusionConfig(members=["a"], dropout=1.0), "dropout=1.0 is out of range"),
])  # fmt: skip
def test_mistakes_get_one_clear_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def sparse(family: str, **overrides):
    """A tiny model with experts or recurrent layers."""
    return tiny(family, num_local_experts=4, num_experts=4, n_routed_experts=4, num_experts_per_tok=2,
                moe_intermediate_size=16, shared_expert_intermediate_size=16, **overrides)  # fmt: skip


@pytest.mark.parametrize("family, kind, said", [
    ("Mixtral", "houlsby", r"The layers \[0, 1\] of this MixtralForCausalLM have no module for the place 'mlp'"),
    ("Qwen2Moe", "houlsby", r"The layers \[0, 1\] of .* 'mlp' of 'houlsby' adapters; another placement"),
    ("Qwen3Moe", "compacter", r"The layers \[0, 1\] of .* 'mlp'"),
    ("DeepseekV2", "houlsby", r"The layers \[1\] of .* 'mlp'"),
    ("Qwen3Next", "houlsby", r"The layers \[0\] of .* 'attention'"),
])  # fmt: skip
def test_an_adapter_gets_all_its_places_in_all_layers_or_is_refused(family, kind, said):
    own = {"first_k_dense_replace": 1} if family == "DeepseekV2" else {}
    own |= {"layer_types": ["linear_attention", "full_attention"]} if family == "Qwen3Next" else {}
    base = sparse(family, **own)
    with pytest.raises(ValueError, match=said):
        get_peft_model(base, config(kind), adapter_name="a")
    assert not any("composition" in name for name, _ in base.named_modules())
    model = get_peft_model(base, config("bottleneck"), adapter_name="a")
    with pytest.raises(ValueError, match=said):
        model.add_adapter("b", config(kind))
    assert set(model.peft_config) == {"a"}


def multimodal():
    text = {name: value for name, value in SIZES.items() if not name.endswith("token_id")}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    settings = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4,
                                         image_token_index=5, boi_token_index=6, eoi_token_index=7)  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(settings).eval()


@pytest.mark.parametrize("kind", ["bottleneck", "parallel"])
def test_a_model_that_reads_images_too_is_refused_unless_its_layers_are_named(kind):
    with pytest.raises(
        ValueError, match=r"language_model.layers.0 and .*vision.*layers.0 are both layer 0|vision.*both"
    ):
        get_peft_model(multimodal(), config(kind), adapter_name="a")
    named = BottleneckConfig(**PRESETS[kind], target_modules=r".*language_model\.layers\.\d+", task_type="CAUSAL_LM")
    model = get_peft_model(multimodal(), named, adapter_name="a")
    assert [layer.site.layer for layer in composition_layers(model)] == [0, 1]
    model(input_ids=tokens()).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["bottleneck", "houlsby", "parallel"])
def test_an_adapter_may_be_in_some_layers_alone(tmp_path, kind):
    some = BottleneckConfig(**PRESETS[kind], layers_to_transform=[2, 0], task_type="CAUSAL_LM")
    model = get_peft_model(tiny(num_hidden_layers=3), some, adapter_name="a")
    model.add_adapter("b", some)
    model.add_adapter("fusion", FusionConfig(members=["a", "b"], task_type="CAUSAL_LM"))
    assert {layer.site.layer for layer in composition_layers(model)} == {0, 2}
    assert {layer.site.layer for layer in fusion_layers(model)} == {0, 2}
    model.set_adapter("a")
    randomise(model)
    model.save_pretrained(tmp_path, selected_adapters=["a"])
    again = PeftModel.from_pretrained(tiny(num_hidden_layers=3), tmp_path / "a")
    assert torch.equal(again.eval()(tokens()).logits, model.eval()(tokens()).logits)
    with pytest.raises(ValueError, match="adapt different modules"):
        model.add_adapter("c", config(kind))
        model.add_adapter("d", FusionConfig(members=["a", "c"], task_type="CAUSAL_LM"))


def test_layers_that_a_model_lacks_are_named():
    with pytest.raises(ValueError, match=r"The layers \[7\] of this Qwen2ForCausalLM have no module for the place"):
        get_peft_model(tiny(), BottleneckConfig(layers_to_transform=[0, 7]), adapter_name="a")
    for wrong in ([], [-1], ["0"], [True]):
        with pytest.raises(ValueError, match=r"layers_to_transform=.* is out of range; it must be a list of indices"):
            BottleneckConfig(layers_to_transform=wrong)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pipe_among_the_files_of_a_lora_is_refused(tmp_path, name):
    place = lora(tmp_path, ["a"])["a"]
    (Path(place) / name).unlink()
    os.mkfifo(Path(place) / name)
    with pytest.raises(ValueError, match=f"{name} is not a file"):
        load_lora(tiny(), place, "a")

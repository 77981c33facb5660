"""A folded fusion is the same function: per site, per model, masked or not, saved and loaded alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from studykit.tuners import FusionConfig, fusion_layers, fusion_members, record_fusion, save_folded
from studykit.tuners.bottleneck import Bottleneck
from studykit.tuners.folded import FoldedFusion
from studykit.tuners.fusion import SCORES, Fusion, MemberStack, member_norms
from tests.tuners.models import fused, randomise, tiny, tokens


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    activations=st.lists(st.sampled_from(["relu", "gelu", "swish", "identity"]), min_size=5, max_size=5),
    inputs=st.sampled_from([6, 12]),
    biased=st.booleans(),
    value=st.booleans(),
    rank=st.sampled_from([None, 1, 3]),
    temperature=st.sampled_from([1.0, 2.5]),
    scores=st.sampled_from(SCORES),
    masked=st.sets(st.integers(0, 4), max_size=3),
    mode=st.sampled_from(["zero", "exclude"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_folded_equals_unfolded(
    widths, activations, inputs, biased, value, rank, temperature, scores, masked, mode, dtype, seed
):
    torch.manual_seed(seed)
    masked = tuple(sorted(n for n in masked if n < len(widths)))
    if mode == "exclude" and len(masked) == len(widths):
        masked = masked[1:]
    members = [Bottleneck(inputs, 12, r, a, scaling=1.5, biased=biased)
               for r, a in zip(widths, activations, strict=False)]  # fmt: skip
    fusion = Fusion(inputs, 12, value, rank, temperature, scores=scores)
    for module in (*members, fusion):
        module.to(dtype)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    x, stack = torch.randn(2, 3, inputs, dtype=dtype), MemberStack.from_members(members)
    context, alpha, z = fusion(x, stack, masked, mode)
    folded = FoldedFusion.from_fusion(fusion, stack)
    again, weights = folded(x, masked, mode)
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 1e-10, "rtol": 1e-10}
    torch.testing.assert_close(again, context, **close)
    torch.testing.assert_close(weights, alpha, **close)
    torch.testing.assert_close(folded.member_norms(x, masked), member_norms(fusion, stack, z, masked), **close)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize("masked", [[], ["b"]])
def test_a_model_says_the_same_folded_and_unfolded(masked):
    model = fused(["a", "b", "c"])
    fusion_members(model, masked, "exclude")
    ids = tokens()
    with torch.no_grad(), record_fusion(model) as record:
        expected, weights = model(ids).logits, dict(record.weights)
        text = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
        assert model.fold_fusion() == ["fusion"]
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)
        for at, folded in record.weights.items():
            torch.testing.assert_close(folded, weights[at], atol=1e-5, rtol=1e-4)
        assert torch.equal(model.generate(input_ids=ids, max_new_tokens=8, do_sample=False), text)
        model.unfold_fusion()
        assert torch.equal(model(ids).logits, expected)


def test_training_unfolds():
    model = fused(["a", "b"])
    model.fold_fusion()
    assert all(layer.folded("fusion") for layer in fusion_layers(model))
    model.train()
    model(tokens(), labels=tokens()).loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if ".fusions.fusion." in n)


def test_a_fold_is_no_part_of_the_state(tmp_path):
    model = fused(["a", "b"])
    keys = set(model.state_dict())
    model.fold_fusion()
    assert set(model.state_dict()) == keys


@pytest.mark.parametrize("rank, scores", [(None, "dot"), (2, "scaled"), (None, "query_norm")])
def test_a_folded_fusion_is_saved_and_loaded_alone(tmp_path, rank, scores):
    model = fused(["a", "b", "c"], widths={"b": 8})
    model.add_adapter("other", FusionConfig(members=["c", "a"], rank=rank, scores=scores, task_type="CAUSAL_LM"))
    randomise(model)
    model.set_adapter("other")
    model.eval()
    expected = model(tokens()).logits
    save_folded(model, tmp_path)
    assert list(model.peft_config) == ["a", "b", "c", "fusion", "other"], "nothing is left behind in the model"
    assert torch.equal(model(tokens()).logits, expected)
    alone = PeftModel.from_pretrained(tiny(), tmp_path / "folded", adapter_name="folded").eval()
    torch.testing.assert_close(alone(tokens()).logits, expected, atol=1e-4, rtol=1e-4)
    with record_fusion(alone) as record:
        alone(tokens())
    assert record.members == ["c", "a"]
    fusion_members(alone, ["a"], "exclude")
    fusion_members(model, ["a"], "exclude")
    torch.testing.assert_close(alone(tokens()).logits, model(tokens()).logits, atol=1e-4, rtol=1e-4)


def test_a_folded_file_is_smaller_while_the_ranks_sum_to_less_than_d(tmp_path):
    model = fused(["a", "b"])  # d = 32, R = 16
    model.save_pretrained(tmp_path, selected_adapters=["fusion"])
    save_folded(model, tmp_path)
    sizes = {name: (tmp_path / name / "adapter_model.safetensors").stat().st_size for name in ("fusion", "folded")}
    assert sizes["folded"] < sizes["fusion"]


def test_what_cannot_be_folded_is_told(tmp_path):
    model = fused(["a", "b"])
    with pytest.raises(ValueError, match="'a' is not an attention fusion of this model"):
        model.fold_fusion("a")
    model.set_adapter("a")
    assert model.fold_fusion() == []
    with pytest.raises(ValueError, match="No attention fusion is active"):
        save_folded(model, tmp_path)
    model.add_adapter("mean", FusionConfig(members=["a", "b"], kind="average", task_type="CAUSAL_LM"))
    model.set_adapter("mean")
    assert model.fold_fusion() == [], "there is nothing to fold in an average"

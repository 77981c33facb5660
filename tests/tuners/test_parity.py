"""Number-for-number equality with the reference implementation, at every file for Pfeiffer's place."""

import pytest
import torch

from studykit.tuners import fusion_members, record_fusion, value_penalty
from tests.tuners.golden import FUSIONS, SINGLES, TENSORS, fusion_name, inputs, model_with, our_name

FUSION_CASES = [*FUSIONS, "advfusion"]


def build(case: str):
    """The model of a case and the prefix of its expected values."""
    if case != "advfusion":
        return model_with(*FUSIONS[case]["names"], fusion=case), f"expected/fusion.{case}."
    model = model_with(*FUSIONS["dynamic"]["names"], fusion="dynamic")
    fusion_members(model, masked=["c"], mode="zero")
    return model, "expected/advfusion.phase1_target_c."


def assert_same_logits(logits: torch.Tensor, prefix: str) -> None:
    real = inputs()["attention_mask"].bool()
    torch.testing.assert_close(logits[real], TENSORS[prefix + "logits"][real], atol=1e-5, rtol=0)


def assert_same_gradients(model, prefix: str) -> int:
    expected = {k: v for k, v in TENSORS.items() if k.startswith(prefix + "grad.")}
    ours = dict(model.get_base_model().named_parameters())
    for key, gradient in expected.items():
        reference = key.removeprefix(prefix + "grad.")
        if "shared_parameters" in reference:
            name = next(n for n in ours if n.endswith(".phm_rule"))
        else:
            name = our_name(reference)
        if name.endswith("key.bias"):
            assert ours[name].grad.abs().max() < 1e-6
        else:
            assert (ours[name].grad - gradient).norm() <= 1e-4 * gradient.norm(), name
    return len(expected)


@pytest.mark.parametrize("name", SINGLES)
def test_single_adapter_equals_reference(name):
    model, prefix = model_with(name), f"expected/single.{name}."
    out = model(**inputs())
    assert_same_logits(out.logits, prefix)
    torch.testing.assert_close(out.loss, TENSORS[prefix + "loss"], atol=1e-5, rtol=0)
    out.loss.backward()
    assert bool(assert_same_gradients(model, prefix)) == (name in ("a", "cpp", "cfac"))


@pytest.mark.parametrize("case", FUSION_CASES)
def test_fusion_equals_reference(case):
    model, prefix = build(case)
    with record_fusion(model) as record:
        out = model(**inputs())
    assert_same_logits(out.logits, prefix)
    torch.testing.assert_close(out.loss, TENSORS[prefix + "loss"], atol=1e-5, rtol=0)
    real = inputs()["attention_mask"].bool()
    for (layer, _), weights in record.weights.items():
        expected = TENSORS[f"{prefix}attn.layer{layer}.output_adapter"]
        torch.testing.assert_close(weights[real], expected[real], atol=1e-5, rtol=0)
    assert sorted(record.weights) == [(0, "output"), (1, "output")]


@pytest.mark.parametrize("case", ["dynamic", "static", "compacter", "advfusion"])
def test_fusion_gradients_equal_reference(case):
    model, prefix = build(case)
    model(**inputs()).loss.backward()
    assert assert_same_gradients(model, prefix) == (8 if case == "static" else 10)


@pytest.mark.parametrize("case", ["dynamic", "compacter", "advfusion"])
def test_value_penalty_equals_reference(case):
    model, prefix = build(case)
    torch.testing.assert_close(0.01 * value_penalty(model), TENSORS[prefix + "reg_loss"], atol=1e-6, rtol=1e-5)


def test_reference_names_map_to_a_fusion():
    assert fusion_name("a,b,c") == "dynamic"

"""Number-for-number equality with the reference implementation, at every adapter and fusion that it computed."""

import pytest
import torch

from studykit.tuners import fusion_members, record_fusion, value_deviation
from studykit.tuners.adapterhub.keys import parameters_of
from tests.tuners.golden import GOLDEN, QWEN2

pytestmark = pytest.mark.filterwarnings("ignore:.*the files of a head.*:UserWarning")

SITES = {"mh_adapter": "attention", "output_adapter": "mlp"}  # of Houlsby's placement


def cases(names):
    """Parameters (golden, name) for every name that `names` gives of every golden directory."""
    return [pytest.param(golden, name, id=f"{golden.name}-{name}") for golden in GOLDEN for name in names(golden)]


ADAPTERS = cases(lambda golden: golden.adapters)
FUSIONS = cases(lambda golden: [*(f"fusion.{name}." for name in golden.fusions), *golden.phases])


def build(golden, prefix: str):
    """(model, name of its fusion), masked as in the first phase of AdvFusion if the prefix says so."""
    fusion, target = golden.phases.get(prefix, (prefix.split(".")[1], None))
    model = golden.model_with(fusion=fusion)
    if target:
        fusion_members(model, masked=[target], mode="zero")
    return model, fusion


def assert_same_logits(golden, out, prefix: str) -> None:
    real = golden.inputs()["attention_mask"].bool()
    torch.testing.assert_close(out.logits[real], golden.expected[prefix + "logits"][real], atol=1e-5, rtol=0)
    torch.testing.assert_close(out.loss, golden.expected[prefix + "loss"], atol=1e-5, rtol=0)


def assert_same_gradients(golden, model, name: str, prefix: str) -> int:
    """Every gradient that the reference wrote; returns how many there are."""
    ours = parameters_of(model, name, name if name in golden.adapters else ",".join(golden.fusions[name]["names"]))
    expected = {
        k.removeprefix(prefix + "grad."): v for k, v in golden.expected.items() if k.startswith(prefix + "grad.")
    }
    for key, gradient in expected.items():
        parameter = ours.pop(key.removeprefix("model."))
        if key.endswith("key.bias"):
            assert parameter.grad.abs().max() < 1e-6
        else:
            assert (parameter.grad - gradient).norm() <= 1e-4 * gradient.norm(), key
    assert not expected or not ours
    return len(expected)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_base_equals_reference(golden):
    assert_same_logits(golden, golden.base_model()(**golden.inputs()), "base.")


@pytest.mark.parametrize("golden, name", ADAPTERS)
def test_single_adapter_equals_reference(golden, name):
    model, prefix = golden.model_with(name), f"single.{name}."
    out = model(**golden.inputs())
    assert_same_logits(golden, out, prefix)
    out.loss.backward()
    assert_same_gradients(golden, model, name, prefix)


@pytest.mark.parametrize("golden, prefix", FUSIONS)
def test_fusion_equals_reference(golden, prefix):
    model, name = build(golden, prefix)
    with record_fusion(model) as record:
        out = model(**golden.inputs())
    assert_same_logits(golden, out, prefix)
    out.loss.backward()
    assert_same_gradients(golden, model, name, prefix)

    real = golden.inputs()["attention_mask"].bool()
    members, expected = model.peft_config[golden.fusions[name]["names"][0]].placement, {}
    for key, weights in golden.expected.items():
        if key.startswith(prefix + "attn.layer"):
            layer, place = key.removeprefix(prefix + "attn.layer").split(".")
            expected[int(layer), SITES[place] if members == "houlsby" else members] = weights
    assert record.weights.keys() == expected.keys()
    for at, weights in record.weights.items():
        torch.testing.assert_close(weights[real], expected[at][real], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "golden, prefix",
    cases(lambda golden: sorted(k.removesuffix("reg_loss") for k in golden.expected if k.endswith(".reg_loss"))),
)
def test_value_regulariser_equals_reference(golden, prefix):
    model, _ = build(golden, prefix)
    torch.testing.assert_close(
        0.01 * value_deviation(model), golden.expected[prefix + "reg_loss"], atol=1e-6, rtol=1e-5
    )


def test_the_packed_reference_is_complete():
    assert QWEN2.adapters == sorted("a b c h1 h2 p1 cpp cpp2 cmp cfac cfull".split())
    assert list(QWEN2.fusions) == "dynamic static houlsby compacter mixed late_value".split()
    assert list(QWEN2.phases.values()) == [("dynamic", "c")]
    gradients = {".".join(key.split(".")[:2]) for key in QWEN2.expected if ".grad." in key}
    assert gradients == {
        *(f"single.{name}" for name in ("a", "h1", "cpp", "cfac")),
        *(f"fusion.{name}" for name in ("dynamic", "static", "compacter")),
        "advfusion.phase1_target_c",
    }
    assert sum(key.endswith(".reg_loss") for key in QWEN2.expected) == 3

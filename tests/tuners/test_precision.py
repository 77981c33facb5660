"""Half-precision and quantised bases under adapters and fusions of every place; why fusions are held in fp32."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from studykit.training.base import open_model
from studykit.tuners import PRESETS, BottleneckConfig, FusionConfig
from studykit.tuners.fusion import Fusion
from tests.tuners.models import randomise, tiny, tokens

PLACES = {"bottleneck": "output", "houlsby": "houlsby", "parallel": "parallel"}


def fused_on(base, kind: str, rank: int | None = None) -> PeftModel:
    config = {**PRESETS[kind], "reduction_factor": 4, "task_type": "CAUSAL_LM"}
    model = get_peft_model(base, BottleneckConfig(**config), adapter_name="a")
    model.add_adapter("b", BottleneckConfig(**config))
    model.add_adapter("fusion", FusionConfig(members=["a", "b"], rank=rank, task_type="CAUSAL_LM"))
    model.set_adapter("fusion")
    randomise(model, std=0.1)
    return model


def works(model: PeftModel, again, tmp_path) -> None:
    """Forward, backward, save, reload on `again`, fold, generate; the fusion in fp32 throughout."""
    assert {p.dtype for n, p in model.named_parameters() if ".composition." in n} == {torch.float32}
    model.train()
    loss = model(tokens(), labels=tokens()).loss
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    assert all(".fusions.fusion." in name for name in gradients)
    model.eval()
    with torch.no_grad():
        expected = model(tokens()).logits
        written = model.generate(input_ids=tokens(), max_new_tokens=6, min_new_tokens=6, do_sample=False)
        assert written.shape == (3, 15)
        assert model.fold_fusion() == ["fusion"]
        torch.testing.assert_close(model(tokens()).logits, expected, atol=0.1, rtol=0.05)
    model.save_pretrained(tmp_path / "saved", selected_adapters=["a", "b", "fusion"])
    other = PeftModel.from_pretrained(again, tmp_path / "saved/a", adapter_name="a")
    for name in ("b", "fusion"):
        other.load_adapter(tmp_path / "saved" / name, adapter_name=name)
    other.set_adapter("fusion")
    with torch.no_grad():
        assert torch.equal(other.eval()(tokens()).logits, expected)


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_carries_adapters_and_fusions(tmp_path, quantization, kind):
    tiny(hidden_size=64, head_dim=16, intermediate_size=64).save_pretrained(tmp_path / "base")
    model = fused_on(open_model(str(tmp_path / "base"), quantization), kind)
    works(model, open_model(str(tmp_path / "base"), quantization), tmp_path)


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_base_carries_adapters_and_fusions(tmp_path, dtype, kind):
    works(fused_on(tiny().to(dtype), kind, rank=2 if kind == "houlsby" else None), tiny().to(dtype), tmp_path)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_an_update_of_the_published_rate_moves_fp32_and_not_bf16(part):
    """The rate of the study is 1e-5. bf16 has 8 bits: beside 1, the diagonal of W_v, its steps are 1/128 or 1/256."""
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        weight = getattr(Fusion(32, 32), part).weight.detach().to(dtype).requires_grad_()
        before = weight.detach().clone()
        optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        for _ in range(20):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        changed = weight.detach() != before
        moved[dtype] = (changed.diagonal() if part == "value" else changed).double().mean().item()
    assert moved[torch.float32] == 1
    assert moved[torch.bfloat16] == 0 if part == "value" else moved[torch.bfloat16] < 0.6


def test_under_bf16_on_a_cpu_weights_still_sum_to_one():
    """torch leaves a softmax in bf16 there, whose 8 bits would miss the sum by up to .004."""
    model = fused_on(tiny(), "bottleneck").eval()
    fusion = next(module for module in model.modules() if isinstance(module, Fusion))
    seen = []
    fusion.register_forward_hook(lambda module, given, got: seen.append(got[1]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(tokens())
    assert seen and all(alpha.dtype == torch.float32 for alpha in seen)
    assert all((alpha.sum(-1) - 1).abs().max() < 1e-5 for alpha in seen)

"""Laws of fusion and masking that hold for any weights and inputs."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.tuners import FusionConfig, fusion_layers, fusion_members, record_fusion, set_temperature, value_deviation
from studykit.tuners.bottleneck import Bottleneck
from studykit.tuners.fusion import SCORES, Fusion, MemberStack
from tests.tuners.models import fused, randomise, tokens


def textbook(fusion: Fusion, members: list[Bottleneck], x, masked=(), mode="zero"):
    """AdapterFusion as in the paper, member by member; masking by really zeroing or really leaving out."""
    outputs = torch.stack([0 * m(x) if n in masked else m(x) for n, m in enumerate(members)], dim=-2)  # (B, T, N, d)
    kept = [n for n in range(len(members)) if mode == "zero" or n not in masked]
    outputs = outputs[..., kept, :]
    read = F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 if fusion.scores == "query_norm" else x
    scores = (fusion.query(read)[..., None, :] * fusion.key(outputs)).sum(-1) / fusion.temperature
    scores = scores / fusion.key.out_features**0.5 if fusion.scores == "scaled" else scores
    return (scores.softmax(-1)[..., None] * fusion.value(outputs)).sum(-2)


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    activations=st.lists(st.sampled_from(["relu", "gelu", "swish"]), min_size=5, max_size=5),
    masked=st.sets(st.integers(0, 4), max_size=3),
    mode=st.sampled_from(["zero", "exclude"]),
    scores=st.sampled_from(SCORES),
    temperature=st.sampled_from([1.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_rank_space_equals_textbook(widths, activations, masked, mode, scores, temperature, seed):
    torch.manual_seed(seed)
    d, masked = 12, tuple(sorted(n for n in masked if n < len(widths)))
    if mode == "exclude" and len(masked) == len(widths):
        masked = masked[1:]
    members = [Bottleneck(d, d, r, a, scaling=1.5) for r, a in zip(widths, activations, strict=False)]
    fusion = Fusion(d, d, temperature=temperature, scores=scores)
    for module in (*members, fusion):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    x = torch.randn(2, 3, d)
    context, alpha, _ = fusion(x, MemberStack.from_members(members), masked, mode)
    torch.testing.assert_close(context, textbook(fusion, members, x, masked, mode), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alpha.sum(-1), torch.ones(2, 3))
    if mode == "exclude":
        assert (alpha[..., list(masked)] == 0).all()


def test_identical_members_give_uniform_attention():
    model = fused(["a", "b", "c"])
    for layer in fusion_layers(model):
        for name in ("b", "c"):
            layer.adapters[name].load_state_dict(layer.adapters["a"].state_dict())
    with record_fusion(model) as record:
        model(tokens())
    for weights in record.weights.values():
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))


def test_permuting_members_permutes_attention_and_keeps_logits():
    model, permuted = fused(["a", "b", "c"]), fused(["c", "a", "b"])
    with record_fusion(model) as record, record_fusion(permuted) as other:
        torch.testing.assert_close(model(tokens()).logits, permuted(tokens()).logits, atol=1e-5, rtol=1e-5)
    for layer, weights in record.weights.items():
        torch.testing.assert_close(weights[..., [2, 0, 1]], other.weights[layer], atol=1e-5, rtol=1e-4)


def test_excluded_member_gets_exactly_zero_and_cannot_matter():
    model = fused(["a", "b", "c"])
    fusion_members(model, masked=["b"], mode="exclude")
    with record_fusion(model) as record:
        before = model(tokens()).logits
    assert all((weights[..., 1] == 0).all() for weights in record.weights.values())
    for layer in fusion_layers(model):
        for parameter in layer.adapters["b"].parameters():
            parameter.data.normal_()
    assert torch.equal(model(tokens()).logits, before)


def test_zero_masked_member_contributes_nothing_but_keeps_its_slot():
    model = fused(["a", "b", "c"])
    fusion_members(model, masked=["b"], mode="zero")
    with record_fusion(model) as record:
        before = model(tokens()).logits
    assert all((weights[..., 1] > 0).all() for weights in record.weights.values())
    assert all((norms[..., 1] == 0).all() for norms in record.norms.values())
    for layer in fusion_layers(model):
        for parameter in layer.adapters["b"].parameters():
            parameter.data.normal_()
    assert torch.equal(model(tokens()).logits, before), "a masked member's weights must not be seen"
    destroyed = fused(["a", "b", "c"])
    for layer in fusion_layers(destroyed):
        for parameter in layer.adapters["b"].parameters():
            parameter.data.zero_()
    torch.testing.assert_close(destroyed(tokens()).logits, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["zero", "exclude"])
def test_masking_is_undone_bit_for_bit(mode):
    model = fused(["a", "b"])
    before = model(tokens()).logits
    fusion_members(model, masked=["b"], mode=mode)
    assert not torch.equal(model(tokens()).logits, before)
    fusion_members(model, masked=[])
    assert torch.equal(model(tokens()).logits, before)


@pytest.mark.parametrize("masked", [[], ["b"]])
@pytest.mark.parametrize("mode", ["zero", "exclude"])
def test_exactly_query_key_value_get_gradients(masked, mode):
    model = fused(["a", "b", "c"])
    fusion_members(model, masked=masked, mode=mode)
    model(tokens(), labels=tokens()).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".fusions.fusion." in name}
    assert len(trained) == 2 * 5  # per layer: query and key with bias, value without
    for name, parameter in model.named_parameters():
        if name in trained:
            size = parameter.grad.abs().max()
            assert size < 1e-6 if name.endswith("key.bias") else size > 1e-6, name


def test_key_bias_gradient_is_zero_without_changing_the_function():
    model = fused(["a", "b"])
    before = model(tokens()).logits
    for layer in fusion_layers(model):
        layer.fusions["fusion"].key.bias.data.normal_()
    torch.testing.assert_close(model(tokens()).logits, before, atol=1e-5, rtol=1e-5)


def test_changed_member_weights_are_seen():
    model = fused(["a", "b"])
    before = model(tokens()).logits
    up = fusion_layers(model)[1].adapters["a"].up
    with torch.no_grad():
        up.weight.mul_(2)
    doubled = model(tokens()).logits
    assert not torch.equal(doubled, before)
    up.load_state_dict({"weight": up.weight / 2, "bias": up.bias})
    assert torch.equal(model(tokens()).logits, before)
    up.weight.data.mul_(2)  # autograd cannot tell of this one
    assert torch.equal(model.eval()(tokens()).logits, doubled)


def test_fresh_fusion_starts_uniform_with_value_at_identity():
    torch.manual_seed(0)
    fusion = Fusion(16, 16)
    x = torch.randn(2, 4, 16)
    members = [Bottleneck(16, 16, 4) for _ in range(4)]
    _, alpha, _ = fusion(x, MemberStack.from_members(members))
    torch.testing.assert_close(alpha, torch.full_like(alpha, 0.25), atol=0.01, rtol=0)
    assert fusion.value_deviation().item() == pytest.approx(16 * 15 * 1e-12, rel=1e-3)
    assert F.cosine_similarity(fusion.value(x), x, dim=-1).min() > 0.999


def test_a_temperature_that_is_set_acts_in_every_layer_and_is_saved(tmp_path):
    model = fused(["a", "b", "c"])
    with torch.no_grad(), record_fusion(model) as record:
        model(tokens())
        sharp = {site: alpha.clone() for site, alpha in record.weights.items()}
        model.fold_fusion()
        set_temperature(model, 1e6)
        model(tokens())
        assert all(
            (alpha - 1 / 3).abs().max() < 1e-3 < (sharp[at] - 1 / 3).abs().max() for at, alpha in record.weights.items()
        )
    model.save_pretrained(tmp_path, selected_adapters=["fusion"])
    assert FusionConfig.from_pretrained(tmp_path / "fusion").temperature == 1e6


def test_value_deviation_counts_only_the_active_fusion():
    model = fused(["a", "b"])
    expected = sum(
        (layer.fusions["fusion"].value.weight - torch.eye(32)).square().sum() for layer in fusion_layers(model)
    )
    torch.testing.assert_close(value_deviation(model), expected)


def test_unknown_member_mode_and_empty_exclusion_are_refused():
    model = fused(["a", "b"])
    with pytest.raises(ValueError, match="'ruby'.* its members are"):
        fusion_members(model, masked=["ruby"])
    with pytest.raises(ValueError, match="mode='drop' is unknown"):
        fusion_members(model, masked=["a"], mode="drop")
    with pytest.raises(ValueError, match="leave at least one"):
        fusion_members(model, masked=["a", "b"], mode="exclude")
    model.set_adapter("a")
    with pytest.raises(ValueError, match="No fusion is active"):
        fusion_members(model, masked=["a"])
    randomise(model)

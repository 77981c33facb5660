"""Laws of the control arms: a control differs from what it controls in the one thing that its word names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studykit.errors import UserError
from studykit.runs import store
from studykit.training import fusions, phases, placebos, trainer
from studykit.training.adapters import load_members
from studykit.training.base import load_base
from studykit.tuners.model import composition_layers
from tests import tiny

SOURCES = tiny.MEMBERS[:-1]


def members(p):
    return load_members(load_base(p.base)[0], p.members)


def tensors(model, member: str) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if f".adapters.{member}." in name}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 12)[None]).logits


def trained(p, model=None, fuse=phases.train_phases):
    """The fusion and its weights after all of its phases."""
    base, tokens = load_base(p.base)
    model = model or fusions.new_fusion(base, p)
    with store.open_run(p.out, stage="fusion", params=p) as run:
        list(fuse(model, tokens, p, tiny.LIMITS, run))
        fusions.save_members(run.path(), p.members)
        run.publish(headline={})
    return model, trainer.trained_weights(model)


@pytest.mark.parametrize("kind", ["bottleneck", "compacterpp", "lora"])
def test_random_members_carry_no_information_of_the_trained_ones_but_their_norms(home, kind):
    p = tiny.fusion_params(home)
    p = p.model_copy(update={"members": {x: tiny.adapter_run(home, p.base, x, kind) for x in p.members}})
    real, placebo, again, other = members(p), members(p), members(p), members(p)
    for model, seed in ((placebo, 3), (again, 3), (other, 4)):
        placebos.replace_members(model, SOURCES, "random", seed)
    for member in SOURCES:
        before, after = tensors(real, member), tensors(placebo, member)
        for name, weight in before.items():
            torch.testing.assert_close(after[name].norm(), weight.norm())
            if weight.numel() >= 64:
                cosine = torch.cosine_similarity(after[name].flatten(), weight.flatten(), dim=0)
                assert abs(cosine) < 5 / weight.numel() ** 0.5, name
        assert all(torch.equal(weight, after[name]) for name, weight in tensors(again, member).items())
        assert not any(torch.equal(w, after[name]) for name, w in tensors(other, member).items() if w.norm() > 0)
    assert all(torch.equal(weight, tensors(placebo, "lua")[name]) for name, weight in tensors(real, "lua").items())


@pytest.mark.parametrize("kind", ["bottleneck", "houlsby", "lora"])
def test_shuffled_members_have_the_same_tensors_none_where_it_was(home, kind):
    p = tiny.fusion_params(home)
    p = p.model_copy(update={"members": {x: tiny.adapter_run(home, p.base, x, kind) for x in p.members}})
    real, placebo = members(p), members(p)
    placebos.replace_members(placebo, SOURCES, "shuffled", 0)
    for member in SOURCES:
        before, after = tensors(real, member), tensors(placebo, member)
        bytes_of = [sorted(w.numpy().tobytes() for w in of.values()) for of in (before, after)]
        assert bytes_of[0] == bytes_of[1]
        assert not any(torch.equal(weight, after[name]) for name, weight in before.items())
    assert all(torch.equal(weight, tensors(placebo, "lua")[name]) for name, weight in tensors(real, "lua").items())
    with pytest.raises(UserError, match="a single layer"):
        for layer in composition_layers(placebo):
            layer.sites = {name: site._replace(layer=0) for name, site in layer.sites.items()}
        placebos.replace_members(placebo, SOURCES, "shuffled", 0)


def test_members_that_change_places_within_a_layer_change_nothing(home):
    """So such a shuffle would control for nothing: attention over members has no order."""
    p = tiny.fusion_params(home, method="adapterfusion", mask="none")
    model = fusions.new_fusion(load_base(p.base)[0], p)
    before, layer = logits(model), composition_layers(model)[0]
    one, other = (layer.adapters[name].state_dict() for name in SOURCES)
    one, other = ({name: weight.clone() for name, weight in state.items()} for state in (one, other))
    layer.adapters[SOURCES[0]].load_state_dict(other)
    layer.adapters[SOURCES[1]].load_state_dict(one)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("placebo", ["random", "shuffled"])
def test_a_fusion_of_placebos_comes_back_with_them(home, placebo):
    p = tiny.fusion_params(home, placebo=placebo, mask="zero")
    model, _ = trained(p)
    fresh = fusions.load_trained(load_base(p.base)[0], p.out)
    assert torch.equal(logits(fresh), logits(model))


def test_a_member_that_is_left_out_is_as_one_that_is_excluded_from_beginning_to_end(home):
    """In logits and in training: a fusion of all members that always excludes one is a fusion without it."""
    p = tiny.fusion_params(home, method="adapterfusion", mask="none")
    few = p.model_copy(update={"members": {x: p.members[x] for x in ("python", "lua")}, "left_out": ["ruby"]})
    few = few.model_copy(update={"out": "runs/fusion/lua-adapterfusion-without-ruby-s0-0000000005"})

    def always_excluding(model, tokens, p, limits, run):
        (phase,) = phases.training_phases(p)
        masked = replace(phase, masked=("ruby",), mode="exclude")
        yield phases.train_phase(model, tokens, masked, p, limits, run)

    model, weights = trained(p, fuse=always_excluding)
    without, weights_without = trained(few)
    for name, weight in weights.items():
        if not name.endswith("key.bias"):  # it cancels in the softmax, so rounding alone moves it
            torch.testing.assert_close(weights_without[name], weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(without), logits(model), atol=1e-4, rtol=1e-4)
    whole, _ = trained(p.model_copy(update={"out": "runs/fusion/lua-whole-0000000008"}))
    assert not torch.allclose(logits(without), logits(whole), atol=1e-3), "the member has a say"


def test_two_phases_without_a_mask_are_adapterfusion_with_a_schedule_that_restarts(home):
    none = tiny.fusion_params(home, mask="none", steps=4, same_order=True)
    once = none.model_copy(update={"method": "adapterfusion", "steps": 2, "out": "runs/fusion/lua-once-0000000006"})
    _, weights = trained(none)
    model, _ = trained(once)
    _, twice = trained(once.model_copy(update={"out": "runs/fusion/lua-twice-0000000007"}), model)
    assert weights.keys() == twice.keys() and all(torch.equal(weights[name], twice[name]) for name in weights)


def test_a_placebo_mask_hides_another_member_and_the_same_weights_are_restored(home):
    p = tiny.fusion_params(home, masked_member="python")
    first, second = phases.training_phases(p)
    assert (first.masked, second.masked) == (("python",), ())
    assert fusions.masked_members(p.model_dump(), first.phase) == ("python",)


@pytest.mark.parametrize("kind", ["bottleneck", "houlsby", "compacterpp", "lora"])
def test_a_matched_fusion_has_as_many_parameters_as_one_member(home, kind):
    p = tiny.fusion_params(home, variant="lowrank", rank="match")
    p = p.model_copy(update={"members": {x: tiny.adapter_run(home, p.base, x, kind) for x in p.members}})
    model = fusions.new_fusion(load_base(p.base)[0], p)
    of_one = sum(weight.numel() for weight in tensors(model, "python").values())
    fusion = sum(weight.numel() for weight in trainer.trained_weights(model).values())
    rank = model.peft_config["fusion"].rank
    assert isinstance(rank, int) and (abs(fusion - of_one) <= fusion / rank / 2 or rank == 1)

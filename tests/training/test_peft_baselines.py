"""Laws of what attention has to beat over the same LoRAs: merges by a factor, multi-head routing, and routers."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from studykit.errors import UserError
from studykit.training import fusions, peft_baselines
from studykit.training.adapters import adapter_directory
from studykit.training.base import load_base
from tests import tiny

IDS = torch.arange(5, 12)[None]


@pytest.fixture
def p(tmp_path, monkeypatch):
    """Parameters of a composition of three random LoRAs."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = tiny.fusion_params(tmp_path, method="adapterfusion", mask="none")
    return made.model_copy(
        update={"members": {x: tiny.adapter_run(tmp_path, made.base, x, "lora") for x in made.members}}
    )


def composed(p, method: str, **given):
    base = load_base(p.base)[0]
    return fusions.new_fusion(base, p.model_copy(update={"method": method, **given})).eval()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def updates(model, name: str) -> dict[str, torch.Tensor]:
    """The update of each module by the adapter of a name."""
    layers = {key: module for key, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {key: layer.get_delta_weight(name) for key, layer in layers.items()}


ONE = {"task_arithmetic": {"factor": 1.0}, "ties": {"factor": 1.0, "density": 1.0}, "merge": {"factor": 1.0},
       "mhr": {"heads": 4}, "arrow": {}, "xlora": {}}  # fmt: skip


@pytest.mark.parametrize("method", ONE)
def test_a_composition_of_one_lora_is_that_lora(p, method):
    one = {"members": {"lua": p.members["lua"]}}
    own = logits(PeftModel.from_pretrained(load_base(p.base)[0], adapter_directory(p.members["lua"])).eval())
    torch.testing.assert_close(logits(composed(p, method, **one, **ONE[method])), own, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(own, logits(load_base(p.base)[0]), atol=1e-2)


@pytest.mark.parametrize("method", [*ONE, "average", "scalar_mix"])
def test_a_composition_of_equal_loras_is_that_lora(p, method):
    """The weights of a router sum to 1; a merge of three copies has a third of each, or the mean of all."""
    same = {"members": dict.fromkeys(p.members, p.members["lua"])}
    factor = {"task_arithmetic": 1 / 3, "merge": 1 / 9}.get(method, 1.0)  # merge has nine products of A and B
    model = composed(p, method, **same, **ONE.get(method, {}) | {"factor": factor})
    own = PeftModel.from_pretrained(load_base(p.base)[0], adapter_directory(p.members["lua"])).eval()
    torch.testing.assert_close(logits(model), logits(own), atol=1e-4, rtol=1e-4)


def test_task_arithmetic_adds_the_updates_times_the_factor(p):
    model = composed(p, "task_arithmetic", factor=0.7)
    of_members = [updates(model, member) for member in p.members]
    for key, update in updates(model, fusions.FUSION).items():
        expected = 0.7 * sum(member[key] for member in of_members)
        torch.testing.assert_close(update, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method, given", [("task_arithmetic", {"factor": 1 / 3}), ("mhr", {"heads": 8}),
                                           ("scalar_mix", {})])  # fmt: skip
def test_compositions_that_begin_as_the_average(p, method, given):
    torch.testing.assert_close(
        logits(composed(p, method, **given)), logits(composed(p, "average")), atol=1e-5, rtol=1e-5
    )


def test_merged_factors_of_different_members_are_no_sum_of_updates(p):
    apart, exact = composed(p, "merge", factor=1.0), composed(p, "task_arithmetic", factor=1.0)
    for key, update in updates(apart, fusions.FUSION).items():
        assert (update - updates(exact, fusions.FUSION)[key]).norm() > 0.1 * update.norm()


@pytest.mark.parametrize("density", [0.2, 0.6])
def test_ties_keeps_the_largest_entries_that_have_the_elected_sign(p, density):
    model = composed(p, "ties", factor=1.5, density=density)
    of_members = [updates(model, member) for member in p.members]
    for key, merged in updates(model, fusions.FUSION).items():
        trimmed = []
        for member in of_members:
            least = member[key].abs().flatten().sort(descending=True).values[int(density * member[key].numel()) - 1]
            trimmed.append(member[key] * (member[key].abs() >= least))
        stacked = torch.stack(trimmed)
        agree = (stacked * stacked.sum(0)) > 0
        expected = 1.5 * (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)
        torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-5)
        assert 0 < (merged == 0).float().mean() < 1, "some entries went, and not all"


def test_ties_is_pefts_merge_of_updates_without_its_loss_of_rank(p):
    model = composed(p, "ties", factor=1.0, density=0.3)
    model.add_weighted_adapter(
        list(p.members), [1.0] * 3, "theirs", "ties_svd", svd_rank=32, svd_full_matrices=False, density=0.3
    )
    theirs, ours = updates(model, "theirs"), updates(model, fusions.FUSION)
    for key, update in ours.items():
        torch.testing.assert_close(update, theirs[key], atol=1e-4, rtol=1e-4)
    rows = {update.shape[0] for update in ours.values()}
    assert rows == {16, 32}, "both a module with fewer outputs than inputs and a square one"


def test_arrow_reads_as_many_loras_per_token_as_it_is_told(p):
    one, two, three, all_of_them = (logits(composed(p, "arrow", top_k=k)) for k in (1, 2, 3, 50))
    assert torch.equal(three, all_of_them)
    assert not torch.allclose(one, two, atol=1e-3) and not torch.allclose(two, three, atol=1e-3)


def test_arrow_routes_by_the_first_right_singular_vector_of_each_update(p):
    model = composed(p, "arrow")
    logits(model)
    layers = {key: module for key, module in model.named_modules() if getattr(module, "lora_arrow", None)}
    assert layers
    for layer in layers.values():
        for router in layer.lora_arrow.values():
            assert len(router.task_adapter_names) == len(router.prototypes) == 3
            for name, vector in zip(router.task_adapter_names, router.prototypes, strict=True):
                right = torch.linalg.svd(layer.get_delta_weight(name)).Vh[0]
                assert abs(float(vector @ right)) == pytest.approx(1, abs=1e-4)


def test_xlora_is_refused_where_pefts_does_not_work(p, monkeypatch):
    with pytest.raises(UserError, match="xlora of PEFT does not work with gradient_checkpointing true"):
        composed(p, "xlora", gradient_checkpointing=True)
    monkeypatch.setattr(peft_baselines, "quantization_of", lambda model: "nf4")
    with pytest.raises(UserError, match="xlora of PEFT does not work with quantization nf4"):
        composed(p, "xlora")


def test_what_trains_has_the_parameters_that_the_method_says(p):
    def count(model) -> int:
        return sum(q.numel() for q in model.parameters() if q.requires_grad)

    sites, width = 2 * 2, 32  # q and v in two layers
    assert count(composed(p, "mhr", heads=8)) == sites * 8 * 3
    assert count(composed(p, "scalar_mix")) == sites * 3
    assert count(composed(p, "xlora")) == 3 * (width + 1)
    for method in ("task_arithmetic", "ties", "merge", "arrow"):
        assert count(composed(p, method, factor=1.0)) == 0


def test_heads_that_do_not_fit_are_refused(p, tmp_path):
    with pytest.raises(UserError, match="heads=5 does not divide the 32 inputs of the members evenly"):
        composed(p, "mhr", heads=5)
    nonlinear = {"members": {x: tiny.adapter_run(tmp_path, p.base, x) for x in p.members}}
    with pytest.raises(UserError, match="kind='mhr' weighs parts of its members' input, so all of them must be LoRAs"):
        composed(p, "mhr", heads=4, **nonlinear)

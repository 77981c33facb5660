"""Adapters and fusions on disk: what is saved is the adapter's own, and comes back with the same logits."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from studykit.errors import UserError
from studykit.study.fusion_parameters import FusionParams
from studykit.study.training_parameters import AdapterParams
from studykit.training import adapters, fusions
from studykit.training.base import load_base
from studykit.tuners import fusion_members
from tests import made_runs, tiny


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def runs(home) -> dict:
    """A base, an adapter per member and one of LoRA, by name; paths relative to the project's directory."""
    base = tiny.base_run(home)
    made = {language: tiny.adapter_run(home, base, language) for language in tiny.MEMBERS}
    return made | {"base": base, "lora": tiny.adapter_run(home, base, "lua", "lora")}


@pytest.fixture(autouse=True)
def inside(home, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(home))
    monkeypatch.chdir(home)


def members(runs: dict) -> dict[str, str]:
    return {language: runs[language] for language in tiny.MEMBERS}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 33).view(2, 15)).logits


def new_fusion(runs: dict, seed: int = 0):
    base, _ = load_base(runs["base"])
    return fusions.new_fusion(base, FusionParams(members=members(runs), seed=seed)).eval()


def fusion_run(home, model, runs: dict, phases: tuple[str, ...]):
    """A fusion run whose phases differ by a known amount in every weight."""
    place = home / f"runs/fusion/lua-s0-{len(phases):010d}"
    expected = {}
    for phase in phases:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.05)
        fusions.save_fusion(model, place / phase)
        expected[phase] = logits(model.train().eval())
    fusions.save_members(place, members(runs))
    method = "advfusion" if "phase1" in expected else "adapterfusion"
    params = {"members": members(runs), "target": "lua", "method": method, "head": "none", "placebo": "none"}
    made_runs.finish(place, "fusion", {"base": runs["base"]} | params)
    return place, expected


@pytest.mark.parametrize("method", ["bottleneck", "lora"])
def test_a_new_adapter_is_decided_by_its_seed(runs, method):
    def weights(seed):
        base, _ = load_base(runs["base"])
        torch.manual_seed(torch.seed() % 1000)
        model = adapters.new_adapter(base, AdapterParams(language="lua", method=method, seed=seed))
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_new_fusion_is_decided_by_its_seed_and_trains_alone(runs):
    first, other = new_fusion(runs), new_fusion(runs, seed=1)
    torch.manual_seed(5)
    assert torch.equal(logits(first), logits(new_fusion(runs)))
    assert not torch.equal(logits(first), logits(other))
    trainable = [name for name, p in first.named_parameters() if p.requires_grad]
    assert trainable and all(".fusions.fusion." in name for name in trainable)
    assert fusion_members(first) == tiny.MEMBERS


def test_an_adapter_run_comes_back(runs):
    base, tokens = load_base(runs["base"])
    plain = logits(base)
    adapted = logits(fusions.load_trained(base, runs["lua"]))
    assert not torch.equal(adapted, plain)
    model = adapters.load_members(load_base(runs["base"])[0], members(runs))
    model.set_adapter("lua")
    assert torch.equal(logits(model.eval()), adapted)
    assert not any(p.requires_grad for p in fusions.load_trained(load_base(runs["base"])[0], runs["lua"]).parameters())


@pytest.mark.parametrize("phases", [("phase1", "phase2"), ("fusion",)])
def test_a_fusion_run_comes_back_phase_by_phase(runs, home, phases):
    place, expected = fusion_run(home, new_fusion(runs), runs, phases)
    for phase in (*phases, None):
        model = fusions.load_trained(load_base(runs["base"])[0], place, phase)
        assert torch.equal(logits(model), expected[phase or phases[-1]])
        assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_one_base_carries_run_after_run(runs, home):
    place, expected = fusion_run(home, new_fusion(runs), runs, ("phase1", "phase2"))
    base, _ = load_base(runs["base"])
    plain = logits(base)
    for phase in ("phase1", "phase2", "phase1"):
        model = fusions.load_trained(base, place, phase)
        assert torch.equal(logits(model), expected[phase])
        model.unload()
        assert torch.equal(logits(base), plain)


def test_a_fusion_saves_its_own_weights_alone(runs, home):
    place, _ = fusion_run(home, new_fusion(runs), runs, ("fusion",))
    with safe_open(place / "fusion/fusion/adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len(names) == 5 * 2 and all(".fusions." in name for name in names)
    assert json.loads((place / "members.json").read_text()) == members(runs)
    config = json.loads((place / "fusion/fusion/adapter_config.json").read_text())
    assert config["members"] == tiny.MEMBERS
    assert str(home) not in (place / "fusion/fusion/adapter_config.json").read_text()


def test_members_keep_their_order(runs, home):
    place, expected = fusion_run(home, new_fusion(runs), runs, ("fusion",))
    assert fusion_members(fusions.load_trained(load_base(runs["base"])[0], place)) == tiny.MEMBERS


def refused(match: str, work) -> None:
    with pytest.raises(UserError, match=match) as caught:
        work()
    assert "\n" not in str(caught.value)


def test_mistakes_are_told_in_one_sentence(runs, home):
    base, _ = load_base(runs["base"])
    place, _ = fusion_run(home, new_fusion(runs), runs, ("phase1", "phase2"))
    wrong = members(runs) | {"lua": runs["lora"]}
    refused(
        "Only adapters of one placement can be fused, but .* at 'linear'",
        lambda: fusions.new_fusion(base, FusionParams(members=wrong)),
    )
    absent = members(runs) | {"lua": runs["base"]}
    base, _ = load_base(runs["base"])
    refused(
        "holds no adapter; a finished run of notebook 02",
        lambda: fusions.new_fusion(base, FusionParams(members=absent)),
    )
    refused("has no 'fusion'; it holds phase1, phase2", lambda: fusions.load_trained(base, place, "fusion"))
    refused("neither a finished adapter run nor", lambda: fusions.load_trained(base, runs["base"]))
    fusions.save_members(home / "runs/fusion/torn", members(runs))
    refused("has no 'phase'; it holds no fusion", lambda: fusions.load_trained(base, home / "runs/fusion/torn"))


def test_runs_of_another_base_are_refused(runs, home):
    adapters.require_base(runs["base"], members(runs).values())
    adapters.require_base(runs["base"] + "/", members(runs).values())
    other = tiny.base_run(home, seed=1)
    refused("was trained on .*, not on", lambda: adapters.require_base(other, members(runs).values()))
    refused("is not a finished run", lambda: adapters.require_base(runs["base"], ["runs/adapter/absent"]))


def test_adapters_of_a_seed_start_alike_unless_each_language_draws_its_own():
    def start(language, init_seed, seed=0):
        p = AdapterParams(language=language, seed=seed, init_seed=init_seed, reduction_factor=4)
        weights = adapters.new_adapter(tiny.base_model(tiny.tokenizer()), p).named_parameters()
        return torch.cat([weight.flatten() for _, weight in weights if weight.requires_grad])

    assert torch.equal(start("lua", "shared"), start("go", "shared"))
    assert not torch.equal(start("lua", "by_language"), start("go", "by_language"))
    assert torch.equal(start("lua", "by_language"), start("lua", "by_language"))
    assert not torch.equal(start("lua", "by_language"), start("lua", "by_language", seed=1))

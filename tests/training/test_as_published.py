"""The published study's behaviour on toy models: every switch of `preset: as_published` against what it imitates."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from studykit.data.encoding import encode_row
from studykit.data.prepare import prepare
from studykit.runs import store
from studykit.study.family import load_plan
from studykit.study.file import Study
from studykit.study.parameters import check
from studykit.study.plan import plan, settings
from studykit.study.presets import PRESETS
from studykit.training import adapters, fusions, phases
from studykit.training.base import load_base
from studykit.training.rounding import round_to_bf16
from studykit.training.train import TrainingSettings, train
from studykit.training.trainer import trained_weights
from studykit.tuners import value_deviation
from tests import tiny
from tests.project import ROOT
from tests.tuners import models

GOOD = {"study": "small", "task": "generation", "members": ["python", "go"], "target": "lua", "seeds": [0],
        "methods": ["lora", "bottleneck", "adapterfusion", "advfusion_zero"]}  # fmt: skip


def study(**changes) -> Study:
    return Study.model_validate(GOOD | {"preset": "as_published"} | changes)


def runs_of(made: Study, stage: str) -> dict[str, dict]:
    return {run.params["method"]: run.params for run in plan(made) if run.stage == stage}


def test_the_preset_sets_switches_of_which_each_can_be_turned_off_alone():
    plain, published = Study.model_validate(GOOD), study()
    for section, keys in PRESETS["as_published"].items():
        for key, value in keys.items():
            assert getattr(getattr(published, section), key) == value != getattr(getattr(plain, section), key)
            if key == "by_method":
                continue
            usual = getattr(getattr(plain, section), key)
            off = study(**{section: {key: usual}})
            assert getattr(getattr(off, section), key) == usual
            others = {(s, k) for s, ks in PRESETS["as_published"].items() for k in ks} - {(section, key)}
            assert all(getattr(getattr(off, s), k) == getattr(getattr(published, s), k) for s, k in others)


def test_the_preset_by_method():
    fused, trained = runs_of(study(), "fusion"), runs_of(study(), "adapter")
    assert (fused["adapterfusion"]["head"], fused["advfusion"]["head"]) == ("source", "restored")
    assert not trained["lora"]["train_embeddings"] and trained["bottleneck"]["train_embeddings"]
    own = study(fusion={"by_method": {"advfusion": {"learning_rate": 0.1}}})
    assert runs_of(own, "fusion")["advfusion"]["head"] == "source", "what the file says of a word stands alone"
    benchmark = study(data={"path": "x", "test_path": "y"}, evaluate={"top_k": 5})
    assert (benchmark.evaluate.samples, benchmark.evaluate.temperature, benchmark.evaluate.top_k) == (10, 0.3, 5)
    assert study().evaluate.samples == 1
    original = Study.model_validate(GOOD | {"preset": "as_published_2023"})
    first, second = runs_of(original, "fusion")["advfusion"]["phases"]
    assert (first["steps"], first["rows"], second["steps"]) == (20_000, "all", 5_000)


@pytest.mark.parametrize("own, changed", [
    ({}, {}),
    ({"adapter": {"steps": 7}}, {"python": (None, 7), "go": (None, 7), "lora": (None, 60), "bottleneck": (None, 60)}),
    ({"adapter": {"target_steps": 7}},
     {"python": (None, 200), "go": (None, 200), "lora": (None, 7), "bottleneck": (None, 7)}),
    ({"adapter": {"epochs": 3, "steps": 7}}, dict.fromkeys(("python", "go", "lora", "bottleneck"), (3.0, None))),
    ({"adapter": {"by_method": {"lora": {"target_steps": 7}}}}, {"lora": (None, 7)}),
    ({"fusion": {"steps": 7}}, {"adapterfusion": (None, 7), "advfusion": (None, 7)}),
    ({"fusion": {"epochs": None}}, {"adapterfusion": (None, 100), "advfusion": (None, 100)}),
    ({"fusion": {"by_method": {"advfusion": {"steps": 7}}}}, {"advfusion": (None, 7)}),
    ({"fusion": {"by_method": {"advfusion": {"steps": 7}, "advfusion_zero": {"epochs": 3}}}}, {"advfusion": (3.0, 100)}),
])  # fmt: skip
def test_the_epochs_of_the_preset_are_two_where_the_file_does_not_say_how_long(own, changed):
    def length(params: dict) -> tuple[float | None, int | None]:
        return params["epochs"], params["steps"]

    adapter_runs = [run.params for run in plan(study(**own)) if run.stage == "adapter"]
    found = {p["language"] if p["language"] != "lua" else p["method"]: length(p) for p in adapter_runs}
    found |= {method: length(params) for method, params in runs_of(study(**own), "fusion").items()}
    usual = dict.fromkeys(("python", "go", "lora", "bottleneck"), (2.0, None))
    assert found == usual | dict.fromkeys(("adapterfusion", "advfusion"), (2.0, 100)) | changed


def test_steps_of_a_phase_and_of_a_trial_go_before_the_epochs_of_the_preset():
    own = {"advfusion": {"phases": [{"steps": 7}, {}]}}
    params = runs_of(study(fusion={"by_method": own}), "fusion")["advfusion"]
    described = phases.training_phases(check("fusion", params))
    assert [(phase.epochs, phase.steps if phase.epochs is None else None) for phase in described] == [
        (None, 7), (2.0, None)]  # fmt: skip
    tried = plan(study(methods=["lora"], tune={"adapter": {"target_steps": [3, 4]}, "seeds": [8]}))
    trials = [run.params for run in tried if run.stage == "adapter" and run.params["seed"] == 8]
    assert [(p["epochs"], p["steps"]) for p in trials] == [(None, 3), (None, 4)]
    original = Study.model_validate(GOOD | {"preset": "as_published_2023"})
    assert {run.params["epochs"] for run in plan(original) if run.stage in ("adapter", "fusion")} == {None}


# Switches of the preset that no level of params/confounds.yaml turns off alone, each with its reason.
NOT_ALONE = dict.fromkeys(("adapter.epochs", "fusion.epochs"), "the files say how many steps their trainings have")
# Levels that give a switch a third value: it stays on, but no longer sets AdvFusion apart from AdapterFusion.
THIRD_VALUE = {"the head of a source": "fusion.head", "a restored head": "fusion.head"}


def switches(made: Study) -> dict[str, object]:
    """What each switch of the preset is in a study, for each of its methods: `by_method` is no switch of its own."""
    words = {"data": [""], "adapter": ["bottleneck"], "fusion": made.methods}
    keys = {(section, key) for section, of in PRESETS["as_published"].items() for key in of} - {
        (section, "by_method") for section in words
    }
    return {f"{s}.{key}": [settings(made, s, word)[key] for word in words[s]] for s, key in keys}


def differing(made: Study, other: Study) -> set[str]:
    """All keys of two studies that differ."""
    one, two = made.model_dump(), other.model_dump()
    sections = {key for key, value in one.items() if isinstance(value, dict)}
    keys = {f"{s}.{key}" for s in sections for key in one[s] if one[s][key] != two[s][key]}
    return keys | {key for key in one.keys() - sections if one[key] != two[key]}


@pytest.mark.parametrize("file", ["params/confounds.yaml", "params/confounds_smollm2.yaml"])
def test_the_studies_of_confounds_turn_off_every_switch_alone(file):
    members = {member.levels["without"]: member.study for member in load_plan(file, ROOT).members}
    whole, bare = members.pop("nothing"), members.pop("all of them")
    published, usual = switches(whole), switches(Study.model_validate(GOOD | {"methods": whole.methods}))
    assert switches(bare) == usual and differing(bare, whole) <= {*published, "preset", "fusion.by_method"} | {
        "adapter.by_method"
    }
    assert {switch for switch in published if published[switch] == usual[switch]} == NOT_ALONE.keys()
    off = []
    for level, made in members.items():
        values = switches(made)
        (switch,) = [key for key, value in values.items() if value != published[key]]
        assert differing(made, whole) <= {switch, "fusion.by_method" if switch == "fusion.head" else switch}, level
        if level in THIRD_VALUE:
            assert switch == THIRD_VALUE[level] and len(set(values[switch])) == 1, level
        else:
            assert values[switch] == usual[switch], level
            off.append(switch)
    assert sorted(off) == sorted(published.keys() - NOT_ALONE), "each by one level"


def test_the_studies_of_confounds_have_the_same_levels():
    tiny_base, pretrained = (load_plan(f"params/{name}.yaml", ROOT) for name in ("confounds", "confounds_smollm2"))
    assert tiny_base.family.vary == pretrained.family.vary
    single = load_plan("params/smollm2_ruby.yaml", ROOT).study
    assert all(getattr(pretrained.study, key) == getattr(single, key) for key in ("base", "task", "members", "target"))


def test_rows_are_cut_and_ended_as_published():
    options = {"members": ["python", "lua"], "target": "lua", "source_examples": 3, "valid_examples": 2,
               "test_examples": 2}  # fmt: skip
    tokens = tiny.tokenizer()
    rows, _ = prepare(check("data", options))
    published, _ = prepare(
        check("data", options | {"truncation": "end", "end_of_target": "newline_eos", "end_cut_targets": True})
    )
    row, other = rows["lua"]["train"][0], published["lua"]["train"][0]
    assert other.target == row.target + "\n" and published["lua"]["test"][0].target == rows["lua"]["test"][0].target
    long, cut = encode_row(row, tokens, 999, 999), encode_row(other, tokens, 12, 5)
    assert cut.prompt_cut and cut.input_ids[:12] == long.input_ids[:12], "the head of the prompt stays"
    assert cut.target_cut and cut.input_ids[-1] == tokens.eos_token_id and len(cut.input_ids) == 17
    assert encode_row(row, tokens, 999, 5).input_ids[-1] != tokens.eos_token_id
    newline = tokens("\n", add_special_tokens=False)["input_ids"]
    assert encode_row(other, tokens, 999, 999).input_ids[-2:] == [*newline, tokens.eos_token_id]


class ReferencePenalty(TrainerCallback):
    """What the reference implementation does: the penalty's own backward pass at the end of a step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        (0.5 * value_deviation(model)).backward()


def test_the_late_regularizer_is_a_backward_pass_after_each_step(home):
    p = tiny.fusion_params(home)

    def trained(**options) -> dict[str, torch.Tensor]:
        base, tokens = load_base(p.base)
        model = fusions.new_fusion(base, p)
        with torch.no_grad():  # off the identity, so that the penalty acts from the first step on
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and ".value." in name:
                    parameter.add_(0.05)
        settings = TrainingSettings(learning_rate=1e-2, batch_size=2, eval_every=9, keep="last", precision="fp32")
        place = home / "state" / str(len(list((home / "state").glob("*"))))
        rows = tiny.examples(tokens, 8)
        train(model, tokens, rows, rows[:2], settings, steps=4, trainer_state_dir=place, seed=0, **options)
        return {name: weight.clone() for name, weight in trained_weights(model).items()}

    reference = trained(callbacks=[ReferencePenalty()])
    late, early = (trained(value_regularizer=0.5, late_regularizer=late) for late in (True, False))
    for name, weight in reference.items():
        assert torch.allclose(late[name], weight, atol=1e-6), name
    assert any(not torch.allclose(early[name], weight, atol=1e-4) for name, weight in reference.items())


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported")  # on a CPU it falls back, as it says
def test_the_published_optimizer_computes_what_adamw_does(home, monkeypatch):
    """Without a GPU nothing is paged, and its steps, moments carried into a second training included, stay the same."""
    monkeypatch.setattr("studykit.training.train.require_optimizer", lambda name: None)
    p = tiny.fusion_params(home)

    def trained(optimizer: str, **options) -> dict[str, torch.Tensor]:
        base, tokens = load_base(p.base)
        model = fusions.new_fusion(base, p)
        settings = TrainingSettings(learning_rate=1e-2, batch_size=2, eval_every=9, keep="last", precision="fp32",
                                    optimizer=optimizer, **options)  # fmt: skip
        rows, moments = tiny.examples(tokens, 8), None
        for number in (1, 2):
            place = home / "state" / f"{optimizer}-{len(options)}-{number}"
            _, moments = train(model, tokens, rows, rows[:2], settings, steps=4, trainer_state_dir=place, seed=0,
                               value_regularizer=0.5, adam_state=moments)  # fmt: skip
        return {name: weight.clone() for name, weight in trained_weights(model).items()}

    ours, published = trained("adamw"), trained("paged_adamw_32bit")
    decayed = trained("adamw", weight_decay=0.1)
    moved = {name for name in ours if not name.endswith("key.bias")}  # which cancels: rounding alone moves it
    assert all(torch.allclose(ours[name], published[name], rtol=0, atol=1e-5) for name in moved)
    assert any(not torch.allclose(ours[name], decayed[name], rtol=0, atol=1e-5) for name in moved)


def test_weights_in_bf16_lose_small_steps():
    """At 1e-5 a sixth of the entries of W_q can change in a step of Adam; the ones of W_v never do (see method.md)."""
    torch.manual_seed(0)
    model = nn.Linear(400, 400)
    nn.init.normal_(model.weight, std=0.02)
    model.bias.data.fill_(1.0)
    round_to_bf16(model)
    before = model.weight.clone()
    model.weight.data.add_(1e-5)
    model.bias.data.sub_(1e-4)
    round_to_bf16(model)
    assert (model.weight != before).float().mean().item() == pytest.approx(0.156, abs=0.01)
    assert bool((model.bias == 1).all())


def test_a_fusion_in_bf16_is_rounded_at_every_step(home):
    p = tiny.fusion_params(home, weights="bf16", steps=3, mask="none", method="adapterfusion", budget="single")
    base, tokens = load_base(p.base)
    model = fusions.new_fusion(base, p)
    with store.open_run(p.out or "runs/fusion/x-0123456789", stage="fusion", params=p) as run:
        ((phase, result),) = phases.train_phases(model, tokens, p, tiny.LIMITS, run)
    assert phase.steps == 3 == result.steps, "and the budget is that of one phase"
    for name, weight in trained_weights(model).items():
        assert weight.dtype == torch.float32 and torch.equal(weight, weight.bfloat16().float()), name


@pytest.mark.parametrize("tied", [True, False])
def test_whose_head_a_fusion_has(home, tied):
    """The reference implementation: the head of the last member, and after the restoring that of the target."""
    runs = {}
    base_run = tiny.base_run(home)
    for number, language in enumerate(tiny.MEMBERS, 1):
        base = models.tiny(tie_word_embeddings=tied).requires_grad_(False)
        p = check("adapter", {"base": base_run, "language": language, "learning_rate": 1e-2, "steps": 1,
                              "reduction_factor": 4.0, "train_embeddings": True})  # fmt: skip
        model = adapters.new_adapter(base, p)
        trainable = {name for name, x in model.named_parameters() if x.requires_grad and "composition" not in name}
        assert len(trainable) == (1 if tied else 2), "the embeddings, and the head where it is another matrix"
        with torch.no_grad():
            model.get_output_embeddings().weight.fill_(float(number))
        place = home / "runs/adapter" / f"{language}-bottleneck-s0-{number:010d}"
        adapters.save_adapter(model, place / "adapter", language)
        runs[language] = tiny.finish(home, place, {"base": base_run})
    base = models.tiny(tie_word_embeddings=tied).requires_grad_(False)
    own = base.get_output_embeddings().weight.clone()
    params = {"method": "advfusion", "members": runs, "target": tiny.TARGET}
    first, second = fusions.trained_phases("advfusion")
    expected = {"none": (0, 0), "source": (2, 2), "target": (3, 3), "restored": (2, 3)}
    for head, numbers in expected.items():
        for phase, number in zip((first, second), numbers, strict=True):
            adapters.use_head(base, fusions.fusion_head(params | {"head": head}, phase))
            weight = base.get_output_embeddings().weight
            assert torch.equal(weight, torch.full_like(own, number) if number else own), (head, phase.key)
            shared = torch.equal(base.get_input_embeddings().weight, weight)
            assert shared or not tied, "tied embeddings change with the head"
    adapters.use_head(base, None)
    assert torch.equal(base.get_output_embeddings().weight, own)
    model = fusions.load_trained(base, runs["ruby"])
    assert isinstance(model, PeftModel) and bool((model.get_output_embeddings().weight == 2).all())
    assert load_file(adapters.trained_head(runs["ruby"]))["weight"].shape == own.shape

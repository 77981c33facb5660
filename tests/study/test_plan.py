"""Laws of the plan: what is named the same is the same, and a parameter changes exactly what stands on it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.errors import UserError
from studykit.runs import notebook, process
from studykit.study import family, fields, file, parameters, plan, run_names, tiny_values
from studykit.study import methods as study_methods
from studykit.study.fields import POLYGLOT
from studykit.study.parameters import STAGES
from tests import made_runs
from tests.project import quickstart

ROOT = Path(__file__).parents[2]
METHODS = ("base", "bottleneck", "lora", "adapterfusion", "advfusion_zero", "advfusion_exclude")
SMALL = {
    "study": "small", "task": "generation", "members": ["python", "go"], "target": "lua",
    "methods": list(METHODS), "seeds": [0, 1],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(ROOT))


def planned(**changes) -> list[plan.Run]:
    return plan.plan(file.Study.model_validate(SMALL | changes))


def names(runs) -> set[str]:
    return {run.name for run in runs}


def below(runs: list[plan.Run], start: set[str]) -> set[str]:
    """The runs named, and everything that stands on them."""
    reached = set(start)
    for run in runs:  # in order, so one pass suffices
        if any(need.name in reached for need in run.needs):
            reached.add(run.name)
    return reached


def test_the_runs_of_a_study():
    labels = [f"{run.stage} {run.label}" for run in planned()]
    assert labels == [
        "base_model scratch-s0", "data generation-lua",
        *(f"adapter {x}-bottleneck-s{s}" for x in ("python", "go", "lua") for s in (0, 1)),
        "adapter lua-lora-s0", "adapter lua-lora-s1",
        *(f"fusion lua-{m}-s{s}" for m in ("adapterfusion", "advfusion_zero", "advfusion_exclude") for s in (0, 1)),
        *(f"evaluate lua-{m}" for m in METHODS), "evaluate python-bottleneck", "evaluate go-bottleneck",
        *(f"fusion_attention {m}" for m in ("adapterfusion", "advfusion_zero", "advfusion_exclude")), "compare lua",
    ]  # fmt: skip


def test_what_they_are_given():
    by = {f"{run.stage} {run.label}": run for run in planned()}
    adapter = {s: by[f"adapter lua-bottleneck-s{s}"] for s in (0, 1)}
    asked = file.Study.model_validate(SMALL).adapter
    assert adapter[0].params["steps"] == asked.target_steps != asked.steps
    assert by["adapter python-bottleneck-s0"].params["steps"] == asked.steps
    slow = {f"{run.stage} {run.label}": run for run in planned(adapter={"target_learning_rate": 0.25})}
    assert slow["adapter lua-lora-s0"].params["learning_rate"] == 0.25
    unchanged = "adapter python-bottleneck-s0"
    assert slow[unchanged] == by[unchanged], "the rate of sources is their own"
    rates = {"learning_rate": 0.1, "target_learning_rate": 0.25, "by_method": {"lora": {"learning_rate": 0.2}}}
    runs = planned(methods=["lora", "bottleneck", "pooled"], seeds=[0], adapter=rates)
    of = {(r.params["method"], r.params["rows"], bool(r.params["start"])): r.params["learning_rate"]
          for r in runs if r.stage == "adapter" and r.params["language"] == "lua"}  # fmt: skip
    assert of["lora", "all", False] == 0.2, "what one method has goes before what all have"
    assert of["bottleneck", "all", False] == of["bottleneck", "all", True] == 0.25
    assert of["bottleneck", "pooled", False] == 0.1, "rows of all members are not the target's few"
    fusion = by["fusion lua-advfusion_zero-s1"]
    assert list(fusion.params["members"]) == ["python", "go", "lua"], "members in order, the target last"
    assert fusion.params["members"]["lua"] == adapter[1].dir, "members have the fusion's seed"
    assert (fusion.params["method"], fusion.params["mask"]) == ("advfusion", "zero")
    assert by["fusion lua-adapterfusion-s0"].params["mask"] == "none"
    evaluated = by["evaluate lua-bottleneck"].params
    assert evaluated["trained_runs"] == [adapter[0].dir, adapter[1].dir] and evaluated["seeds"] == [0, 1]
    assert by["evaluate lua-base"].params["trained_runs"] == by["evaluate lua-base"].params["seeds"] == []
    compared = by["compare lua"].params
    assert set(compared["evaluations"]) == set(METHODS) and set(compared["sources"]) == {"python", "go"}
    assert set(compared["adapters"]) == {"bottleneck", "lora"} and compared["baseline"] == "adapterfusion"


def test_only_what_is_asked_for():
    few = planned(methods=["base", "lora"], evaluate={"sources": []})
    assert [run.label for run in few if run.stage in ("adapter", "fusion")] == ["lua-lora-s0", "lua-lora-s1"]
    assert few[-1].params["baseline"] == "base"
    one = planned(methods=["base", "lora"], evaluate={"sources": ["go"]})
    assert set(one[-1].params["sources"]) == {"go"}
    assert {run.label.split("-")[0] for run in one if run.stage == "adapter"} == {"go", "lua"}, "it trains no other"
    fused = planned(methods=["advfusion_zero"], evaluate={"sources": []})
    assert "lua-bottleneck-s0" in {run.label for run in fused}, "a member even if it is not an arm of its own"
    assert [run.label for run in fused if run.stage == "evaluate"] == ["lua-advfusion_zero"]


def test_one_adapter_with_more_steps_or_more_rows():
    words = ["bottleneck", "bottleneck_long", "pooled", "transfer-lora", "transfer_tuned"]
    runs = planned(methods=words, seeds=[0, 1], evaluate={"sources": []})
    study = file.Study.model_validate(SMALL)
    of_members = 2 * study.adapter.steps + study.adapter.target_steps
    by = {name: run for run in runs if run.stage == "compare" for name, run in run.params["adapters"].items()}
    of = {word: [next(run for run in runs if run.dir == trained) for trained in by[word]] for word in words}
    assert all([run.params["seed"] for run in of[word]] == [0, 1] for word in words)
    long = of["bottleneck_long"][1].params
    assert (long["steps"], long["patience"]) == (of_members + 2 * study.fusion.steps, 0)
    tuned, pooled = of["pooled"][1], of["pooled"][1].needs[-1]
    assert tuned.label == "lua-bottleneck-continued-s1" and tuned.params["start"] == [pooled.dir]
    assert (pooled.params["rows"], pooled.params["steps"], pooled.params["seed"]) == ("pooled", of_members, 1)
    assert tuned.params["steps"] == of["bottleneck"][1].params["steps"] == study.adapter.target_steps
    transferred = of["transfer-lora"][1]
    sources = [(need.params["language"], need.params["method"], need.params["seed"]) for need in transferred.needs[2:]]
    assert sources == [("python", "lora", 1), ("go", "lora", 1)] and transferred.params["steps"] == 0
    assert of["transfer_tuned"][0].params["steps"] == study.adapter.target_steps


@pytest.mark.parametrize("word, section", [("pooled", "adapter"), ("lora_long", "adapter"), ("lora_long", "fusion")])
def test_epochs_do_not_say_how_many_steps_others_have_together(word, section):
    methods = ["lora", word, "adapterfusion-lora"]
    assert planned(methods=methods, **{section: {"epochs": None, "steps": 7}})
    with pytest.raises(
        UserError, match=f"{word} trains for the steps of other trainings together, but these have epochs"
    ):
        planned(methods=methods, **{section: {"epochs": 2}})


def test_a_few_shot_prompt_is_for_pretrained_bases():
    with pytest.raises(ValueError, match="has never read examples before a prompt"):
        planned(methods=["fewshot"])
    runs = planned(methods=["base", "fewshot"], base="owner/name", evaluate={"shots": 7})
    shots = {run.params["method"]: run.params["shots"] for run in runs if run.label.startswith("lua-")}
    assert shots == {"base": 4, "fewshot": 7}, "the base needs no other run for it"


def test_learning_rates_are_the_published_ones():
    runs = planned(methods=["compacter", "full", "adapterfusion", "adapterfusion-compacter", "adapterfusion-lora"])
    got = {run.label: run.params["learning_rate"] for run in runs if run.stage in ("adapter", "fusion")}
    assert (got["lua-bottleneck-s0"], got["lua-compacter-s0"], got["lua-full-s0"]) == (1e-4, 1e-4, 2e-5)
    assert (got["lua-adapterfusion-s0"], got["lua-adapterfusion-lora-s0"]) == (1e-5, 1e-5)
    assert got["lua-adapterfusion-compacter-s0"] == 1e-4
    widths = {run.params["method"]: run.params["reduction_factor"] for run in runs if run.stage == "adapter"}
    assert (widths["bottleneck"], widths["compacter"]) == (16, 32)
    set_by_hand = planned(fusion={"learning_rate": 0.5})
    assert {run.params["learning_rate"] for run in set_by_hand if run.stage == "fusion"} == {0.5}


def test_a_method_has_values_of_its_own():
    """Of two words that a method's begins with, the longer one counts."""
    words = ["lora", "adapterfusion", "adapterfusion-lora", "advfusion_zero", "advfusion_exclude", "scalar_mix"]
    by_kind = {"lora": {"learning_rate": 2e-4, "target_steps": 7}, "bottleneck": {"reduction_factor": 4}}
    by_word = {"adapterfusion": {"learning_rate": 1e-2, "rank": 4}, "adapterfusion-lora": {"learning_rate": 2e-2},
               "advfusion": {"steps": 9, "learning_rate": 3e-2}, "advfusion_zero": {"learning_rate": 4e-2}}  # fmt: skip
    runs = planned(methods=words, adapter={"steps": 11, "by_method": by_kind}, fusion={"by_method": by_word})
    got = {run.label: run.params for run in runs if run.label.endswith("s0")}
    rates = {label: params["learning_rate"] for label, params in got.items() if label.startswith("lua-ad")}
    assert rates == {"lua-adapterfusion-s0": 1e-2, "lua-adapterfusion-lora-s0": 2e-2,
                     "lua-advfusion_zero-s0": 4e-2, "lua-advfusion_exclude-s0": 3e-2}  # fmt: skip
    assert (got["lua-advfusion_zero-s0"]["steps"], got["lua-adapterfusion-s0"]["steps"]) == (9, 100)
    assert got["lua-scalar_mix-s0"]["learning_rate"] == 5e-2
    assert [(got[f"{x}-lora-s0"]["learning_rate"], got[f"{x}-lora-s0"]["steps"]) for x in ("go", "lua")] == [
        (2e-4, 11), (2e-4, 7)]  # fmt: skip
    assert (got["lua-bottleneck-s0"]["learning_rate"], got["lua-bottleneck-s0"]["reduction_factor"]) == (1e-4, 4)


@pytest.mark.parametrize("own, methods, steps", [
    ({}, ["advfusion_zero"], 25_000),
    ({"advfusion_zero": {"phases": [{"steps": 20}, {}]}}, ["advfusion_zero"], 120),
    ({"advfusion": {"steps": 70}}, ["advfusion_none"], 140),
    ({"advfusion_zero": {"steps": 70}, "advfusion_exclude": {"steps": 80}}, ["advfusion_zero", "advfusion_exclude"], 160),
    ({"adapterfusion": {"phases": [{"steps": 30}]}, "scalar_mix": {"phases": [{"steps": 30}]}}, ["advfusion_zero"], 30),
    ({"advfusion": {"phases": [{"steps": 3}, {"steps": 4}]}}, [], 7),
])  # fmt: skip
def test_compositions_have_as_many_steps_as_the_phases_of_advfusion(own, methods, steps):
    """The preset gives these phases 20,000 and 5,000 steps; what a file says of a word takes the preset's place."""
    changes = {"preset": "as_published_2023"} if not own else {"fusion": {"steps": 100, "by_method": own}}
    runs = planned(methods=["adapterfusion", "scalar_mix", "average", *methods], seeds=[0], **changes)
    trained = {run.params["method"]: run.params["phases"] for run in runs if run.stage == "fusion"}
    assert [phase["steps"] for name in ("adapterfusion", "scalar_mix") for phase in trained[name]] == [steps] * 2
    assert trained["average"] == [], "which trains nothing"


def test_the_budget_of_one_phase_is_as_published_and_epochs_do_not_add_up_with_steps():
    own = {"advfusion_zero": {"phases": [{"steps": 20}, {}]}}
    runs = planned(fusion={"by_method": own, "budget": "single"})
    assert all(run.params["phases"] == [] for run in runs if run.stage == "fusion" and "adapterfusion" in run.label)
    with pytest.raises(UserError, match="a phase of advfusion_zero has 20 steps, the other one epochs"):
        planned(fusion={"by_method": own, "epochs": 2})


def test_the_original_study_trains_all_its_arms_for_thousands_of_steps():
    runs = planned(preset="as_published_2023", methods=["lora", "bottleneck_long", "adapterfusion", "advfusion_zero"])
    adapters = [run.params for run in runs if run.stage == "adapter"]
    found = {(of["language"], of["method"], of["steps"]) for of in adapters}
    sources = {(name, "bottleneck", 50_000) for name in ("python", "go")}
    long = 2 * 50_000 + 20_000 + 25_000  # the steps of all members and one fusion
    assert found == {*sources, ("lua", "bottleneck", 20_000), ("lua", "lora", 20_000), ("lua", "bottleneck", long)}


def test_phases_are_those_of_a_method():
    def fusions(**advfusion):
        runs = planned(methods=["adapterfusion", "advfusion_zero"], fusion={"by_method": {"advfusion": advfusion}})
        return {run.label: run for run in runs if run.stage == "fusion"}

    slower = fusions(phases=[{}, {"learning_rate": 1e-6}])
    assert slower["lua-adapterfusion-s0"].params["phases"] == []
    assert slower["lua-advfusion_zero-s0"].params["phases"][1]["learning_rate"] == 1e-6
    assert fusions() == fusions(phases=[{}, {}]) and fusions() != slower
    with pytest.raises(UserError, match="phases is a list of 1; advfusion takes a list of 2"):
        fusions(phases=[{}])


def test_a_held_out_fusion_has_a_target_member_of_half_the_rows():
    words = ["bottleneck", "adapterfusion", "advfusion_zero"]
    runs = planned(methods=words, fusion={"by_method": {"adapterfusion": {"rows": "held_out"}}})
    of = {run.dir: run.params for run in runs}
    rows = {run.params["method"]: [of[x]["rows"] for x in run.params["members"].values()]
            for run in runs if run.stage == "fusion"}  # fmt: skip
    assert rows == {"adapterfusion": ["all", "all", "half"], "advfusion": ["all", "all", "all"]}
    arm = next(run for run in runs if run.stage == "evaluate" and run.params["method"] == "bottleneck")
    assert [of[x]["rows"] for x in arm.params["trained_runs"]] == ["all", "all"]


def test_a_cross_fit_fusion_has_an_adapter_of_the_target_for_each_fold_beside_that_of_all_rows():
    words = ["adapterfusion", "advfusion_zero", "adapterfusion~lua", "average"]
    by_method = {word: {"rows": "cross_fit"} for word in ("adapterfusion", "average")}
    runs = planned(methods=words, fusion={"by_method": by_method})
    of = {run.dir: run.params for run in runs}
    fused = {run.label: run for run in runs if run.stage == "fusion"}
    folds = [of[x]["rows"] for x in fused["lua-adapterfusion-s0"].params["fold_members"]]
    assert folds == ["without_fold_1", "without_fold_2", "without_fold_3"]
    assert {of[x]["rows"] for run in fused.values() for x in run.params["members"].values()} == {"all"}
    cross_fit = [label for label, run in fused.items() if run.params["fold_members"]]
    assert cross_fit == ["lua-adapterfusion-s0", "lua-adapterfusion-s1"], "without the target's member it has no say"
    more = [
        run.params["rows"] for run in runs if run.name not in names(planned(methods=words)) and run.stage == "adapter"
    ]
    assert sorted(more) == sorted(folds * 2), "one for each seed, for the kind of members, not for each method"


def test_a_cross_validated_target_has_a_training_without_each_fold_before_each_of_its_trainings():
    words = [
        "bottleneck",
        "transfer_tuned",
        "transfer",
        "adapterfusion",
        "advfusion_zero",
        "average",
        "adapterfusion~lua",
    ]
    runs = planned(methods=words, data={"valid": "k_fold"}, seeds=[0])
    of = {run.dir: run for run in runs}
    fusions = [run for run in runs if run.stage == "fusion"]
    final = {
        run.label: [of[x].params["fold"] for x in run.params["steps_from"]] for run in fusions if not run.params["fold"]
    }
    chosen = [1, 2, 3]
    assert final == {"lua-adapterfusion-s0": chosen, "lua-advfusion_zero-s0": chosen, "lua-average-s0": [],
                     "lua-adapterfusion-without-lua-s0": chosen}  # fmt: skip
    for run in fusions:
        fold, member = run.params["fold"], run.params["members"].get("lua")
        if member:  # what has chosen the step of a fold's fusion has not trained its member of the target
            assert of[member].params["rows"] == (f"without_fold_{fold}" if fold else "all"), run.label
    folds = [f"without_fold_{n}" for n in chosen]
    for run in runs:
        if run.stage == "adapter":
            rows = [of[x].params["rows"] for x in run.params["steps_from"]]
            is_final = run.params["language"] == "lua" and run.params["rows"] == "all" and run.params["steps"]
            assert rows == (folds if is_final else []), run.label
    usual = planned(methods=words, seeds=[0])
    assert not any(run.params["steps_from"] for run in usual if run.stage in ("adapter", "fusion"))


@pytest.mark.parametrize("given, said", [
    ({"fusion": {"rows": "cross_fit"}}, "fusion.rows is 'cross_fit'; with cross-validation it must be 'same'"),
    ({"fusion": {"by_method": {"adapterfusion": {"rows": "held_out"}}}}, "fusion.rows is 'held_out'"),
    ({"methods": ["bottleneck", "pooled"]}, "methods names 'pooled'"),
    ({"tune": {"adapter": {"learning_rate": [1e-3, 1e-2]}}}, "tune names values"),
])  # fmt: skip
def test_what_would_need_folds_within_folds_is_refused(given, said):
    with pytest.raises(ValueError, match=f"data.valid is 'k_fold', but {said}"):
        planned(data={"valid": "k_fold"}, **given)


def test_epochs_stand_in_place_of_steps():
    def steps(**adapter):
        runs = planned(methods=["bottleneck", "adapterfusion"], adapter=adapter, fusion={"epochs": 2.0})
        return {run.name for run in runs if run.stage in ("adapter", "fusion")}

    assert steps(epochs=3.0, steps=10) == steps(epochs=3.0, steps=20) != steps(epochs=4.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_plan_is_ordered_unique_and_complete(data):
    members = data.draw(st.lists(st.sampled_from(POLYGLOT[:-1]), min_size=1, max_size=5, unique=True))
    methods = data.draw(st.lists(st.sampled_from(METHODS), min_size=1, unique=True))
    seeds = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    sources = data.draw(st.sampled_from([None, [], members[:1]]))
    runs = planned(members=members, methods=methods, seeds=seeds, evaluate={"sources": sources})
    seen: dict[str, plan.Run] = {}
    for run in runs:
        assert run.dir not in seen and all(need.dir in seen for need in run.needs)
        assert set(run_names.inputs(run.stage, run.params)) == {need.dir for need in run.needs}, (
            "all inputs are planned"
        )
        assert run.params == parameters.check(run.stage, run.params).model_dump() and run.params["out"] == run.dir
        assert not set("{} '\"") & set(run.dir)
        seen[run.dir] = run
    assert runs[-1].stage == "compare" and names(runs) == below(runs, {runs[0].name}), "no run stands on nothing"


def other(value, field):
    """Another valid value for a parameter, or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value * 2 + 2 if value != 1 else 2
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if value is None and "bool" in str(field.annotation):
        return True
    if value is None and "float" in str(field.annotation):
        return 0.125
    if value is None and "list" in str(field.annotation):
        return ["lua"]
    if value is None and "int" in str(field.annotation):
        return 7
    return {"completion": "prompt" if "prompt" in str(field.annotation) else "sequence", "target": "all",
            "auto": "fp32", "plain": "task", None: "Write {description}", "adapterfusion": "lora",
            "adamw": "adamw_8bit", "dot": "scaled", "best": "last", "shared": "by_language", "same": "held_out", "rows": "k_fold",
            "loss": "exact_match"}.get(value)  # fmt: skip


SECTIONS = [stage for stage in STAGES if stage in file.Study.model_fields]  # all but that of families
FIELDS = [(s, f) for s in SECTIONS for f in type(getattr(file.Study.model_validate(SMALL), s)).model_fields]


@pytest.mark.parametrize("stage, name", FIELDS, ids=[f"{s}.{f}" for s, f in FIELDS])
def test_a_parameter_changes_exactly_what_stands_on_it(stage, name):
    wide = {"methods": [*METHODS, "full", "compacter", "scalar_mix", "adapterfusion-lowrank", "ties", "mhr", "arrow"]}
    on = {}
    if stage == "data" and name in {*run_names.FILE_PARAMETERS, "test_path"}:  # these say nothing of built-in programs
        task = "summarization" if name == "reference" else "commit"
        on, wide = {"path": "rows"}, wide | {"task": task, "data": {"path": "rows"}}
    if name.startswith("kinship"):
        on = {"kinship": [1, 0.5]}
        wide |= {"members": ["kin", "stranger"], "target": "made", "data": on}
    if name == "shots":
        wide |= {"base": "owner/name", "methods": [*METHODS, "fewshot"]}
    if stage == "evaluate" and name in ("samples", "pass_k"):
        on, wide = {"samples": 4, "temperature": 0.8}, wide | {"evaluate": {"samples": 4, "temperature": 0.8}}
    if name == "quantization":  # the method full has none
        wide |= {"methods": [word for word in wide["methods"] if word != "full"]}
    before = file.Study.model_validate(SMALL | wide)
    section = getattr(before, stage)
    fixed = {"by_method": {"bottleneck" if stage == "adapter" else "advfusion": {"learning_rate": 0.3}},
             "reduction_factor": 4.0, "hidden_size": 64, "heads": 6, "confidence": 0.9, "baseline": "base",
             "shares": [0.6, 0.2, 0.2], "format": "prepared", "split_by": "file", "pass_k": [2],
             "truncation": "end", "end_of_target": "newline_eos", "budget": "single", "weights": "bf16", "head": "source",
             "kinship": [1, 0.25], "kinship_in": "structure", "reference": "docstring", "mute": "none", "contrasts": [["base", "lora"]],
             "interactions": [["lora", "base", "bottleneck", "base"]], "quantization": "nf4",
             "float32_matmul_precision": "high"}  # fmt: skip
    value = fixed[name] if name in fixed else other(getattr(section, name), type(section).model_fields[name])
    if (stage, name) in {("base_model", "corpus"), ("evaluate", "sources")}:
        pytest.skip("changes which runs there are")
    old, new = plan.plan(before), planned(**wide | {stage: on | {name: value}})
    changed = names(old) - names(new)
    stages = {stage, "fusion_attention"} if (stage, name) == ("evaluate", "quantization") else {stage}
    own = {run.name for run in old if run.stage in stages and run.name in changed}
    assert own, "it changes runs of its stage"
    assert changed == below(old, own), "and what stands on them, nothing else"
    only = {"target_": "lua-", "steps": ("python-", "go-"), "reduction_factor": ("bottleneck", "compacter"), "lora_": "-lora-",
            "carry_optimizer": "advfusion", "phase1_data": "advfusion", "factor": "-ties", "density": "-ties",
            "heads": "-mhr", "top_k": "-arrow"}  # fmt: skip
    if stage in ("adapter", "fusion"):
        for start, wanted in only.items():
            if name.startswith(start) and (stage, name) != ("fusion", "steps"):
                wanted = (wanted,) if isinstance(wanted, str) else wanted
                assert all(any(w in label for w in wanted) for label in own), own


def test_order_of_members_counts():
    one, two = planned(), planned(members=["go", "python"])
    assert not names(one) & names(two)  # the base is trained on them in order
    a = run_names.key("fusion", {"members": {"python": "runs/a", "go": "runs/b"}})
    assert a != run_names.key("fusion", {"members": {"go": "runs/b", "python": "runs/a"}})


def test_keys_depend_on_content_alone():
    values = parameters.check(
        "adapter", {"base": "runs/base_model/x-0123456789", "data": "elsewhere/y-abcdefabcd"}
    ).model_dump()
    renamed = values | {"base": "other/z-0123456789", "out": "anywhere"}
    assert run_names.key("adapter", values) == run_names.key("adapter", renamed)
    assert run_names.key("adapter", values) != run_names.key(
        "adapter", values | {"base": "runs/base_model/x-0123456780"}
    )
    assert run_names.key("adapter", values) == run_names.key("adapter", dict(reversed(values.items())))


def test_numbers_written_differently_are_the_same():
    assert names(planned(adapter={"weight_decay": 0, "reduction_factor": 4})) == names(
        planned(adapter={"weight_decay": 0.0, "reduction_factor": 4.0})
    )


def test_studies_share_what_is_equal():
    one, two = planned(), planned(study="other", seeds=[0], methods=["base", "bottleneck"], compare={"resamples": 1000})
    shared = names(one) & names(two)
    assert {name.split("/")[0] for name in shared} == {"base_model", "data", "adapter", "evaluate"}
    assert all(r.params == next(o for o in one if o.name == r.name).params for r in two if r.name in shared)


def test_values_of_the_tiny_base_are_named_on_a_pretrained_one():
    tiny = {"adapter": {"learning_rate": 1.5e-2, "reduction_factor": 3}, "fusion": {"learning_rate": 2e-3}}
    said = tiny_values.warnings(file.Study.model_validate(SMALL | tiny | {"base": "owner/name"}))
    assert (
        len(said) == 3
        and "adapter.learning_rate is 0.015, as for the quickstart's tiny base; the published value is 1e-4" in said[0]
    )
    assert tiny_values.warnings(file.Study.model_validate(SMALL | tiny)) == []
    assert tiny_values.warnings(file.Study.model_validate(SMALL | {"base": "owner/name"})) == []


def test_widths_that_a_cpu_reads_wrongly_in_4_bits_are_told():
    narrow = {"base_model": {"hidden_size": 96, "intermediate_size": 128}}
    said = tiny_values.warnings(file.Study.model_validate(SMALL | narrow | {"fusion": {"quantization": "nf4"}}))
    assert said == ["base_model.hidden_size is 96, no multiple of 64; on a CPU, runs in nf4 will be refused"]
    assert tiny_values.warnings(file.Study.model_validate(SMALL | narrow | {"fusion": {"quantization": "int8"}})) == []


def test_a_pretrained_base_has_no_recipe():
    one, two = planned(base="owner/name"), planned(base="owner/name", base_model={"steps": 3, "seed": 5}, target="ruby")
    assert one[0] == two[0] and one[0].label == "name-none"
    assert planned(base="owner/name", quantization="nf4")[0].label == "name-nf4"


# Notebooks by hand


def by_hand(stage: str, **values):
    return notebook.from_notebook(stage, {"Path": Path, "math": math, "_hidden": 1, "In": [], "Out": {}} | values)


QUICKSTART = plan.plan(file.load_study("params/quickstart.yaml", ROOT))


@pytest.mark.parametrize("run", QUICKSTART, ids=lambda run: run.name)
def test_the_quickstart_by_hand_is_the_quickstart(run):
    roles = {n: v for n, v in run.params.items() if fields.kind(STAGES[run.stage].model, n) == "role"}
    own = notebook.defaults(run.stage, **({} if run.stage != "fusion" else {"method": run.params["method"]}))
    assert by_hand(run.stage, **(own | roles)).model_dump() == run.params


def test_the_target_needs_no_steps_of_its_own():
    target = next(run for run in QUICKSTART if run.label == "lua-bottleneck-s0")
    cell = notebook.defaults("adapter") | {"language": "lua"}
    steps = target.params["steps"]
    assert by_hand("adapter", **cell).out == by_hand("adapter", **(cell | {"steps": steps})).out == target.dir
    assert by_hand("adapter", **(cell | {"steps": steps + 1})).out != target.dir


def test_a_notebook_by_hand_says_which_run_its_parameters_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.delenv("STUDYKIT_COMMAND", raising=False)
    quickstart(tmp_path)
    values = QUICKSTART[0].params | {"out": "runs/base_model/mine-0123456789"}

    def said() -> str:
        by_hand("base_model", **values)
        return capsys.readouterr().out.strip()

    assert said() == (
        "The parameters are valid. The run base_model/mine-0123456789 does not exist yet; the cells below make it."
    )
    staging = tmp_path / "runs/.staging/base_model/mine-0123456789"
    staging.mkdir(parents=True)
    (staging / "attempt.json").write_text("{}")
    assert said().endswith("was stopped; the cells below continue it.")
    made_runs.finish(tmp_path / values["out"], "base_model", values)
    assert said().endswith("is finished; the cells below show it.")
    monkeypatch.setenv("STUDYKIT_COMMAND", process.name())
    assert said() == "", "under the command"


def test_a_base_from_scratch_by_hand_reads_the_languages_of_the_study():
    cell = notebook.defaults("base_model")
    new = notebook.resolve("base_model", cell | {"base": "scratch"}, "params/quickstart.yaml")
    assert new["languages"] == ["python", "javascript", "ruby", "lua"] and new["target"] == "lua"
    assert notebook.resolve("base_model", cell, "params/quickstart.yaml")["languages"] is None, "it reads nothing"


def test_a_new_seed_stands_on_the_same_data():
    new = by_hand("adapter", language="lua", seed=99)
    assert new.data == QUICKSTART[1].dir and new.out.startswith("runs/adapter/lua-bottleneck-s99-")


def test_a_fusion_of_a_new_seed_finds_the_adapters_that_were_made_by_hand(tmp_path, monkeypatch):
    """Each is named by its content, so the fusion knows them as soon as they are finished."""
    quickstart(tmp_path)
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    languages = ["python", "javascript", "ruby", "lua"]
    adapter, fusion = notebook.defaults("adapter"), notebook.defaults("fusion")
    for language in languages:
        with pytest.raises(UserError, match=f"exist yet .adapter/{language}-bottleneck-s7-"):
            by_hand("fusion", **fusion | {"seed": 7})
        made = by_hand("adapter", **adapter | {"language": language, "seed": 7})
        made_runs.finish(tmp_path / made.out, "adapter", made.model_dump())
    made = by_hand("fusion", **fusion | {"seed": 7, "method": "advfusion", "mask": "exclude"})
    assert list(made.members) == languages and all("-s7-" in run for run in made.members.values())
    seeds = [0, 1, 2, 7]
    study = file.load_study("params/quickstart.yaml", tmp_path).model_copy(update={"seeds": seeds})
    assert made.out in {run.dir for run in plan.plan(study)}, "a study with that seed uses the same run"


def test_a_new_method_by_hand_is_the_run_that_a_study_would_make():
    mixed = by_hand("fusion", **notebook.defaults("fusion") | {"method": "scalar_mix"})
    study = file.load_study("params/quickstart.yaml", ROOT)
    wide = study.model_copy(update={"methods": [*study.methods, "scalar_mix"]})
    assert mixed.out in {run.dir for run in plan.plan(wide)} and mixed.learning_rate == 0.05


def test_given_paths_are_kept():
    p = by_hand("adapter", base="runs/base_model/mine-0123456789", out="runs/adapter/mine")
    assert (p.base, p.out, p.data) == ("runs/base_model/mine-0123456789", "runs/adapter/mine", QUICKSTART[1].dir)


def test_a_complete_notebook_reads_no_study():
    run = QUICKSTART[2]
    assert by_hand("adapter", study="params/absent.yaml", **run.params).model_dump() == run.params


@pytest.mark.parametrize("stage, values, said", [
    ("adapter", {"stpes": 3}, "02_adapter: stpes is unknown; did you mean steps?"),
    ("adapter", {"something": [1]}, "02_adapter: something is unknown"),
    ("adapter", {"steps": "3"}, "02_adapter: steps is '3'; it must be an integer"),
    ("adapter", {"study": 3}, "02_adapter: study is 3; it must be a study file"),
    ("adapter", {"study": "params/absent.yaml"}, "params/absent.yaml cannot be read"),
    ("adapter", {"language": "perl"}, "02_adapter: params/quickstart.yaml has no run with language='perl'; it has"),
    ("fusion", {"seed": 77}, "03_fusion: params/quickstart.yaml does not have these parameters, and the runs that they "
     "need do not exist yet (adapter/python-bottleneck-s77-"),
    ("fusion", {"seed": 77}, "make them with 02_adapter, or with `studykit run` and a copy of the study that has seeds: "
     "[0, 1, 2, 77]"),
    ("fusion", {"target": "perl"}, "has no run with target='perl', seed=0; it has 'lua', 0"),
    ("evaluate", {"method": "lora", "language": "python"}, "has no run with language='python', method='lora'"),
], ids=str)  # fmt: skip
def test_what_a_notebook_may_not_say(stage, values, said):
    with pytest.raises(UserError) as error:
        by_hand(stage, **values)
    assert said in str(error.value) and "\n" not in str(error.value)


CELL = "steps: int = 3  # of them\nstudy: str = 'params/quickstart.yaml'"
ASK = "p = plan.from_notebook('adapter', globals())"


@pytest.mark.parametrize("history", [
    ["", CELL, ASK],
    ["", CELL, ASK, "run = f(p)", "lines = [1, 2]", CELL, ASK],  # "run all" once more
    ["", CELL, ASK, "lines = [1, 2]", "run = f(p)", ASK],  # the second cell alone
    ["", "stpes = 3", ASK, CELL, "# Parameters\nlanguage = 'lua'", ASK],  # a misspelling that was mended
], ids=range(4))  # fmt: skip
def test_a_notebook_may_be_run_again_in_its_kernel(history):
    later = {"lines": [1, 2], "p": 1, "stpes": 3} if len(history) > 3 else {}
    assert by_hand("adapter", In=history, language="lua", steps=3, **later).steps == 3


@pytest.mark.parametrize("cells", [
    ["stpes = 3"],
    [CELL, "# Parameters\nstpes = 3"],
    ["f()", CELL, "steps = 2", "stpes = 3"],
], ids=range(3))  # fmt: skip
def test_a_misspelling_is_found_in_a_used_kernel_too(cells):
    with pytest.raises(UserError, match="stpes is unknown"):
        by_hand("adapter", In=["", CELL, ASK, *cells, ASK], language="lua", p=1, stpes=3)


def test_a_parameter_that_code_has_hidden():
    with pytest.raises(UserError, match="base now names code; run the parameters cell again"):
        by_hand("adapter", In=["", CELL, ASK, "from studykit import base", ASK], language="lua", base=math)


@pytest.mark.parametrize("stage", SECTIONS)
def test_defaults_for_parameters_cells(stage):
    cell = notebook.defaults(stage)
    assert set(cell) == set(STAGES[stage].model.model_fields) and cell["out"] is None
    assert json.loads(json.dumps(cell)) == cell
    assert by_hand(stage, **cell).out in {run.dir for run in QUICKSTART if run.stage == stage}


def test_every_planned_notebook_runs_without_asking_a_study():
    """What a notebook resolves from a study when it is None is never None in a plan."""
    words = [w for w in study_methods.WORDS if w != study_methods.FEW_SHOT]
    for run in planned(methods=[*words, "adapterfusion-lora-lowrank", "bottleneck_long", "advfusion_zero@go~lua"]):
        model = STAGES[run.stage].model
        asked = [n for n in model.model_fields if fields.kind(model, n) not in (None, "plan_only")]
        missing = [n for n in asked if run.params[n] is None]
        assert not missing, run.name


@pytest.mark.parametrize("stage, given, rate", [
    ("adapter", {"language": "lua", "method": "full"}, 1e-3), ("adapter", {"language": "lua"}, 5e-3),
    ("fusion", {"method": "scalar_mix"}, 5e-2), ("fusion", {"method": "adapterfusion"}, 5e-4),
])  # fmt: skip
def test_by_hand_a_method_gets_its_own_rate_whatever_the_study_runs(stage, given, rate):
    assert notebook.resolve(
        stage, {**notebook.defaults(stage), "learning_rate": None, **given}, "params/quickstart.yaml"
    )["learning_rate"] == pytest.approx(rate)


def test_by_hand_a_composition_of_loras_is_lent_loras():
    asked = notebook.defaults("fusion") | {"members": None, "method": "merge", "out": None}
    lent = notebook.resolve("fusion", asked, "params/methods.yaml")
    assert all("-lora-" in member for member in lent["members"].values())


@pytest.mark.parametrize("name", ["data_size", "phases", "quantization", "size", "kinship"])
def test_by_hand_a_family_is_gathered_as_its_file_says(name):
    """The notebook's defaults, and a family's file, name the run that the command makes: with its slope and contrasts."""
    usual = {name: field.default for name, field in STAGES["gather"].model.model_fields.items()}
    by_command = family.load_plan(f"params/{name}.yaml", ROOT).runs[-1]
    assert notebook.resolve("gather", usual, f"params/{name}.yaml")["out"] == by_command.dir
    other = notebook.resolve("gather", usual | {"contrasts": [["lora", "base"]]}, f"params/{name}.yaml")
    assert other["contrasts"] == [["lora", "base"]] and other["out"] != by_command.dir
    assert other["covariate"] == by_command.params["covariate"]
    whole = by_command.params | {"contrasts": None, "interactions": []}
    assert notebook.resolve("gather", whole, "params/missing.yaml") == whole, "the command gives all; no file is read"


def test_members_on_code_are_other_runs_than_the_arms():
    """The target's member learns plain code; its own arm, LoRA and the base are as without."""
    runs = planned(members_on="code", methods=["base", "bottleneck", "adapterfusion"], evaluate={"sources": []})
    fusion = next(run for run in runs if run.stage == "fusion")
    assert {need.params["trained_on"] for need in fusion.needs if need.stage == "adapter"} == {"code"}
    arm = next(run for run in runs if run.stage == "evaluate" and run.params["method"] == "bottleneck")
    assert {need.params["trained_on"] for need in arm.needs if need.stage == "adapter"} == {"task"}
    assert runs[-1].params["adapters"]["bottleneck"] == arm.params["trained_runs"]

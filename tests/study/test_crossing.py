"""Studies whose adapters, fusions and evaluations keep the base in memory in different numbers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from studykit.study import file, parameters, plan, run_names

STUDY = {
    "study": "small", "task": "generation", "members": ["python", "go"], "target": "lua",
    "methods": ["base", "bottleneck", "adapterfusion", "advfusion_exclude"], "seeds": [0],
}  # fmt: skip
STAGES = ("adapter", "fusion", "evaluate", "fusion_attention", "compare")


def planned(**changes) -> dict[str, set[str]]:
    """The names of a study's runs by stage."""
    found: dict[str, set[str]] = {}
    for run in plan.plan(file.Study.model_validate(STUDY | changes)):
        found.setdefault(run.stage, set()).add(run.name)
    return found


def crossed(adapter: str | None = None, fusion: str | None = None, evaluate: str | None = None, **changes):
    kept = {"adapter": adapter, "fusion": fusion, "evaluate": evaluate}
    return planned(**{stage: {"quantization": value} for stage, value in kept.items() if value}, **changes)


def test_each_key_changes_the_runs_that_it_concerns_and_no_others():
    usual = planned()
    assert crossed("none", "none", "none") == usual, "the study's own storage, named, is no other"
    four = crossed(evaluate="nf4")
    assert (four["adapter"], four["fusion"], four["data"]) == (usual["adapter"], usual["fusion"], usual["data"])
    assert not four["evaluate"] & usual["evaluate"] and not four["fusion_attention"] & usual["fusion_attention"]
    four = crossed(fusion="nf4")
    assert four["adapter"] == usual["adapter"] and not four["fusion"] & usual["fusion"]
    shared = {name for name in usual["evaluate"] if "fusion" not in name}
    assert four["evaluate"] & usual["evaluate"] == shared, "the base and the adapters alone"
    four = crossed(adapter="nf4")
    assert not any(four[stage] & usual[stage] for stage in ("adapter", "fusion"))
    assert four["base_model"] == usual["base_model"] and len(four["evaluate"] & usual["evaluate"]) == 1, "the base"


def test_four_crossed_studies_share_bases_rows_and_adapters():
    every = [crossed(a, f) for a in ("none", "nf4") for f in ("none", "nf4")]
    count = {stage: len(set().union(*(runs[stage] for runs in every))) for stage in ("base_model", "data", *STAGES)}
    assert count == {"base_model": 1, "data": 1, "adapter": 6, "fusion": 8, "evaluate": 15, "fusion_attention": 8,
                     "compare": 4}  # fmt: skip


def test_the_plan_says_what_meets():
    study = STUDY | {
        "adapter": {"quantization": "nf4"},
        "fusion": {"by_method": {"advfusion": {"quantization": "int8"}}},
    }
    runs = {f"{run.stage} {run.label}": run.params for run in plan.plan(file.Study.model_validate(study))}

    def says(label: str, *names: str) -> list:
        return [runs[label][name] for name in names]

    assert says("adapter lua-bottleneck-nf4-s0", "quantization") == ["nf4"]
    assert says("fusion lua-adapterfusion-s0", "quantization", "members_quantization") == [None, "nf4"]
    assert says("fusion lua-advfusion_exclude-int8-s0", "quantization", "members_quantization") == ["int8", "nf4"]
    both = ("quantization", "trained_quantization")
    assert says("evaluate lua-bottleneck", *both) == [None, "nf4"] and says("evaluate lua-base", *both) == [None, None]
    assert says("evaluate lua-advfusion_exclude", *both) == [None, "int8"]
    assert says("fusion_attention adapterfusion", *both) == [None, None]
    assert "members_quantization" not in file.FusionSection.model_fields, "the plan alone says it"


def test_a_later_parameter_at_its_default_leaves_the_name_of_a_run():
    values = parameters.check("fusion", {"target": "lua", "members": {"lua": "runs/adapter/lua-bottleneck-s0-0123456789"},
                                         "learning_rate": 1e-3}).model_dump()  # fmt: skip
    before = {name: value for name, value in values.items() if name not in run_names.LATER["fusion"]}
    assert run_names.key("fusion", values) == run_names.key("fusion", before)
    assert run_names.key("fusion", values | {"quantization": "nf4"}) != run_names.key("fusion", values)


@pytest.mark.parametrize("changes, key", [
    ({"quantization": "nf4"}, "quantization"), ({"adapter": {"quantization": "nf4"}}, "adapter.quantization"),
    ({"evaluate": {"quantization": "int8"}}, "evaluate.quantization"),
    ({"quantization": "nf4", "adapter": {"quantization": "none"}}, "quantization"),
])  # fmt: skip
def test_full_needs_a_base_that_is_whole(changes, key):
    with pytest.raises(ValidationError, match=rf"{key} is '(nf4|int8)'; the method full"):
        file.Study.model_validate(STUDY | {"methods": ["full"]} | changes)
    whole = {"adapter": {"quantization": "nf4", "by_method": {"full": {"quantization": "none"}}}}
    assert file.Study.model_validate(STUDY | {"methods": ["full"]} | whole)

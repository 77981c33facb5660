"""Families: one file makes the studies that it says, shares their runs, and ends in one run that gathers them."""

from __future__ import annotations

import pytest

from studykit.errors import UserError
from studykit.study.family import combine, load_plan
from studykit.study.file import load_study
from studykit.study.plan import plan
from studykit.study.yaml_file import write_yaml
from tests.project import ROOT

STUDY = """
study: small
task: generation
members: [python, go]
target: lua
methods: [base, bottleneck, adapterfusion]
seeds: [0]
evaluate: {sources: []}
"""


def planned(home, more: str):
    (home / "x.yaml").write_text(STUDY + more)
    return load_plan("x.yaml", home)


def test_a_family_shares_runs_and_gathers_the_comparisons(tmp_path):
    family = planned(tmp_path, "vary: {data.target_examples: [10, 30], fusion.steps: [50, 60]}")
    assert [member.label for member in family.members] == [
        f"data.target_examples {n}, fusion.steps {s}" for n in (10, 30) for s in (50, 60)
    ]
    count = {stage: sum(run.stage == stage for run in family.runs) for stage in ("base_model", "data", "fusion")}
    assert count == {"base_model": 1, "data": 2, "fusion": 4}
    gather = family.result
    assert gather.stage == "gather" and gather.label == "over-data.target_examples-fusion.steps"
    compares = [run for run in family.runs if run.stage == "compare"]
    assert len(compares) == 4 and set(compares) < set(gather.needs)
    assert list(gather.params["levels"]["fusion.steps"].values()) == [50, 60, 50, 60]
    assert len({run.name for run in family.runs}) == len(family.runs)


def test_a_study_of_a_family_is_the_study_with_these_values(tmp_path):
    family = planned(tmp_path, "vary: {data.seed: [3]}")
    alone = planned(tmp_path, "data: {seed: 3}")
    assert [run.name for run in family.runs[:-1]] == [run.name for run in alone.runs]
    assert load_study("x.yaml", tmp_path) == alone.study and not alone.members


def test_named_levels_change_several_keys_of_a_section(tmp_path):
    family = planned(
        tmp_path,
        "fusion: {steps: 90, batch_size: 8}\n"
        "vary: {size: {small: {base_model: {hidden_size: 16}, fusion: {steps: 5}}, large: {}}}",
    )
    small, large = (member.study for member in family.members)
    assert (small.base_model.hidden_size, small.fusion.steps, small.fusion.batch_size) == (16, 5, 8)
    assert (large.base_model.hidden_size, large.fusion.steps) == (96, 90)
    assert family.result.params["levels"]["size"] == {"size small": "small", "size large": "large"}


def test_a_source_that_becomes_the_target_changes_places_with_it(tmp_path):
    family = planned(tmp_path, "vary: {target: [lua, go]}")
    assert [(member.study.members, member.study.target) for member in family.members] == [
        (["python", "go"], "lua"),
        (["python", "lua"], "go"),
    ]


def test_the_shipped_draws_share_no_run_and_none_with_the_quickstart():
    """Only then is each study an independent draw, as the pooled interval takes it to be."""
    family, quickstart = load_plan("params/draws.yaml", ROOT), load_plan("params/quickstart.yaml", ROOT)
    runs = [run for member in family.members for run in plan(member.study)]
    assert len({run.dir for run in runs}) == len(runs) == len(family.runs) - 1
    assert not {run.dir for run in runs} & {run.dir for run in quickstart.runs}
    for member in family.members:
        seeds = {member.study.base_model.seed, member.study.data.seed, *member.study.seeds}
        assert seeds == {int(member.levels["draw"])}
        same = {"members", "target", "adapter", "fusion", "base_model", "data"}
        theirs, ours = (made.model_dump(include=same) for made in (quickstart.study, member.study))
        for section in ("base_model", "data"):
            assert theirs[section].pop("seed") == 0 < ours[section].pop("seed")
        assert ours == theirs, "a level changes seeds alone"


@pytest.mark.parametrize("name, varied, levels", [
    ("base", "data.seed: [1, 2]", ["scratch"] * 2), ("base", "base: [scratch, ./mine]", ["scratch", "./mine"]),
    ("quantization", "quantization: [none, nf4]", ["none", "nf4"]), ("target", "target: [lua, go]", ["lua", "go"]),
    ("task", "task: [generation, commit]", ["generation", "commit"]), ("data.seed", "data.seed: [1, 2]", [1, 2]),
    ("target_examples", "data.target_examples: [10, 30]", [10, 30]), ("target_examples", "data.seed: [1, 2]", [30, 30]),
])  # fmt: skip
def test_over_names_a_factor_or_any_key(tmp_path, name, varied, levels):
    """By one file that varies it, and by `studykit gather` of two files that differ in it."""
    (tmp_path / "mine").mkdir()
    gather = planned(tmp_path, f"vary: {{{varied}}}\ngather: {{over: [{name}]}}").result
    assert list(gather.params["levels"][name].values()) == levels and gather.params["over"] == [name]
    files = [f"{number}.yaml" for number in range(2)]
    for number, (file, member) in enumerate(zip(files, load_plan("x.yaml", tmp_path).members, strict=True)):
        (tmp_path / file).write_text(write_yaml(member.study.model_dump() | {"study": f"s{number}"}))
    (tmp_path / "both.yaml").write_text(combine(files, [name], home=tmp_path))
    combined = load_plan("both.yaml", tmp_path).result
    assert list(combined.params["levels"][name].values()) == levels and combined.params["over"] == [name]


@pytest.mark.parametrize("more, error", [
    ("vary: {data.sede: [1]}", "data.sede is unknown; did you mean seed"),
    ("vary: {data.seed: []}", "vary.data.seed is []; it must be a list"),
    ("vary: {data.seed: 1}", "vary.data.seed is 1; it must be a list"),
    ("vary: {data.seed: [-1]}", "data.seed -1: data.seed is -1; it must be at least 0"),
    ("gather: {over: [base]}", "vary is missing"),
    ("vary: {data.seed: [1]}\ngather: {over: [methods]}", "gather.over names 'methods'"),
    ("vary: {data.seed: [1]}\ngather: {contrasts: [[lora, base]]}", "contrasts names 'lora', which data.seed 1"),
    ("vary: {data.seed: [1]}\ncompare: {contrasts: [[bottleneck, base]]}\ngather: {contrasts: [[adapterfusion, base]]}",
     "contrasts names ['adapterfusion', 'base'], which data.seed 1 does not compare; add the pair to"),
    ("vary: {data.seed: [1]}\ngather: {similarity: [cross_entropy]}",
     "names cross_entropy, which data.seed 1 does not measure; add transfer to its methods"),
    ("vary: {data.seed: [1]}\ngather: {ovr: [base]}", "gather.ovr is unknown; did you mean over"),
    ("vary: {seeds: [[1]], data.seed: [" + ", ".join(map(str, range(301))) + "]}", "vary makes 301 studies"),
])  # fmt: skip
def test_what_cannot_be_a_family_gets_one_sentence(tmp_path, more, error):
    with pytest.raises(UserError) as caught:
        planned(tmp_path, more)
    assert error in str(caught.value) and "\n" not in str(caught.value)


def test_studies_of_several_files_make_a_family(tmp_path):
    (tmp_path / "a.yaml").write_text(STUDY + "fusion: {steps: 50}")
    (tmp_path / "b.yaml").write_text(STUDY.replace("small", "other") + "data: {seed: 4}")
    (tmp_path / "both.yaml").write_text(combine(["a.yaml", "b.yaml"], ["data.seed"], home=tmp_path))
    both = load_plan("both.yaml", tmp_path)
    alone = [load_plan(file, tmp_path) for file in ("a.yaml", "b.yaml")]
    assert {run.name for run in both.runs[:-1]} == {run.name for one in alone for run in one.runs}
    assert list(both.result.params["levels"]["data.seed"].values()) == [0, 4]
    assert both.study.study == "gather_small_other"
    with pytest.raises(UserError, match="both have study: small"):
        combine(["a.yaml", "a.yaml"], ["base"], home=tmp_path)


def test_a_phase_is_gathered_as_a_method_is_but_not_with_interactions(tmp_path):
    phase = '["advfusion_zero, phase 1", bottleneck]'
    more = f"vary: {{data.seed: [1]}}\ncompare: {{contrasts: [{phase}]}}\ngather: {{contrasts: [{phase}]"
    text = STUDY.replace("adapterfusion", "advfusion_zero")
    (tmp_path / "x.yaml").write_text(text + more + "}")
    assert load_plan("x.yaml", tmp_path).result.params["contrasts"] == [["advfusion_zero, phase 1", "bottleneck"]]
    (tmp_path / "x.yaml").write_text(text + more + ", interactions: [data.seed]}")
    with pytest.raises(UserError, match="is a phase; with gather.interactions it may name finished methods alone"):
        load_plan("x.yaml", tmp_path)

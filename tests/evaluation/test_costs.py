"""Costs: they are those of the trainings, time is that of every run once, attention is read by named keys."""

from __future__ import annotations

import json

import pytest

from studykit.data.rows import DataRun
from studykit.errors import UserError
from studykit.evaluation import costs
from studykit.evaluation.statistics import student_t
from studykit.report import fusion_weights
from studykit.runs import store
from tests import made_runs, tiny


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(home, file: str, content) -> str:
    (home / file).parent.mkdir(parents=True, exist_ok=True)
    (home / file).write_text(json.dumps(content))
    return str((home / file).parent.relative_to(home))


def training(seconds: float, trainable: int = 10, memory: float = 100.0) -> dict:
    return {"log": [], "best_step": 20, "steps": 20, "seconds": seconds, "cpu_seconds": 2 * seconds,
            "trainable": trainable, "peak_memory_mb": memory}  # fmt: skip


def fusion(home, seed: int, *seconds: float) -> str:
    members = {x: write(home, f"runs/adapter/{x}-s{seed}/training.json", training(5.0 + seed)) for x in ("go", "lua")}
    for i, of_phase in enumerate(seconds):
        write(home, f"runs/fusion/f-s{seed}/phase{i + 1}/training.json", training(of_phase, 70, 100.0 + i))
    return write(home, f"runs/fusion/f-s{seed}/members.json", members)


def test_a_fusion_costs_all_its_phases_and_its_members_apart(home):
    found = costs.method_cost("advfusion_zero", [fusion(home, 0, 3.0, 4.0), fusion(home, 1, 5.0, 6.0)])
    assert dict(found) == {"method": "advfusion_zero", "parameters": 70, "steps": 40.0, "seconds": 9.0,
                     "cpu_seconds": 18.0, "members_seconds": 11.0, "members_cpu_seconds": 22.0, "memory_mb": 101.0}  # fmt: skip


def test_an_adapter_needs_no_members_and_the_base_costs_nothing(home):
    adapter = write(home, "runs/adapter/lua-s0/training.json", training(2.0))
    made_runs.finish(home / adapter, "adapter", {})
    found = costs.method_cost("lora", [adapter])
    assert found.seconds == 2.0 and found.members_seconds is None
    assert dict(costs.method_cost("base", [])) == {"method": "base", "parameters": 0, "steps": None, "seconds": None,
                                                   "cpu_seconds": None, "members_seconds": None,
                                                   "members_cpu_seconds": None, "memory_mb": None}  # fmt: skip
    with pytest.raises(UserError, match="has no training.json"):
        costs.method_cost("lora", ["runs/none"])


def test_time_counts_every_run_once_however_many_stand_on_it(home):
    def made(name: str, stage: str, seconds: float, inputs=()) -> str:
        made_runs.finish(home / "runs" / name, stage, {}, tuple(inputs), seconds=seconds)
        return f"runs/{name}"

    base = made("base", "base_model", 100)
    adapters = [made(f"a{i}", "adapter", 10 + i, [base]) for i in range(2)]
    places = store.run_dirs([{"bottleneck": adapters}, {"x": made("e", "evaluate", 5, [base, *adapters])}, None])
    found = costs.stage_times(places)
    assert [(row.stage, row.runs, row.seconds, row.slowest) for row in found] == [
        ("base_model", 1, 100, 100), ("adapter", 2, 21, 11), ("evaluate", 1, 5, 5), ("all", 4, 126, 100)]  # fmt: skip


def summary(**states) -> dict:
    """A summary of three groups of rows, whose own weights over seeds are given by state."""
    every = {"own_share": [0.5, 0.5], "own_change_error": 0.01}
    phases = {name.replace("_", " ").replace("1 ", "1, "): {"own_weight": own, **every} for name, own in states.items()}
    return {"mask": "zero", "samples": 64, "clusters": 3, "tokens": "completion", "phases": phases}


def test_the_own_adapters_weight_is_set_against_its_start(home):
    states = summary(initialisation=[0.1, 0.2], phase_1_masked=[0.1, 0.3], phase_2=[0.5, 0.7])
    place = write(home, "runs/fusion_attention/z/summary.json", states)
    found = costs.own_attention({"advfusion_zero": place})
    assert [(row.phase, round(row.own_weight, 6), row.empty_slot) for row in found] == [
        ("initialisation", 0.15, False), ("phase 1, masked", 0.2, True), ("phase 2", 0.6, False)]  # fmt: skip
    last = found[-1]
    assert last.change == pytest.approx(0.45) and last.change_sd == pytest.approx(0.05 * 2**0.5)
    half = student_t(0.975, 2) * 0.01
    assert last.change_interval.low == pytest.approx(0.45 - half) and found[0].change == 0
    assert fusion_weights.own_weight_sentences(found, "lua") == [
        "advfusion_zero gave the Lua adapter 15% of the weight before training and 60% after it: a change of +45.0 "
        "points (sd over seeds 7.1; 2 of 2 seeds in this direction)."
    ]


@pytest.mark.parametrize("content, said", [
    ({"mask": "none"}, "summary.json has no 'phases'"),
    ({"mask": "none", "phases": {"phase 2": {"own_weight": [0.1]}}}, "summary.json has no 'own_change_error'"),
    (None, "does not exist; a finished run of 05_fusion_attention"),
])  # fmt: skip
def test_what_a_summary_lacks_is_named(home, content, said):
    place = write(home, "runs/x/summary.json", content) if content else "runs/none"
    with pytest.raises(UserError, match=said):
        costs.own_attention({"adapterfusion": place})


@pytest.mark.parametrize("limit, tested", [(None, 4), (3, 3), (9, 4)])
def test_labelled_rows_are_those_that_train_select_and_test(home, limit, tested):
    run = "runs/evaluate/a-0000000001"
    made_runs.finish(home / run, "evaluate", {"data": tiny.data_run(home), "limit": limit})
    assert costs.labelled_rows({"base": run}, "lua") == {"train": 8, "valid": 4, "test": tested}


def test_a_cross_validated_target_has_no_labelled_rows_but_those_that_train_and_test(home):
    data = tiny.data_run(home)
    params = DataRun(data).params | {"valid": "k_fold", "target": "lua"}
    tiny.finish(home, home / data, params)
    run = "runs/evaluate/a-0000000001"
    made_runs.finish(home / run, "evaluate", {"data": data, "limit": None})
    assert costs.labelled_rows({"base": run}, "lua") == {"train": 8, "valid": 0, "test": 4}
    assert costs.labelled_rows({"base": run}, "ruby") == {"train": 8, "valid": 4, "test": 4}

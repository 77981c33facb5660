"""Costs: they are those of the trainings, time is that of every run once, attention is read by named keys."""

from __future__ import annotations

import json

import pytest

from studykit.errors import UserError
from studykit.evaluation import costs
from studykit.report import conclusions
from studykit.runs import store
from tests import made_runs


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
    return {"log": [], "best_step": 20, "steps": 20, "seconds": seconds, "trainable": trainable,
            "peak_memory_mb": memory}  # fmt: skip


def fusion(home, seed: int, *seconds: float) -> str:
    members = {x: write(home, f"runs/adapter/{x}-s{seed}/training.json", training(5.0 + seed)) for x in ("go", "lua")}
    for i, of_phase in enumerate(seconds):
        write(home, f"runs/fusion/f-s{seed}/phase{i + 1}/training.json", training(of_phase, 70, 100.0 + i))
    return write(home, f"runs/fusion/f-s{seed}/members.json", members)


def test_a_fusion_costs_all_its_phases_and_its_members_apart(home):
    found = costs.method_cost("advfusion_zero", [fusion(home, 0, 3.0, 4.0), fusion(home, 1, 5.0, 6.0)])
    assert dict(found) == {"method": "advfusion_zero", "parameters": 70, "steps": 40.0, "seconds": 9.0,
                     "members_seconds": 11.0, "memory_mb": 101.0}  # fmt: skip


def test_an_adapter_needs_no_members_and_the_base_costs_nothing(home):
    adapter = write(home, "runs/adapter/lua-s0/training.json", training(2.0))
    found = costs.method_cost("lora", [adapter])
    assert found.seconds == 2.0 and found.members_seconds is None
    assert dict(costs.method_cost("base", [])) == {"method": "base", "parameters": 0, "steps": None, "seconds": None,
                                                   "members_seconds": None, "memory_mb": None}  # fmt: skip
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


def summary(**phases) -> dict:
    said = {name.replace("_", " "): {"own_weight": own, "own_share": own} for name, own in phases.items()}
    return {"mask": "zero", "samples": 64, "tokens": "completion", "phases": said}


def test_the_own_adapters_share_by_phase(home):
    place = write(home, "runs/fusion_attention/z/summary.json", summary(phase_1=[0.1, 0.3], phase_2=[0.5, 0.7]))
    found = costs.own_attention({"advfusion_zero": place})
    assert [(row.phase, round(row.own_weight, 6), row.empty_slot) for row in found] == [
        ("phase 1", 0.2, True), ("phase 2", 0.6, False)]  # fmt: skip
    assert found[0].sd == pytest.approx(0.02**0.5) and found[0].by_seed == [0.1, 0.3]
    assert conclusions.attention_sentences(found, "lua") == [
        "advfusion_zero puts 20% after phase 1 (an empty slot) and 60% after phase 2 of its fusion weight on the Lua "
        "adapter."
    ]


@pytest.mark.parametrize("content, said", [
    ({"mask": "none"}, "summary.json has no 'phases'"),
    ({"mask": "none", "phases": {"phase 1": {"own_weight": [0.1]}}}, "summary.json has no 'own_share'"),
    (None, "does not exist; a finished run of 05_fusion_attention"),
])  # fmt: skip
def test_what_a_summary_lacks_is_named(home, content, said):
    place = write(home, "runs/x/summary.json", content) if content else "runs/none"
    with pytest.raises(UserError, match=said):
        costs.own_attention({"adapterfusion": place})

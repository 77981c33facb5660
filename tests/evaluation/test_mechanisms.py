"""Candidate reasons for a slope: read from the studies' own runs, unit by unit, and ranked with an exact test."""

from __future__ import annotations

import pytest

from studykit.evaluation.comparison import compare
from studykit.evaluation.gathering import gather
from studykit.evaluation.mechanisms import mechanisms, permutation_p
from studykit.evaluation.results import ComparisonResults, MethodCost, OwnAttention
from studykit.runs.files import write_json
from studykit.study.gather_parameters import GatherParams
from tests import made_runs
from tests.made_scores import method

WIDTHS = {"48": 48, "96": 96, "192": 192}


def attention(phase: str, weight: float) -> OwnAttention:
    values = dict.fromkeys(("own_weight", "own_share", "change"), weight)
    about = dict(by_seed=[weight], change_sd=None, change_interval=None, samples=8, tokens="all", empty_slot=False)
    return OwnAttention(method="adapterfusion", phase=phase, **values, **about)


def cost(parameters: int) -> MethodCost:
    unknown = dict.fromkeys(
        ("steps", "seconds", "cpu_seconds", "members_seconds", "members_cpu_seconds", "memory_mb"), None
    )
    return MethodCost(method="adapterfusion", parameters=parameters, **unknown)


@pytest.fixture
def family(tmp_path, monkeypatch) -> GatherParams:
    """Three widths; what a fusion gains shrinks with them, while its weight on the own adapter grows."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    for i, (study, width) in enumerate(WIDTHS.items()):
        scores = {"bottleneck": method(0.3), "adapterfusion": method(0.8 - 0.15 * i)}
        main = compare(scores, "pass_at_1", "bottleneck", 0.95, 2000)
        results = ComparisonResults(
            main="pass_at_1",
            metrics={"pass_at_1": main},
            sources=[],
            attention=[attention("init", 0.9), attention("end", 0.2 + 0.1 * i)],
            cost=[cost(3 * width**2)],
            time=[],
        )
        base, data, fusion, compared = (
            tmp_path / "runs" / stage / study for stage in ("base", "data", "fusion", "compare")
        )
        write_json(base / "base.json", {"parameters": 100 * width**2, "hidden_size": width})
        (data / "rows" / "lua").mkdir(parents=True)
        (data / "rows" / "lua" / "test.jsonl").write_text("{}\n")
        fusion.mkdir(parents=True)
        write_json(compared / "compare.json", results.model_dump(mode="json"))
        made_runs.finish(base, "base_model", {}, headline={"parameters": 100 * width**2})
        made_runs.finish(data, "data", {})
        made_runs.finish(fusion, "fusion", {"learning_rate": 0.002})
        params = {"fusions": {"adapterfusion": [f"runs/fusion/{study}"]}, "adapters": {}, "evaluations": {}}
        made_runs.finish(compared, "compare", params)
    runs = {part: {study: f"runs/{part}/{study}" for study in WIDTHS} for part in ("base", "data", "compare")}
    return GatherParams(
        compares=runs["compare"],
        bases=runs["base"],
        data=runs["data"],
        over=["width"],
        levels={"width": dict(zip(WIDTHS, WIDTHS, strict=True))},
        covariate="parameters",
        contrasts=[["adapterfusion", "bottleneck"]],
    )


def test_every_reason_has_a_number_per_unit_and_a_rank(family):
    found = {one.name: one for one in mechanisms(family, gather(family)).found}
    share = found["trained parameters of adapterfusion, share of the base's"]
    assert share.by_unit == pytest.approx(dict.fromkeys(WIDTHS, 0.03)) and share.correlation is None and share.p == 1
    rate = found["learning rate of adapterfusion, times the width"]
    assert rate.by_unit == pytest.approx({study: 0.002 * width for study, width in WIDTHS.items()})
    own = found["weight on the target's own adapter in adapterfusion"]
    assert own.by_unit == pytest.approx({"48": 0.2, "96": 0.3, "192": 0.4}), "at the end, not at the start"
    assert own.correlation == pytest.approx(-1) == rate.correlation, "the gain shrinks where these grow"
    assert found["pass@1 of bottleneck"].correlation is None, "the same score everywhere explains nothing"


def test_the_permutation_test_is_exact_for_few_units_and_drawn_for_many():
    five = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert permutation_p(five, five) == permutation_p(five, five[::-1]) == 2 / 120
    assert permutation_p([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == 1.0, "among three, any order is as extreme"
    nine = [float(i) for i in range(9)]
    assert permutation_p(nine, nine) < 0.001 and permutation_p(nine, [0.0, 3, 1, 4, 2, 5, 1, 2, 0]) > 0.5

"""Each sign is found where the fault was made, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from studykit.attention.record import COMPLETION, FusionRecord
from studykit.attention.summary import AttentionSummary
from studykit.evaluation.results import Contrast, Interval, MethodSummary, MetricComparison, Verdict
from studykit.report import diagnostics
from studykit.report.diagnostics import Evidence, judge
from studykit.training.result import TrainingResult
from tests import made_runs

MEMBERS = ["python", "go", "lua"]


def training(*losses: float) -> TrainingResult:
    """A log that looks every ten steps, the first time before training; the least loss after that is kept."""
    log = [{"step": 10 * i, "eval_loss": loss} for i, loss in enumerate(losses)]
    best = min(log[1:], key=lambda row: row["eval_loss"])
    return TrainingResult(
        log, best["step"], steps=log[-1]["step"], seconds=1.0, cpu_seconds=1.0, trainable=1, peak_memory_mb=1.0
    )


def compared(metric="pass_at_1", contrasts=(), rows=()) -> MetricComparison:
    return MetricComparison(metric=metric, label="pass@1", unit="%", baseline="lora", language="lua", signature="s",
                            confidence=0.95, margin=None, summaries=list(rows), contrasts=list(contrasts))  # fmt: skip


def contrast(method: str, against: str, value: float, direction: str, seeds_confirm: bool = True) -> Contrast:
    around = Interval(low=value - 1, high=value + 1)
    verdict = Verdict(
        direction=direction, seeds_confirm=seeds_confirm, p_holm=0.001, p_overall=0.001, equivalent_within=None
    )
    return Contrast(method=method, against=against, value=value, interval=around, p=0.001, test="paired bootstrap",
                    n=100, clusters=None, detectable=3.0, by_seed=[value, value], overall_interval=around,
                    p_overall=0.001, p_equivalent=None, error=1.0, detectable_overall=5.0,
                    verdict=verdict, effect=-0.2, effect_name="Cliff's delta", discordant=None)  # fmt: skip


def mean(method: str, value: float) -> MethodSummary:
    return MethodSummary(method=method, mean=value, sd=0.0, points=[value, value], interval=None, n=100,
                         interval_method="made", clusters=None)  # fmt: skip


MEANS = [mean("advfusion_zero", 20.0), mean("lora", 30.0), mean("bottleneck", 25.0)]
SOUND = {
    "first": [training(1.0, 0.6, 0.5), training(1.1, 0.7, 0.6)],
    "second": [training(0.45, 0.42, 0.41), training(0.55, 0.5, 0.52)],
    "layers": ["L1", "L2"],
    "before": [np.array([[0.4, 0.3, 0.3], [0.3, 0.3, 0.4]])] * 2,
    "weights": [np.array([[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])] * 2,
    "value": [0.05, 0.06],
    "comparisons": [
        compared(rows=MEANS, contrasts=[contrast("advfusion_zero", "lora", 2.0, "better"),
                                        contrast("advfusion_zero", "bottleneck", 0.1, "undecided")]),
        compared("loss", rows=[mean("advfusion_zero, phase 1", 0.5), mean("advfusion_zero", 0.4)]),
    ],
}  # fmt: skip


def signs(**fault) -> list[diagnostics.Sign]:
    return judge(Evidence("advfusion_zero", "lua", MEMBERS, **{**SOUND, **fault}))


def test_a_sound_fusion_shows_no_sign():
    assert signs() == []


def test_nothing_recorded_is_no_sign():
    assert judge(Evidence("average", "lua", MEMBERS)) == []


@pytest.mark.parametrize("sign, fault, evidence", [
    ("loss does not fall", {"first": [training(1.0, 1.2, 0.995), training(1.0, 0.5)]}, "In 1 of 2 seeds"),
    ("loss does not fall", {"first": [training(1.0, 1.2)] * 2}, "from 1.000 to 1.200"),
    ("drop after phase 2", {"second": [training(0.9, 0.7), training(0.9, 0.8)]}, "In 2 of 2 seeds the validation loss"),
    ("drop after phase 2", {"comparisons": [compared("loss", rows=[
        mean("advfusion_zero, phase 1", 0.4), mean("advfusion_zero", 0.5)])]}, "from 0.400 to 0.500"),
    ("worse than one adapter", {"comparisons": [compared(rows=MEANS, contrasts=[
        contrast("advfusion_zero", "lora", -10.0, "worse")])]}, "advfusion_zero is worse than lora"),
    ("worse than one adapter", {"comparisons": [compared(rows=MEANS, contrasts=[
        contrast("bottleneck", "advfusion_zero", 5.0, "better", seeds_confirm=False)])]}, "worse than bottleneck"),
    ("collapsed attention", {"weights": [np.array([[0.01, 0.02, 0.97], [0.2, 0.5, 0.3]])] * 2},
     "in L1 (lua, in 2 of 2 seeds); equal weights would be 33% each. Of these 2 cases, one per layer and seed, none had"),
    ("collapsed attention", {"weights": [np.array([[0.95, 0.02, 0.03], [0.2, 0.5, 0.3]]), SOUND["weights"][0]]},
     "in L1 (python, in 1 of 2 seeds)"),
    ("collapsed attention", {"before": [np.array([[0.01, 0.02, 0.97], [0.9, 0.05, 0.05]])] * 2,
                             "weights": [np.array([[0.02, 0.07, 0.91], [0.2, 0.5, 0.3]])] * 2}, "layer and seed, all had"),
    ("unmoved attention", {"before": [np.array([[0.31, 0.3, 0.39], [0.3, 0.3, 0.4]])] * 2}, "In 1 of 2 layers (L1)"),
    ("value off identity", {"value": [0.9, 0.1]}, "0.90 of ||I||"),
])  # fmt: skip
def test_a_fault_shows_its_sign_and_no_other(sign, fault, evidence):
    (found,) = signs(**fault)
    assert found.sign == sign and found.method == "advfusion_zero" and evidence in found.evidence
    assert found.advice.endswith(".")


@pytest.mark.parametrize("fault", [
    {"first": [training(1.0, 0.98)] * 2, "second": []},  # it falls, if slowly
    {"second": [training(0.9, 0.505), training(0.9, 0.8)]},  # one seed of two, and by a hair
    {"comparisons": [compared(rows=MEANS, contrasts=[contrast("advfusion_zero", "lora", -1.0, "undecided")])]},
    {"comparisons": [compared(rows=MEANS, contrasts=[contrast("lora", "bottleneck", -9.0, "worse")])]},  # not of a fusion
    {"weights": [np.array([[0.89, 0.1, 0.01], [0.0, 0.89, 0.11]])] * 2},
    {"before": [np.array([[0.31, 0.3, 0.39], [0.3, 0.3, 0.4]])], "weights": [np.array([[0.36, 0.3, 0.34], [0.2, 0.5, 0.3]])]},
    {"value": [0.4]},
])  # fmt: skip
def test_what_only_looks_like_a_fault_is_none(fault):
    assert signs(**fault) == []


def record(weights: list[float]) -> FusionRecord:
    """Ten tokens of one sample with the same weights, in one layer."""
    made = FusionRecord.empty(MEMBERS, "lua", "init", ["L1"], ["a"])
    each = np.tile(weights, (1, 10, 1))  # (L, T, A)
    made.add(0, each, each, np.full(10, COMPLETION), np.zeros(10, np.uint8))
    return made


def test_signs_are_read_from_what_runs_publish(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    run, seen = tmp_path / "runs/fusion/a", tmp_path / "runs/fusion_attention/a"
    params = {"target": "lua", "members": dict.fromkeys(MEMBERS, "x"), "method": "adapterfusion"}
    training(1, 1, 1).write(run / "fusion/training.json")
    records = {"initialisation": [record([0.99, 0.01, 0])], "AdapterFusion": [record([1.0, 0, 0])]}
    attention = AttentionSummary.from_records("adapterfusion", records, "completion")
    attention.write(seen / "summary.json")
    (run / "fusion/fusion").mkdir()
    tensors = {"layers.0.fusions.value.weight": np.eye(4) * 2, "layers.1.fusions.value.weight": np.eye(4)}
    save_file(tensors, run / "fusion/fusion/adapter_model.safetensors")
    made_runs.finish(run, "fusion", params)
    found = diagnostics.find_signs({"adapterfusion": ["runs/fusion/a"]}, {"adapterfusion": "runs/fusion_attention/a"})
    assert [one.sign for one in found] == ["loss does not fall", "collapsed attention", "unmoved attention",
                                              "value off identity"]  # fmt: skip
    assert "The mean over all layers is 1.0%" in found[2].evidence and "1.00 of ||I||" in found[3].evidence

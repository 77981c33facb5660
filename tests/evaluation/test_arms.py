"""Arms: what is counted of trainings, and an exact test with a known value."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studykit.evaluation.arms import Arm, fisher, read_arms
from studykit.report import stability as words
from studykit.training.result import TrainingResult
from studykit.training.stability import Stability


def result(losses, norms=(), probes=(), **more) -> TrainingResult:
    log = [{"step": 0, "eval_loss": 2.0}]
    log += [{"step": n, "loss": loss} for n, loss in enumerate(losses, 1)]
    log += [{"step": len(losses), "loss": losses[-1], "grad_norms": list(norms)}] if norms else []
    log += [{"step": 0, "probe": probe} for probe in probes]
    numbers = {"best_step": 0, "steps": len(losses), "seconds": 1.0, "cpu_seconds": 1.0, "trainable": 8,
               "peak_memory_mb": 1.0}  # fmt: skip
    return TrainingResult(log=log + more.get("entries", []), **numbers)


def probe(**values) -> dict:
    return {"rows": 8, "norm": 1.0, "cosine": 0.9, "noise": 6.0, "signal": 2.0, "changed": None, **values}


def test_fisher_has_known_values():
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70), "the lady tasting tea, two-sided"
    assert fisher(4, 4, 0, 4) == pytest.approx(2 / 70)
    assert fisher(1, 10, 11, 14) == pytest.approx(0.0027594562)  # a textbook's table of dieting men and women
    assert fisher(0, 3, 0, 3) == fisher(3, 3, 3, 3) == 1


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_fisher_does_not_depend_on_the_order_or_on_what_is_called_an_event(n, m, data):
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    p = fisher(a, n, b, m)
    assert 0 < p <= 1 and math.isclose(p, fisher(b, m, a, n)) and math.isclose(p, fisher(n - a, n, m - b, m))


def test_a_training_is_steady_or_diverges():
    calm = Stability.of([result([2.0, 1.0], probes=[probe(), probe(cosine=0.7, signal=4.0, changed=0.5)])])
    assert (calm.diverged, calm.cosine, calm.least_cosine, calm.changed) == (False, pytest.approx(0.8), 0.7, 0.5)
    assert calm.noise_scale == pytest.approx((6 + 6) / (2 + 4)), "noise and signal are averaged before they are divided"
    assert not Stability.of([result([2.0, 1.0]), result([1.0, 1.1])]).diverged, (
        "phase 2 starts where it can hardly fall"
    )
    higher = Stability.of([result([2.0, 1.0]), result([1.0, 2.5])])
    assert higher.diverged and higher.ended_higher and not higher.not_finite and higher.cosine is None
    ended = Stability.of([result([2.0, 1.0], entries=[{"step": 2, "diverged": 1.0}])])
    assert ended.diverged and ended.not_finite
    jumpy = Stability.of([result([2.0, 1.0], norms=[1 + 0.01 * (n % 5) for n in range(20)] + [None])])
    assert jumpy.spikes == 1, "a norm that is not finite is a spike"


def test_arms_are_read_and_tested_against_the_first(tmp_path):
    for name, last in (("a0", 1.0), ("a1", 1.0), ("b0", 3.0), ("b1", 1.0)):
        (tmp_path / name / "fusion").mkdir(parents=True)
        result([2.0, last]).write(tmp_path / name / "fusion/training.json")
    (tmp_path / "average/fusion").mkdir(parents=True)
    untrained = result([2.0])
    TrainingResult(**{**vars(untrained), "steps": 0}).write(tmp_path / "average/fusion/training.json")
    runs = {"a": ["a0", "a1"], "b": ["b0", "b1"], "average": ["average"]}
    arms = read_arms({name: [str(tmp_path / run) for run in of] for name, of in runs.items()})
    assert [arm.name for arm in arms] == ["a", "b"], "nothing trains in an average"
    first, second = words.arm_table(arms)
    assert (first["diverged"], first["p (Fisher)"], first["sd over seeds"]) == ("0 of 2", "1.000", "0.0000")
    assert (second["diverged"], second["p (Fisher)"], second["cosine"]) == ("1 of 2", "1.000", "–")
    named = [Arm(f"{arm.name}, {study}", arm.trainings, arm.losses) for arm, study in zip(arms, "xy", strict=True)]
    (line,) = words.divergence_by_level(
        named, {"fusion.quantization": {"x": "none", "y": "nf4"}, "same": {"x": 1, "y": 1}}
    )
    assert line == "fusion.quantization: trainings that diverged were 0 of 2 with none, 1 of 2 with nf4."
    assert words.facts_of(arms[1].trainings[0])["diverged"] == "ended above its start"

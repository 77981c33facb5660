"""Signs that a fusion went wrong, found in what a study's runs left behind: each with its evidence and what to try.

    loss does not fall      validation loss of the first phase (AdvFusion's phase 1, another fusion's only one)
    drop after phase 2      loss with the target's adapter restored and trained on, against phase 1's without it
    worse than one adapter  a fusion against the target's own adapter or LoRA on test rows, as compared
    collapsed attention     nearly all weight on one member
    unmoved attention       weights after training as they were drawn
    value off identity      ||V - I||_F against ||I||_F, of the weights that were kept

A sign is no proof of a fault: it says where to look first. Thresholds stand below with their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from studykit.attention import record
from studykit.attention.record import FusionRecord
from studykit.attention.summary import AttentionSummary
from studykit.report import conclusions
from studykit.runs import files
from studykit.runs.manifest import finished_run
from studykit.runs.text import plural
from studykit.study.methods import BEFORE_TRAINING, PHASE_1, PHASES
from studykit.training.result import TrainingResult

FALL = 0.01  # relative: a fusion that learns anything has a validation loss at least this much below its first
RISE = 0.02  # relative: less comes and goes with the seed and the step that is kept
ALL_ON_ONE = 0.9  # mean weight, over layers and tokens, on one member
MOVED = 0.02  # total variation distance from the first weights, 0 to 1, in the layer that moved most
OFF = 0.5  # ||V - I|| / ||I||: V then changes what a member adds by half of its length
SINGLE = ("bottleneck", "lora")  # one adapter, no fusion


@dataclass
class Evidence:
    """What is known of one fusion method; lists have one entry per seed, and are empty where nothing was recorded."""

    method: str
    target: str
    members: list[str] = field(default_factory=list)
    first: list[TrainingResult] = field(default_factory=list)  # results of the first phase
    second: list[TrainingResult] = field(default_factory=list)  # of phase 2
    weights: list[np.ndarray] = field(default_factory=list)  # (L, A), mean weights after the last phase, on test rows
    moved: list[float] = field(default_factory=list)  # distance of the weights from those before training
    value: list[float] = field(default_factory=list)  # ||V - I|| / ||I||, the largest of all layers
    compared: Sequence[Mapping[str, Any]] = ()  # results of `comparison.compare`


def _loss_does_not_fall(found: Evidence) -> str | None:
    falls = [1 - t.validation_loss() / t.validation_loss(0) for t in found.first]  # of the kept weights, the best seen
    stuck = [fall for fall in falls if fall < FALL]
    phase = PHASE_1.title if found.second else "training"
    before, after = (mean(t.validation_loss(step) for t in found.first) if found.first else 0 for step in (0, None))
    return _seeds(stuck, falls) and (
        f"In {_seeds(stuck, falls)} the validation loss fell by less than {FALL:.0%} in {phase}; on average it went "
        f"from {before:.3f} to {after:.3f}.")  # fmt: skip


def _drop_after_phase_2(found: Evidence) -> str | None:
    phases = list(zip(found.first, found.second, strict=True)) if found.second else []
    pairs = [(a.validation_loss(), b.validation_loss()) for a, b in phases]
    rises = [after / before - 1 for before, after in pairs]
    said = []
    if seeds := _seeds([rise for rise in rises if rise > RISE], rises, most=True):
        restored = mean(after.validation_loss(0) for _, after in phases)
        said.append(f"In {seeds} the validation loss after phase 2 is above that of phase 1, by {mean(rises):.0%} on "
                    f"average ({mean(a for a, _ in pairs):.3f} to {mean(b for _, b in pairs):.3f}); with the adapter "
                    f"restored, before phase 2 took a step, it was {restored:.3f}.")  # fmt: skip
    for compared in found.compared:
        rows = {row["method"]: row for row in compared["rows"]}
        before, after = rows.get(f"{found.method}, {PHASE_1.title}"), rows.get(found.method)
        if compared["metric"] != "loss" or not before or not after:
            continue
        worse = [a / b - 1 for a, b in zip(after["points"], before["points"], strict=True)]
        if seeds := _seeds([rise for rise in worse if rise > RISE], worse, most=True):
            said.append(f"On test rows the loss rose in {seeds}, from {before['mean']:.3f} to {after['mean']:.3f}.")
    return " ".join(said) or None


def _worse_than_one_adapter(found: Evidence) -> str | None:
    said = []
    for compared in found.compared:
        for single in SINGLE:
            contrast = conclusions.oriented(compared["contrasts"], found.method, single)
            if contrast and contrast["verdict"].startswith("worse"):
                said.append(conclusions.sentence(compared, contrast))
    return " ".join(said) or None


def _collapsed(found: Evidence) -> str | None:
    means = [weights.mean(0) for weights in found.weights]  # (A,) each
    on_one = [m for m in means if m.max() > ALL_ON_ONE]
    if len(found.members) < 2 or not on_one:
        return None
    names = sorted({found.members[int(m.argmax())] for m in on_one})
    return (f"In {_seeds(on_one, means)} one member has {min(m.max() for m in on_one):.0%} of the weight or more: "
            f"{', '.join(names)}; uniform is {1 / len(found.members):.0%}.")  # fmt: skip


def _unmoved(found: Evidence) -> str | None:
    still = [moved for moved in found.moved if moved < MOVED]
    return _seeds(still, found.moved) and (
        f"In {_seeds(still, found.moved)} the weights are where they began: no layer moved more than "
        f"{max(still):.1%} of its weight to other members.")  # fmt: skip


def _value_off_identity(found: Evidence) -> str | None:
    off = [value for value in found.value if value > OFF]
    return _seeds(off, found.value) and (
        f"In {_seeds(off, found.value)} V is further than {OFF:.0%} of its size from the identity: ||V - I|| is "
        f"{max(off):.2f} of ||I|| at most.")  # fmt: skip


def _seeds(those: Sequence, of: Sequence, most: bool = False) -> str:
    """"2 of 3 seeds"; "" for none, or, with `most`, for no more than half."""
    enough = len(those) * 2 > len(of) if most else len(those) > 0
    return f"{len(those)} of {plural(len(of), 'seed')}" if enough else ""


SIGNS: dict[str, tuple[Callable[[Evidence], str | None], str]] = {
    "loss does not fall": (
        _loss_does_not_fall,
        "Raise fusion.learning_rate, two to five times at once; give fusion.steps more; and see in 02_adapter whether "
        "the members have learned anything that could be passed on."),
    "drop after phase 2": (
        _drop_after_phase_2,
        "Where the loss rose before phase 2 took a step, the restored adapter itself disturbs the fusion, and phase 2 "
        "only takes part of that back: judge phase 1 beside it, and give phase 2 more fusion.steps. Where it rose "
        "later, phase 2 learns its few rows by heart: a smaller fusion.learning_rate, fusion.patience, or "
        "fusion.phase1_data: all. The method word advfusion_exclude has slots that mean the same in both phases."),
    "worse than one adapter": (
        _worse_than_one_adapter,
        "See whether the loss still fell when training ended (more fusion.steps), whether source adapters are good on "
        "their own languages (the table of source languages), and try fewer, nearer sources."),
    "collapsed attention": (
        _collapsed,
        "A fusion that uses one member is that member at a higher price. Try AdvFusion, whose phase 1 hides the "
        "target's own adapter; a smaller fusion.learning_rate; more rows; or leave out sources without weight."),
    "unmoved attention": (
        _unmoved,
        "The choice was not learned; what changed is V, if anything. Raise fusion.learning_rate or fusion.steps, and "
        "compare with the method average, which this fusion then hardly differs from."),
    "value off identity": (
        _value_off_identity,
        "The fusion became an adapter of its own instead of a choice. Raise fusion.value_regularizer tenfold, lower "
        "fusion.learning_rate, or take the variant static, which has no V."),
}  # fmt: skip


def judge(found: Evidence) -> list[dict[str, str]]:
    """The signs that one method shows: sign, method, evidence, advice."""
    said = {sign: (test(found), advice) for sign, (test, advice) in SIGNS.items()}
    return [{"sign": sign, "method": found.method, "evidence": evidence, "advice": advice}
            for sign, (evidence, advice) in said.items() if evidence]  # fmt: skip


def detect(
    fusions: Mapping[str, Sequence[str]] | None,
    attention: Mapping[str, str] | None,
    compared: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, str]]:
    """All signs of a study, as `judge` gives them, method by method.

    Args:
        fusions, attention: run directories, as the parameters of notebook 06 have them.
        compared: results of `comparison.compare`: of the main metric, and of the loss where it was measured.
    """
    return [sign for method, places in (fusions or {}).items()
            for sign in judge(evidence(method, places, (attention or {}).get(method), compared))]  # fmt: skip


def evidence(method: str, places: Sequence[str], attention: str | None, compared: Sequence = ()) -> Evidence:
    """What the fusion runs of a method (one per seed), and its fusion_attention run, have recorded."""
    made = [finished_run(place).params for place in places]
    phases = [phase.key for phase in PHASES[made[0]["method"]]]
    found = Evidence(method, made[0]["target"], list(made[0]["members"]), compared=compared)
    for place in (files.home() / place for place in places):
        trained = [TrainingResult.read(place / name / "training.json") for name in phases]
        if not trained or not trained[0].steps:  # a composition that is not trained
            continue
        found.first.append(trained[0])
        found.second += trained[1:]
        seen = [place / "attention" / f"{moment}.npz" for moment in (BEFORE_TRAINING.key, phases[-1])]
        if all(file.is_file() for file in seen):
            found.moved.append(_distance(*(FusionRecord.load(file) for file in seen)))
        found.value += _value(place / phases[-1])
    if attention:
        last = list(AttentionSummary.read(Path(attention, "summary.json")).phases.values())[-1]
        found.weights = list(last.weights)
    return found


def _distance(before: FusionRecord, after: FusionRecord) -> float:
    """Total variation distance between mean weights, in the layer where it is largest."""
    return float(np.abs(record.mean_weights(before) - record.mean_weights(after)).sum(-1).max() / 2)


def _value(phase: Path) -> list[float]:
    """||V - I|| / ||I|| of a saved fusion, the largest of its layers; nothing where V is low-rank or absent."""
    saved = [load_file(file) for file in phase.glob("**/adapter_model.safetensors")]
    matrices = [weight for tensors in saved for name, weight in tensors.items() if name.endswith(".value.weight")]
    return [max(float(np.linalg.norm(v - np.eye(len(v))) / np.sqrt(len(v))) for v in matrices)] if matrices else []

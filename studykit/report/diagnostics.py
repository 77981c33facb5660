"""Diagnostics: signs that a fusion went wrong, with the evidence for each and advice on what to try.

    loss does not fall      validation loss of the first phase (AdvFusion's phase 1, another fusion's only one)
    drop after phase 2      loss with the target's adapter restored and trained on, against phase 1's without it
    worse than one adapter  a fusion against the target's own adapter or LoRA on test rows, as compared
    collapsed attention     nearly all weight on one member, layer by layer
    unmoved attention       weights after training close to those of the random start, layer by layer
    value off identity      ||V - I||_F against ||I||_F, of the weights that were kept

A sign does not prove a fault; it tells the reader where to look first. The thresholds below give their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

from studykit.attention.summary import AttentionSummary
from studykit.evaluation.results import MetricComparison
from studykit.report import verdicts
from studykit.runs import files
from studykit.runs.manifest import finished_run
from studykit.runs.text import plural
from studykit.study.methods import PHASE_1, PHASES
from studykit.training.result import TrainingResult

LEAST_FALL = 0.01  # of the validation loss, relative to its first value: a fusion that learns anything reaches it
LARGEST_RISE = 0.02  # of the validation loss, relative: seeds and the choice of the kept step cause smaller ones
COLLAPSED_WEIGHT = 0.9  # mean weight of one member in a layer, over tokens
LEAST_MOVE = 0.02  # total variation distance of a layer's weights from the initial ones, 0 to 1
LARGEST_DEVIATION = 0.5  # ||V - I|| / ||I||: V then changes what a member adds by half of its length
SINGLE_ADAPTERS = ("bottleneck", "lora")


class Sign(NamedTuple):
    """One sign that a method shows."""

    sign: str  # a key of SIGNS
    method: str
    evidence: str  # in whole sentences
    advice: str  # in whole sentences


@dataclass(frozen=True)
class Evidence:
    """The records of one fusion method; a list has one entry per seed and is empty where nothing was recorded."""

    method: str
    target: str
    members: list[str] = field(default_factory=list)
    first: list[TrainingResult] = field(default_factory=list)  # of the first phase
    second: list[TrainingResult] = field(default_factory=list)  # of phase 2
    layers: list[str] = field(default_factory=list)
    before: list[np.ndarray] = field(default_factory=list)  # (L, A), mean weights of the untrained fusion, on test rows
    weights: list[np.ndarray] = field(default_factory=list)  # (L, A), the same after the last phase
    value: list[float] = field(default_factory=list)  # ||V - I|| / ||I||, the largest of all layers
    comparisons: Sequence[MetricComparison] = ()


def _loss_does_not_fall(evidence: Evidence) -> str | None:
    falls = [1 - training.validation_loss() / training.validation_loss(0) for training in evidence.first]
    seeds = _share_of_seeds([fall for fall in falls if fall < LEAST_FALL], falls)
    if not seeds:
        return None
    phase = PHASE_1.title if evidence.second else "training"
    before, after = (mean(training.validation_loss(step) for training in evidence.first) for step in (0, None))
    return (
        f"In {seeds} the validation loss fell by less than {LEAST_FALL:.0%} in {phase}; on average it went from "
        f"{before:.3f} to {after:.3f}."
    )


def _drop_after_phase_2(evidence: Evidence) -> str | None:
    sentences = []
    if evidence.second:
        before, after = (
            [training.validation_loss() for training in phase] for phase in (evidence.first, evidence.second)
        )
        rises = [b / a - 1 for a, b in zip(before, after, strict=True)]
        if seeds := _rise_in_most_seeds(rises):
            restored = mean(training.validation_loss(0) for training in evidence.second)
            sentences.append(
                f"In {seeds} the validation loss after phase 2 is above that after phase 1, by {mean(rises):.0%} on "
                f"average ({mean(before):.3f} to {mean(after):.3f}); with the adapter restored, before the first step "
                f"of phase 2, it was {restored:.3f}."
            )
    for comparison in evidence.comparisons:
        rows = {row.method: row for row in comparison.summaries}
        first, last = rows.get(f"{evidence.method}, {PHASE_1.title}"), rows.get(evidence.method)
        if comparison.metric != "loss" or not first or not last:
            continue
        rises = [b / a - 1 for a, b in zip(first.points, last.points, strict=True)]
        if seeds := _rise_in_most_seeds(rises):
            sentences.append(f"On test rows the loss rose in {seeds}, from {first.mean:.3f} to {last.mean:.3f}.")
    return " ".join(sentences) or None


def _worse_than_one_adapter(evidence: Evidence) -> str | None:
    sentences = []
    for comparison in evidence.comparisons:
        for adapter in SINGLE_ADAPTERS:
            contrast = comparison.contrast(evidence.method, adapter)
            if contrast and contrast.verdict.direction == "worse":
                sentences.append(verdicts.sentence(comparison, contrast))
    return " ".join(sentences) or None


def _collapsed(evidence: Evidence) -> str | None:
    if len(evidence.members) < 2 or not evidence.weights:
        return None
    before, after = np.stack(evidence.before), np.stack(evidence.weights)  # (S, L, A)
    collapsed = after.max(-1) > COLLAPSED_WEIGHT  # (S, L)
    if not collapsed.any():
        return None
    already = collapsed & (before.max(-1) > COLLAPSED_WEIGHT) & (before.argmax(-1) == after.argmax(-1))
    names = []
    for layer, seeds, weights in zip(evidence.layers, collapsed.T, after.transpose(1, 0, 2), strict=True):
        if seeds.any():
            on = ", ".join(evidence.members[n] for n in np.unique(weights[seeds].argmax(-1)))
            names.append(f"{layer} ({on}, in {_share_of_seeds(list(seeds.nonzero()[0]), list(seeds))})")
    start = "none" if not already.any() else "all" if (already == collapsed).all() else f"{already.sum()}"
    return (
        f"A single member has more than {COLLAPSED_WEIGHT:.0%} of the weight in {'; '.join(names)}; equal weights "
        f"would be {1 / len(evidence.members):.0%} each. Of these {collapsed.sum()} cases, one per layer and seed, "
        f"{start} had this member as far ahead before training."
    )


def _unmoved(evidence: Evidence) -> str | None:
    if not evidence.weights:
        return None
    moved = np.abs(np.stack(evidence.weights) - np.stack(evidence.before)).sum(-1) / 2  # (S, L)
    still = moved.mean(0) < LEAST_MOVE  # (L,)
    if still.sum() * 2 < len(still):
        return None
    spread = f", between {moved.mean(1).min():.1%} and {moved.mean(1).max():.1%} by seed" * (len(moved) > 1)
    names = ", ".join(layer for layer, is_still in zip(evidence.layers, still, strict=True) if is_still)
    return (
        f"In {still.sum()} of {plural(len(still), 'layer')} ({names}) training moved less than {LEAST_MOVE:.0%} of the "
        f"weight to other members. The mean over all layers is {moved.mean():.1%}{spread}. Such "
        "weights show the random start, not what was learned."
    )


def _value_off_identity(evidence: Evidence) -> str | None:
    far = [deviation for deviation in evidence.value if deviation > LARGEST_DEVIATION]
    return _share_of_seeds(far, evidence.value) and (
        f"In {_share_of_seeds(far, evidence.value)} the value matrix V is far from the identity: ||V - I|| reaches "
        f"{max(far):.2f} of ||I||; above {LARGEST_DEVIATION} it counts as far."
    )


def _share_of_seeds(affected: Sequence, seeds: Sequence) -> str:
    """Returns "2 of 3 seeds", and "" where no seed is affected."""
    return f"{len(affected)} of {plural(len(seeds), 'seed')}" if affected else ""


def _rise_in_most_seeds(rises: Sequence[float]) -> str:
    """Returns "2 of 3 seeds" where the loss rises in more than half of the seeds, otherwise ""."""
    affected = [rise for rise in rises if rise > LARGEST_RISE]
    return _share_of_seeds(affected, rises) if len(affected) * 2 > len(rises) else ""


# sign -> the function that finds its evidence, and the advice
SIGNS: dict[str, tuple[Callable[[Evidence], str | None], str]] = {
    "loss does not fall": (
        _loss_does_not_fall,
        "Raise fusion.learning_rate by a factor of two to five, or raise fusion.steps, and check in 02_adapter that "
        "the members learned something that a fusion can use.",
    ),
    "drop after phase 2": (
        _drop_after_phase_2,
        "Where the loss rose before the first step of phase 2, the restored adapter itself disturbs the fusion, and "
        "phase 2 repairs only part of that: compare with phase 1, and raise fusion.steps. Where the loss rose later, "
        "phase 2 overfits its few rows: give it a lower rate (fusion.by_method: {advfusion: {phases: [{}, "
        "{learning_rate: ...}]}}) or less patience, keep the best step (fusion.keep), or set fusion.phase1_data to "
        "all.",
    ),
    "worse than one adapter": (
        _worse_than_one_adapter,
        "Check whether the loss was still falling when training ended (raise fusion.steps) and whether the source "
        "adapters are good at their own languages (the table of source languages); try fewer and more similar sources.",
    ),
    "collapsed attention": (
        _collapsed,
        "A layer that was collapsed before training shows the random start, and next to no gradient reaches its "
        "scores: set fusion.temperature to auto. A layer that training collapsed does what that member does at a "
        "higher cost: try AdvFusion, whose phase 1 masks the target's own adapter, a lower fusion.learning_rate, or "
        "more rows.",
    ),
    "unmoved attention": (
        _unmoved,
        "The fusion did not learn to choose between members there; at most V changed. Where tokens are saturated (see "
        "05_fusion_attention), set fusion.temperature to auto; elsewhere raise fusion.learning_rate or fusion.steps.",
    ),
    "value off identity": (
        _value_off_identity,
        "The fusion became an adapter of its own instead of a choice between members. Raise fusion.value_regularizer "
        "tenfold, lower fusion.learning_rate, or use the variant static, which has no V.",
    ),
}


def judge(evidence: Evidence) -> list[Sign]:
    """Returns the signs that one method shows."""
    found = {sign: find_evidence(evidence) for sign, (find_evidence, _) in SIGNS.items()}
    return [Sign(sign, evidence.method, text, SIGNS[sign][1]) for sign, text in found.items() if text]


def find_signs(
    fusions: Mapping[str, Sequence[str]] | None,
    attention: Mapping[str, str] | None,
    comparisons: Sequence[MetricComparison] = (),
) -> list[Sign]:
    """Returns all signs of a study, method by method.

    fusions, attention: run directories by method, as the parameters of notebook 06 name them.
    comparisons: by the main metric, and by the completion loss where it was measured.
    """
    signs = []
    for method, runs in (fusions or {}).items():
        signs += judge(read_evidence(method, runs, (attention or {}).get(method), comparisons))
    return signs


def read_evidence(
    method: str, runs: Sequence[str], attention: str | None, comparisons: Sequence[MetricComparison] = ()
) -> Evidence:
    """Reads the records of a method's fusion runs (one per seed) and of its fusion_attention run."""
    params = finished_run(runs[0]).params
    phases = [phase.key for phase in PHASES[params["method"]]]
    evidence = Evidence(method, params["target"], list(params["members"]), comparisons=comparisons)
    for run_dir in map(files.project_path, runs):
        trainings = [TrainingResult.read(run_dir / phase / "training.json") for phase in phases]
        if not any(training.steps for training in trainings):  # a composition that is not trained
            continue
        evidence.first.append(trainings[0])
        evidence.second.extend(trainings[1:])
        evidence.value.extend(_value_deviation(run_dir / phases[-1]))
    if attention and evidence.first:
        summary = AttentionSummary.read(Path(attention, "summary.json"))
        evidence.layers.extend(summary.layers)
        evidence.before.extend(summary.first.weights)
        evidence.weights.extend(summary.last.weights)
    return evidence


def _value_deviation(phase: Path) -> list[float]:
    """||V - I|| / ||I|| of a saved fusion, the largest of its layers; [] where V is low-rank or absent."""
    saved = [load_file(file) for file in phase.glob("**/adapter_model.safetensors")]
    matrices = [weight for tensors in saved for name, weight in tensors.items() if name.endswith(".value.weight")]
    return [max(float(np.linalg.norm(v - np.eye(len(v))) / np.sqrt(len(v))) for v in matrices)] if matrices else []

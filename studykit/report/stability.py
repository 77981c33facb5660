"""How steadily fusions trained, as notebooks 03, 06 and 07 show it: one training, and arms side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studykit.evaluation.arms import Arm, fisher, read_arms
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import GatherParams, Level
from studykit.training.stability import Stability

CAPTION = (
    "Sd: of the validation loss of the kept weights over seeds, in nats per token. Spikes: steps, per hundred, whose "
    "gradient norm is more than three deviations above the median of the twenty before. Diverged: the training loss "
    "was not finite, or ended above its start. p: Fisher's exact test of this count against the first line, two-sided. "
    "Cosine, noise scale and trained weights that changed are measured where a fusion is probed (fusion.probe_every)."
)


def facts_of(steady: Stability) -> dict[str, Any]:
    """Returns what notebook 03 says of one training, name by name."""
    return {
        "steps": steady.steps,
        "spikes of the gradient norm": steady.spikes,
        "diverged": "not finite" if steady.not_finite else "ended above its start" if steady.ended_higher else "no",
        "cosine with the full-precision gradient": _number(steady.cosine, 4),
        "least cosine": _number(steady.least_cosine, 4),
        "gradient noise scale (rows)": _number(steady.noise_scale, 1),
        "trained weights that changed": _percent(steady.changed),
    }


def arm_table(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Returns a line per arm; divergence is tested against the first."""
    rows = []
    for arm in arms:
        n, steps = len(arm.trainings), sum(training.steps for training in arm.trainings)
        spikes = sum(training.spikes for training in arm.trainings)
        rows.append(
            {
                "arm": arm.name,
                "trainings": n,
                "sd over seeds": _number(arm.sd, 4),
                "spikes per 100 steps": f"{100 * spikes / steps:.1f}",
                "diverged": f"{arm.diverged} of {n}",
                "p (Fisher)": _number(fisher(arm.diverged, n, arms[0].diverged, len(arms[0].trainings)), 3),
                "cosine": _number(arm.mean("cosine"), 4),
                "noise scale (rows)": _number(arm.mean("noise_scale"), 1),
                "changed": _percent(arm.mean("changed")),
            }
        )
    return rows


def arms_of(p: GatherParams) -> list[Arm]:
    """Returns the arms of a family: each trained fusion of each study, runs that studies share once."""
    trained: dict[str, list[str]] = {}
    for study, run in p.compares.items():
        for word, runs in (finished_run(run).params["fusions"] or {}).items():
            if runs not in trained.values():
                trained[f"{word}, {study}"] = runs
    return read_arms(trained)


def divergence_by_level(arms: Sequence[Arm], levels: Mapping[str, Mapping[str, Level]]) -> list[str]:
    """Returns a sentence per key: how many trainings diverged at each of its levels.

    They are not tested: the trainings of a level share seeds, members and rows, so they are no independent trials.

    Args:
        arms: from `arms_of`, whose names end with that of their study.
        levels: the values of what the studies differ in, by key and study.
    """
    found = []
    for key, of_key in levels.items():
        counts: dict[str, tuple[int, int]] = {}
        for arm in arms:
            level = str(of_key[arm.name.partition(", ")[2]])
            events, n = counts.get(level, (0, 0))
            counts[level] = events + arm.diverged, n + len(arm.trainings)
        if len(counts) > 1:
            listed = ", ".join(f"{events} of {n} with {level}" for level, (events, n) in counts.items())
            found.append(f"{key}: trainings that diverged were {listed}.")
    return found


def _number(value: float | None, digits: int) -> str:
    return "\u2013" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.1%}"

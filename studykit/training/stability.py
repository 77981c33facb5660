"""How steadily a training went: spikes of its gradient, whether it diverged, and what its probes found.

    steady = Stability.of(read_trainings("runs/fusion/lua-adapterfusion-s0-..."))
    steady.spikes, steady.diverged, steady.cosine

No torch here: reports read results without it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from studykit.training.result import LogEntry, ProbeLook, TrainingResult

WINDOW = 20  # steps before a step with which its gradient norm is compared
FEWEST = 8  # steps of a window that say what is usual
SPIKE = 3.0  # deviations above the median of the window
NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class Stability:
    """The steadiness of one training, which has one result per phase."""

    steps: int
    spikes: int  # steps whose gradient norm is far above those before, see `spikes`
    not_finite: bool  # whether a loss that is not finite ended it; only a probed training is ended so
    ended_higher: bool  # whether the last logged training loss of all phases is above the first
    cosine: float | None  # mean over probes, with the gradient on the base in full precision; None: not probed
    least_cosine: float | None
    noise_scale: (
        float | None
    )  # in rows, see `probes.noise_and_signal`; None: not probed, or the signal is lost in noise
    changed: float | None  # mean share of the trained numbers that differ between two probes

    @property
    def diverged(self) -> bool:
        """Returns whether the training diverged: its loss was not finite, or ended above its start."""
        return self.not_finite or self.ended_higher

    @classmethod
    def of(cls, phases: Sequence[TrainingResult]) -> Stability:
        """Returns the steadiness of a training from the results of its phases."""
        probes = [probe for phase in phases for probe in probes_of(phase.log)]
        cosines = [probe["cosine"] for probe in probes if probe["cosine"] is not None]
        changes = [probe["changed"] for probe in probes if probe["changed"] is not None]
        return cls(
            steps=sum(phase.steps for phase in phases),
            spikes=sum(len(spikes(gradient_norms(phase.log))) for phase in phases),
            not_finite=any("diverged" in entry for phase in phases for entry in phase.log),
            ended_higher=_ended_higher([entry for phase in phases for entry in phase.log]),
            cosine=statistics.fmean(cosines) if cosines else None,
            least_cosine=min(cosines, default=None),
            noise_scale=noise_scale(probes),
            changed=statistics.fmean(changes) if changes else None,
        )


def gradient_norms(log: Sequence[LogEntry]) -> list[float]:
    """Returns the norm of the gradient at every step, before clipping; one that was not finite is infinite."""
    return [math.inf if norm is None else norm for entry in log for norm in entry.get("grad_norms", [])]


def probes_of(log: Sequence[LogEntry]) -> list[ProbeLook]:
    """Returns the probes of a log in their order."""
    return [entry["probe"] for entry in log if "probe" in entry]


def spikes(norms: Sequence[float]) -> list[int]:
    """Returns the steps, from 1, whose gradient norm is a spike.

    A spike is more than 3 deviations above the median of the 20 steps before it, where a deviation is the median
    absolute deviation of these steps, scaled to that of a normal distribution. The first 8 steps have too few before
    them.
    """
    found = []
    for at in range(FEWEST, len(norms)):
        window = norms[max(0, at - WINDOW) : at]
        middle = statistics.median(window)
        deviation = NORMAL * statistics.median(abs(norm - middle) for norm in window)
        if norms[at] > middle + SPIKE * deviation:
            found.append(at + 1)
    return found


def noise_scale(probes: Sequence[ProbeLook]) -> float | None:
    """Returns the simple noise scale in rows: the mean noise over the mean signal of probes; None without a signal."""
    signal = sum(probe["signal"] for probe in probes)
    return sum(probe["noise"] for probe in probes) / signal if signal > 0 else None


def _ended_higher(log: Sequence[LogEntry]) -> bool:
    losses = [entry["loss"] for entry in log if "loss" in entry]
    return len(losses) > 1 and losses[-1] > losses[0]

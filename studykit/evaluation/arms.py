"""Arms of an experiment, and how steadily their trainings went: spread over seeds, spikes, divergence with a test.

arms = read_arms({"adapterfusion": ["runs/fusion/...", "runs/fusion/..."]})
arms[0].sd, arms[0].diverged, fisher(arms[0].diverged, 3, arms[1].diverged, 3)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studykit.evaluation.costs import read_trainings
from studykit.training.stability import Stability


@dataclass(frozen=True)
class Arm:
    """The trainings of one method in one study, which differ in their seeds."""

    name: str
    trainings: list[Stability]
    losses: list[float]  # validation loss of the kept weights, in nats per token, by training

    @property
    def sd(self) -> float | None:
        """Returns the standard deviation of the validation loss over seeds; None for a single one."""
        return statistics.stdev(self.losses) if len(self.losses) > 1 else None

    @property
    def diverged(self) -> int:
        """Returns how many trainings diverged."""
        return sum(training.diverged for training in self.trainings)

    def mean(self, field: str) -> float | None:
        """Returns the mean of a number of `Stability` over the trainings that have it; None where none has."""
        known = [value for value in (getattr(training, field) for training in self.trainings) if value is not None]
        return statistics.fmean(known) if known else None


def read_arms(trained: Mapping[str, Sequence[str]]) -> list[Arm]:
    """Reads the trainings of arms, runs by the name of the arm; an arm in which nothing takes a step is left out."""
    arms = []
    for name, runs in trained.items():
        phases = [read_trainings(run) for run in runs]
        steady = [Stability.of(of_run) for of_run in phases]
        if any(training.steps for training in steady):
            arms.append(Arm(name, steady, [of_run[-1].validation_loss() for of_run in phases]))
    return arms


def fisher(events: int, n: int, other_events: int, m: int) -> float:
    """Returns the two-sided p of Fisher's exact test: are events as likely among n trials as among m others?

    Given the sum of the events, their number among the n is hypergeometric if nothing differs. p adds up all outcomes
    that are no likelier than the one that was found (Fisher 1934, "Statistical methods for research workers", 5th ed.).

        fisher(3, 4, 1, 4)  # the lady tasting tea with three cups of four right: 0.4857
    """
    total = events + other_events

    def ways(k: int) -> int:
        return math.comb(n, k) * math.comb(m, total - k)

    outcomes = [ways(k) for k in range(max(0, total - m), min(n, total) + 1)]
    return sum(way for way in outcomes if way <= ways(events)) / sum(outcomes)

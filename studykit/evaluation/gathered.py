"""The results of many studies, as notebook 07 publishes them in `gather.json`.

results = read_gathered("runs/gather/over-base-0123456789")
results.main.gathered[0].value, results.main.gathered[0].interval
"""

from __future__ import annotations

from pathlib import Path

from studykit.evaluation.results import Contrast, Direction, Interval
from studykit.evaluation.scores import Published
from studykit.runs import files


class StudyDifference(Published):
    """A difference as one study found it."""

    study: str
    unit: str  # the study's value of the first key in `over`
    value: float
    error: float  # standard error over rows and seeds, that over seeds as all studies together have it
    interval: Interval | None  # over rows and seeds, as the study's own report has it, or over rows


class Unit(Published):
    """The studies with one value of the first key in `over`, as a line of the forest plot."""

    name: str
    studies: int
    value: float  # mean of the studies
    interval: Interval  # by the errors of its studies alone
    weight: float  # in the pooled mean, 0 to 1
    covariate: float | None  # mean of the studies, on the scale of the slope


class Slope(Published):
    """How a difference changes with the covariate."""

    value: float  # per tenfold covariate, or per unit of it
    constant: float  # of the line, at a covariate (or logarithm) of 0
    interval: Interval | None  # None where there are two units
    p: float  # two-sided, of "no slope"; 1 where there is no interval
    p_holm: float = 1.0  # after Holm's correction over the differences


class Gathered(Published):
    """One difference over all studies."""

    method: str
    against: str
    value: float  # the pooled mean, method - against
    interval: Interval | None  # of the mean over all that `over` names; None for a single unit
    prediction: Interval | None  # of the true difference in another unit; None below three
    tau: float  # standard deviation of the true differences between units
    i2: float  # share of the variance between units that is not their own error, 0 to 1
    p: float  # two-sided, of "no difference"; 1 where there is no interval
    p_holm: float = 1.0  # after Holm's correction over the differences
    direction: Direction = "undecided"  # by p_holm
    rows_shared: bool  # whether all units have the same test rows, whose error is then in the interval
    units: list[Unit]
    studies: list[StudyDifference]
    slope: Slope | None


class LevelInteraction(Published):
    """A difference in differences: a difference between two methods at one level of a key, less that at its first."""

    factor: str  # the key
    level: str
    reference: str  # the key's first level
    elsewhere: dict[str, str]  # what the studies have in common of the other keys that vary
    method: str
    against: str
    contrast: Contrast


class GatheredMetric(Published):
    """All differences in one metric."""

    metric: str
    label: str
    unit: str
    gathered: list[Gathered]
    pooled_interactions: list[Gathered] = []  # differences of differences: `method` is "a − b", `against` is "c − d"
    interactions: list[LevelInteraction] = []


class GatheredResults(Published):
    """The content of `gather.json`."""

    over: list[str]
    covariate: str | None  # the name of the scale of slopes, as "log10 parameters"
    confidence: float
    shared_methods: list[str]  # of which several studies have the same trainings, so that their errors are dependent
    metrics: list[GatheredMetric]

    @property
    def main(self) -> GatheredMetric:
        """Returns the differences in the metric by which the studies are judged."""
        return self.metrics[0]


def read_gathered(run: str | Path) -> GatheredResults | None:
    """Reads the `gather.json` of a gather run; returns None for a run without one.

    Raises UserError for one that is damaged or was written by another version.
    """
    file = files.project_path(run) / "gather.json"
    return GatheredResults.parse(file.read_bytes(), file, "07_gather") if file.is_file() else None

"""The results of a comparison, as notebook 06 publishes them in `compare.json`.

results = read_results("runs/compare/lua-0123456789")
contrast = results.main_comparison.contrast("advfusion_zero", "adapterfusion")
contrast.value, contrast.interval, str(contrast.verdict)  # 1.7, Interval(low=0.4, high=3.0), "better"
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from studykit.evaluation.scores import Published
from studykit.runs import files

EffectName = Literal["odds ratio", "conditional odds ratio", "Cliff's delta"]
Direction = Literal["better", "worse", "undecided"]
OPPOSITE: dict[Direction, Direction] = {"better": "worse", "worse": "better", "undecided": "undecided"}


class Interval(Published):
    """The two bounds of a confidence interval."""

    low: float
    high: float

    def includes(self, value: float) -> bool:
        """Returns whether the value lies between the bounds, which are part of the interval."""
        return self.low <= value <= self.high

    def reversed(self) -> Interval:
        """Returns the interval of the same difference, seen from the other side."""
        return Interval(low=-self.high, high=-self.low)


class MethodSummary(Published):
    """One metric of one method: its mean over the seeds and the two uncertainties of it."""

    method: str  # with the phase, where it is not the last one: "advfusion_zero, phase 1"
    final: bool = True  # whether the method is judged by this score
    mean: float  # over the seeds
    sd: float | None  # standard deviation over the seeds; None for one seed
    points: list[float]  # one score per seed
    interval: Interval | None  # over the test rows; None for a single row or cluster
    interval_method: str  # how the interval was computed, see `statistics`
    n: int  # test rows
    clusters: int | None  # groups of dependent rows; None: every row is independent
    components: dict[str, float] = {}  # the parts of CodeBLEU, means over the seeds


class Verdict(Published):
    """What a difference says of other test rows and of other trainings, after Holm's correction."""

    direction: Direction  # of the method against the other one, on other test rows
    seeds_confirm: bool  # whether the direction holds for other trainings too; False for a single seed
    p_holm: float  # over rows: of "no difference between these trainings"
    p_overall: float  # over rows and seeds: of "no difference between trainings like these"; 1 for a single seed
    equivalent_within: float | None  # the margin that the true difference is shown to lie within; None: not shown

    @property
    def is_decided(self) -> bool:
        """Returns whether the rows decide between the two methods."""
        return self.direction != "undecided"

    def __str__(self) -> str:
        equivalent = "" if self.equivalent_within is None else f"equivalent within {self.equivalent_within:g}"
        if not self.is_decided:
            return equivalent or "undecided"
        direction = self.direction if self.seeds_confirm else f"{self.direction} on these seeds only"
        return f"{direction}, {equivalent}" if equivalent else direction

    def reversed(self) -> Verdict:
        """Returns the verdict of the same difference, seen from the other side."""
        return self.model_copy(update={"direction": OPPOSITE[self.direction]})


class Contrast(Published):
    """The difference between two methods in one metric: the score of `method` minus that of `against`."""

    method: str
    against: str
    value: float
    interval: Interval | None  # over the test rows; None for a single row or cluster
    overall_interval: Interval | None  # over rows and seeds; None below two seeds, rows or clusters
    n: int  # test rows, the same on both sides
    clusters: int | None  # groups of dependent rows; None: every row is independent
    p: float  # two-sided, over the test rows, of "no difference"
    test: Literal["paired bootstrap", "sign flips, exact", "McNemar, exact"]  # behind p
    p_overall: float  # over rows and seeds, see `student`; 1 below two seeds
    p_equivalent: float | None  # of "the true difference is the margin or more"; None without a margin
    effect: float  # the size of the difference, see `effect_name`
    effect_name: EffectName
    discordant: tuple[int, int] | None  # rows that only the one and only the other passes, where McNemar's test is used
    error: float | None  # standard error over the rows; None for a single row or cluster
    detectable: float | None  # a true difference between these trainings that 80 % of such sets of rows would reveal
    detectable_overall: float | None  # a true difference between trainings that 80 % of such studies would reveal
    by_seed: list[float]  # differences by the seeds that both have; empty where they have none in common
    verdict: Verdict

    def reversed(self) -> Contrast:
        """Returns the same difference, seen from the other side."""
        changes = {
            "method": self.against,
            "against": self.method,
            "value": -self.value,
            "interval": self.interval and self.interval.reversed(),
            "overall_interval": self.overall_interval and self.overall_interval.reversed(),
            "effect": -self.effect if self.effect_name == "Cliff's delta" else 1 / self.effect,
            "discordant": self.discordant and self.discordant[::-1],
            "by_seed": [-difference for difference in self.by_seed],
            "verdict": self.verdict.reversed(),
        }
        return self.model_copy(update=changes)


class MetricComparison(Published):
    """All methods compared by one metric on the test rows of one language."""

    metric: str  # the key of `scores`, as "pass_at_1"
    label: str  # the name in tables, as "pass@1"
    unit: str  # "%", "points" or "nats per token"
    baseline: str  # the method that all others are compared with
    language: str
    signature: str  # the variant of the metric
    confidence: float  # of the intervals, as 0.95
    margin: float | None  # a smaller difference does not matter to the reader; None: no such number was given
    summaries: list[MethodSummary]  # a method's earlier phases come before its final score
    contrasts: list[Contrast]  # with the interactions the family of tests over which Holm's correction is taken
    interactions: list[Contrast] = []  # differences of differences: `method` is "a − b", `against` is "c − d"

    def summary(self, method: str) -> MethodSummary:
        """Returns the summary of a method, or of a phase of it ("advfusion_zero, phase 1")."""
        return next(summary for summary in self.summaries if summary.method == method)

    def contrast(self, method: str, against: str) -> Contrast | None:
        """Returns the difference between two methods, whichever way round it was computed; None if it was not."""
        for contrast in self.contrasts:
            if (contrast.method, contrast.against) == (method, against):
                return contrast
            if (contrast.method, contrast.against) == (against, method):
                return contrast.reversed()
        return None

    @property
    def tests(self) -> int:
        """Returns the number of tests over which Holm's correction is taken."""
        return len(self.contrasts) + len(self.interactions)

    @property
    def to_baseline(self) -> list[Contrast]:
        """Returns the differences between each method and the baseline."""
        return [contrast for contrast in self.contrasts if contrast.against == self.baseline]

    @property
    def seeds(self) -> int:
        """Returns the largest number of seeds that a method was trained with."""
        return max(len(summary.points) for summary in self.summaries)


class SourceScores(Published):
    """The scores of a source adapter on the test rows of its own language."""

    language: str
    method: str
    n: int  # test rows
    summaries: dict[str, MethodSummary]  # by metric
    runtime: str | None  # that the programs were run with
    not_executed: str | None  # why there is no pass@k
    left_out: dict[str, int] = {}  # rows without pass@k, by the package that their tests need


class OwnAttention(Published):
    """The share of the fusion weight that the target's own adapter gets in one state of one method."""

    method: str
    phase: str  # the state, as figures name it; the first of a method is the initialisation
    own_weight: float  # mean over the seeds, 0 to 1
    own_share: float  # norm-weighted: its share of what the members add, 0 to 1
    by_seed: list[float]  # `own_weight` seed by seed
    change: float  # of `own_weight` from the initialisation on the same rows, mean over the seeds
    change_sd: float | None  # of the change over the seeds; None for one seed
    change_interval: Interval | None  # of the change over the test rows; None for a single row or group
    samples: int
    tokens: str  # the kind of tokens that were looked at
    empty_slot: bool  # whether the adapter was masked by zero, so that its weight falls on nothing


class MethodCost(Published):
    """The cost of one training of a method, as a mean over its seeds; the base, which is not trained, costs nothing."""

    method: str
    parameters: int  # trained ones
    steps: float | None  # of all phases
    seconds: float | None  # of all phases, wall time
    cpu_seconds: float | None  # of all phases, CPU time
    members_seconds: float | None  # wall time to train the adapters that a fusion needs first
    members_cpu_seconds: float | None  # their CPU time
    memory_mb: float | None  # the highest peak


class StageTime(Published):
    """The wall time of all runs of one stage."""

    stage: str  # or "all"
    runs: int
    seconds: float  # of all runs together
    slowest: float  # seconds of the slowest run
    memory_mb: float  # the highest peak


class ComparisonResults(Published):
    """The content of `compare.json`."""

    main: str  # the metric by which the methods are judged
    metrics: dict[str, MetricComparison]
    sources: list[SourceScores]
    attention: list[OwnAttention]
    cost: list[MethodCost]
    time: list[StageTime]
    left_out: dict[str, int] = {}  # test rows of the target without pass@k, by the package that their tests need

    @property
    def main_comparison(self) -> MetricComparison:
        """Returns the comparison by which the methods are judged."""
        return self.metrics[self.main]

    @property
    def loss_comparison(self) -> MetricComparison | None:
        """Returns the comparison by completion loss, where it was measured besides the main metric."""
        return self.metrics.get("loss") if self.main != "loss" else None

    @property
    def judged_by(self) -> list[MetricComparison]:
        """Returns the main comparison, and that by completion loss where it was measured too."""
        return [one for one in (self.main_comparison, self.loss_comparison) if one]


def read_results(run: str | Path) -> ComparisonResults | None:
    """Reads the `compare.json` of a compare run; returns None for a run without one.

    Raises UserError for one that is damaged or was written by another version.
    """
    file = files.project_path(run) / "compare.json"
    return ComparisonResults.parse(file.read_bytes(), file, "06_compare") if file.is_file() else None

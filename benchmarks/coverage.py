"""How often intervals hold the truth, tests cry wolf, and studies find what is there, on made data of known truth.

    python benchmarks/coverage.py                    # about five minutes on one core
    python benchmarks/coverage.py --quick            # seconds; for the tests
    python benchmarks/coverage.py --output docs      # writes the table into docs/benchmarks.json, too

- An **interval** of 95 % should hold the truth in 95 % of samples, a **test** reject a true "no difference" in 5 %.
  McNemar's test and Wilson's interval are discrete and may be safer than asked. Data are as skewed, sparse and
  clustered as scores of programs are; log-normal rows and sparse rows are more so, to show where the method ends.
- An **error** is a study of several methods, compared by `comparison.compare`, that makes at least one false claim: 5 %
  of studies at most, whether trainings vary more than test rows, as much, or not at all.
- **Power** is the share of studies that find a true difference of the size that they call detectable: 80 %.

Numbers that miss what was asked by more than 2 points are marked, unless the simulation's own error explains it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from studykit.evaluation import comparison, effects, statistics, student
from studykit.evaluation.metrics.bleu import add1_bleu
from studykit.evaluation.metrics.score import token_mean
from studykit.evaluation.results import MetricComparison
from studykit.evaluation.scores import CheckpointScores, EvaluationScores, PredictionCounts, Score, Seconds

RESAMPLES = 1000
Sampler = Callable[[np.random.Generator], bool]  # one experiment: whether the interval held, or the test rejected


def held(found: statistics.Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def wilson(rng: np.random.Generator, n: int, p: float) -> bool:
    return held(statistics.wilson(int(rng.binomial(n, p)), n), p)


def seeds_of_rates(rng: np.random.Generator, n: int) -> bool:
    """Three seeds on each row; rows differ in how hard they are."""
    hard = rng.beta(0.3, 0.7, n)
    return held(statistics.proportion(rng.binomial(3, hard) / 3), 0.3)


def clustered_rates(rng: np.random.Generator, clusters: int, p: float) -> bool:
    """One to seven rows of a problem pass or fail much alike (intraclass correlation 0.5)."""
    labels = np.repeat(np.arange(clusters), rng.integers(1, 8, clusters))
    passed = rng.random(len(labels)) < rng.beta(p, 1 - p, clusters)[labels]
    return held(statistics.proportion(passed.astype(float), labels.tolist()), p)


MEANS = {
    "normal": (lambda rng, n: rng.normal(0, 1, n), 0.0),
    "beta(0.3, 1)": (lambda rng, n: rng.beta(0.3, 1, n), 0.3 / 1.3),
    "exponential": (lambda rng, n: rng.exponential(1, n), 1.0),
    "log-normal": (lambda rng, n: rng.lognormal(0, 1, n), math.exp(0.5)),
    "nine of ten 0": (lambda rng, n: (rng.random(n) < 0.1) * rng.beta(2, 1, n), 0.2 / 3),
}


def mean(rng: np.random.Generator, n: int, shape: str) -> bool:
    draw, truth = MEANS[shape]
    return held(statistics.bootstrap(draw(rng, n), resamples=RESAMPLES, seed=int(rng.integers(2**32))), truth)


def bleu_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Counts (n, 10) of rows of about twenty tokens, from hopeless to perfect, see `metrics.add1_bleu`."""
    reference = np.maximum(5, rng.lognormal(3, 0.6, n).astype(int))
    prediction = np.maximum(4, (reference * rng.lognormal(-0.05, 0.3, n)).astype(int))
    quality, orders = rng.random(n), np.arange(4)
    totals = np.maximum(prediction[:, None] - orders, 0)
    possible = np.minimum(totals, np.maximum(reference[:, None] - orders, 0))
    matches = rng.binomial(possible, quality[:, None] ** (1 + 0.5 * orders))
    return np.column_stack([matches, totals, prediction, reference]).astype(float)


def corpus_bleu(rng: np.random.Generator, n: int, truth: float) -> bool:
    return held(statistics.bootstrap(bleu_rows(rng, n), add1_bleu, resamples=RESAMPLES), truth)


def loss(rng: np.random.Generator, n: int) -> bool:
    """Nats per token; rows differ in length and in difficulty."""
    tokens = np.maximum(3, rng.lognormal(3.5, 0.7, n).astype(int))
    rows = np.column_stack([tokens * rng.gamma(2, 0.5, n), tokens])
    return held(statistics.bootstrap(rows, token_mean, resamples=RESAMPLES), 1.0)


def clustered_mean(rng: np.random.Generator, clusters: int) -> bool:
    labels = np.repeat(np.arange(clusters), rng.integers(1, 8, clusters))
    values = rng.normal(0, 1, clusters)[labels] + rng.normal(0, 1, len(labels))
    return held(statistics.bootstrap(values, clusters=labels.tolist(), resamples=RESAMPLES), 0.0)


def paired(rng: np.random.Generator, n: int, clusters: bool = False) -> statistics.Difference:
    """Two systems of one quality on rows of shared difficulty, or on clusters of one to seven rows."""
    labels = np.repeat(np.arange(n), rng.integers(1, 8, n) if clusters else 1)
    hard, each = rng.normal(0, 3, n)[labels], rng.normal(0, 1, (2, n))[:, labels] * clusters
    a, b = hard + each + rng.normal(0, 1, (2, len(labels)))
    return statistics.paired_bootstrap(a, b, clusters=labels.tolist(), resamples=RESAMPLES)


def paired_passes(rng: np.random.Generator, n: int, apart: float) -> np.ndarray:
    """Passed or not (2, n): a share `apart` of rows is passed by one system alone, as often by either."""
    kind = rng.choice(4, n, p=[apart / 2, apart / 2, 0.3, 0.7 - apart])
    return np.isin([kind, kind], (0, 2)) * [[1], [0]] + np.isin([kind, kind], (1, 2)) * [[0], [1]]


def passes_difference(rng: np.random.Generator, n: int, apart: float) -> bool:
    a, b = paired_passes(rng, n, apart)
    return held(statistics.paired_bootstrap(a, b, resamples=RESAMPLES), 0.0)


def mcnemar(rng: np.random.Generator, n: int, apart: float) -> bool:
    return effects.mcnemar(*effects.discordant(*paired_passes(rng, n, apart))) < 0.05


def over_seeds(rng: np.random.Generator, n: int) -> bool:
    """Student's t interval over seeds alone."""
    differences = rng.normal(0, 1, n)
    return abs(differences.mean()) <= student.half_width([student.over_seeds(differences)], 0.05)


@dataclass(frozen=True)
class Made:
    """A study whose methods have scores of one quality, except that the second one is better by `shift`."""

    methods: int = 8
    seeds: int = 3
    rows: int = 250
    groups: int | None = None  # of rows that are alike; None: each row is a group
    by_seed: float = 0.0  # deviation of a training from its method's mean
    by_row: float = 1.0  # deviation of a method on a group of rows
    by_both: float = 1.0  # deviation of a training on a row
    passes: bool = False  # whether rows pass or fail instead of having a score
    shift: float = 0.0
    margin: float | None = None
    resamples: int = 1600  # few, for speed: the p of a test over rows alone is then coarse, and finds a little less

    def compared(self, rng: np.random.Generator) -> MetricComparison:
        """One such study, drawn and compared."""
        groups = self.groups or self.rows
        of_row = np.arange(self.rows) * groups // self.rows
        hard = rng.normal(0, 3, groups)[of_row]
        study = {}
        for i in range(self.methods):
            method = hard + self.shift * (i == 1) + rng.normal(0, self.by_row, groups)[of_row]
            each = [method + rng.normal(0, self.by_seed) + rng.normal(0, self.by_both, self.rows)
                    for _ in range(self.seeds)]  # fmt: skip
            values = [100.0 * (one > 0) if self.passes else one for one in each]
            study[f"m{i}"] = published(f"m{i}", values, of_row.tolist(), "pass_at_1" if self.passes else "chrf")
        metric = "pass_at_1" if self.passes else "chrf"
        pairs = [(name, "m0") for name in study if name != "m0"]
        return comparison.compare(study, metric, "m0", 0.95, self.resamples, margin=self.margin, pairs=pairs)

    @property
    def alike(self) -> float:
        """The deviation of trainings at which they weigh as much as rows."""
        return self.by_row * math.sqrt(self.seeds / (self.groups or self.rows))

    @property
    def errors(self) -> list[student.StandardError]:
        """The true standard errors of a difference, over groups of rows and over seeds, where `by_both` is 0."""
        groups = self.groups or self.rows
        return [student.StandardError(self.by_row * math.sqrt(2 / groups), groups - 1),
                student.StandardError(self.by_seed * math.sqrt(2 / self.seeds), self.seeds - 1)]  # fmt: skip


def published(method: str, by_seed: list[np.ndarray], groups: list[int], metric: str) -> EvaluationScores:
    """The scores of a method as an evaluation publishes them."""
    n = len(groups)
    counts, seconds = PredictionCounts(n=n, empty=0, truncated=0, checked=0), Seconds(generation=0, scoring=0)
    checkpoints = [
        CheckpointScores(
            name="trained", seed=seed, run=None, phase=None, file_stem="", folded=False, batches=None, seconds=seconds,
            scores={metric: Score(label=metric, value=float(values.mean()), n=n, per_example=values.tolist())},
            counts=counts, execution=None, settings={},
        )
        for seed, values in enumerate(by_seed)
    ]  # fmt: skip
    return EvaluationScores(
        method=method, language="lua", ids=list(map(str, range(n))), groups=list(map(str, groups)), isolation=None,
        not_executed=None, checkpoints=checkpoints,
    )  # fmt: skip


def claims_more(rng: np.random.Generator, made: Made) -> bool:
    """Whether a study in which nothing differs calls any method better or worse without qualification."""
    return any(contrast.verdict.seeds_confirm for contrast in made.compared(rng).contrasts)


def claims_here(rng: np.random.Generator, made: Made) -> bool:
    """Whether a study calls any method better or worse at all, on these seeds or others."""
    return any(contrast.verdict.is_decided for contrast in made.compared(rng).contrasts)


def claims_equivalence(rng: np.random.Generator, made: Made) -> bool:
    return any(contrast.verdict.equivalent_within for contrast in made.compared(rng).contrasts)


def finds(rng: np.random.Generator, made: Made, on_these_seeds: bool) -> bool:
    """Whether the study finds that its second method is better."""
    verdict = made.compared(rng).contrasts[0].verdict
    return verdict.direction == "better" and (on_these_seeds or verdict.seeds_confirm)


def study_cases() -> list[tuple[str, str, int, float, Sampler]]:
    """Errors and power of whole studies; n counts seeds."""
    plain, few = Made(), Made(groups=10)
    alike, ten = replace(plain, by_seed=plain.alike), Made(methods=2, seeds=10)
    unqualified = {
        "7 differences, trainings vary most": replace(plain, by_seed=0.5),
        "7 differences, rows and trainings alike": alike,
        "7 differences, equal trainings": plain,
        "1 difference, rows and trainings alike": replace(ten, by_seed=ten.alike),
        "7 differences, 10 groups of rows": replace(few, by_seed=few.alike),
        "7 differences of pass rates": Made(passes=True, by_seed=0.2),
    }
    found = [(what, "error", made.seeds, 0.2, partial(claims_more, made=made)) for what, made in unqualified.items()]
    of_these = {"on these seeds, 7 differences": plain, "on these seeds, 10 groups of rows": few}
    found += [(what, "error", made.seeds, 0.2, partial(claims_here, made=made)) for what, made in of_these.items()]
    for seeds in (3, 10):
        made = Made(methods=2, seeds=seeds, by_both=0)
        made = replace(made, by_seed=made.alike)
        margin = 2 * student.detectable(made.errors, 0.05)
        made = replace(made, shift=margin, margin=margin)
        found.append(("equivalence, at the margin", "error", seeds, 0.4, partial(claims_equivalence, made=made)))
    made = Made(by_both=0)
    made = replace(made, shift=student.detectable(made.errors[:1], 0.05 / 7))
    found.append(("detectable on these seeds", "power", 3, 0.2, partial(finds, made=made, on_these_seeds=True)))
    for seeds in (3, 5, 10):
        made = Made(seeds=seeds, by_both=0)
        made = replace(made, by_seed=made.alike)
        made = replace(made, shift=student.detectable(made.errors, 0.05 / 7))
        found.append(("detectable for any seeds", "power", seeds, 0.2, partial(finds, made=made, on_these_seeds=False)))
    return found


def cases() -> list[tuple[str, str, int, float, Sampler]]:
    """(what, kind, n, simulations as a share, experiment): n counts clusters where there are some."""
    found = [("Wilson, p " + str(p), "interval", n, 2.0, partial(wilson, n=n, p=p))
             for n in (50, 100, 500) for p in (0.05, 0.3, 0.5, 0.95)]  # fmt: skip
    truth = float(add1_bleu(bleu_rows(np.random.default_rng(0), 300_000).sum(axis=0)))
    for n in (30, 50, 200):
        found += [(f"mean, {shape}", "interval", n, 1.0, partial(mean, n=n, shape=shape)) for shape in MEANS]
        found += [("corpus BLEU", "interval", n, 1.0, partial(corpus_bleu, n=n, truth=truth)),
                  ("loss per token", "interval", n, 1.0, partial(loss, n=n)),
                  ("pass rate over 3 seeds", "interval", n, 1.0, partial(seeds_of_rates, n=n)),
                  ("clustered pass rate, p 0.3", "interval", n, 1.0, partial(clustered_rates, clusters=n, p=0.3)),
                  ("clustered pass rate, p 0.05", "interval", n, 1.0, partial(clustered_rates, clusters=n, p=0.05)),
                  ("clustered mean", "interval", n, 1.0, partial(clustered_mean, clusters=n)),
                  ("paired difference", "interval", n, 1.0, lambda rng, n=n: held(paired(rng, n), 0.0)),
                  ("paired difference of pass rates", "interval", n, 1.0, partial(passes_difference, n=n, apart=0.2)),
                  ("paired bootstrap test", "test", n, 1.0, lambda rng, n=n: paired(rng, n).p < 0.05),
                  ("clustered paired test", "test", n, 1.0, lambda rng, n=n: paired(rng, n, True).p < 0.05),
                  ("McNemar's test", "test", n, 1.0, partial(mcnemar, n=n, apart=0.2))]  # fmt: skip
    for n in (3, 5):
        found.append(("t over seeds", "interval", n, 1.0, partial(over_seeds, n=n)))
    return found + study_cases()


def measure(simulations: int, seed: int = 0) -> list[dict]:
    """A row per case: what, kind, n, simulations, and the share of intervals that held or of tests that rejected."""
    rows = []
    for index, (what, kind, n, share, experiment) in enumerate(cases()):
        rng, count = np.random.default_rng([seed, index]), round(simulations * share)
        rate = round(float(sum(experiment(rng) for _ in range(count)) / count), 3)
        rows.append({"what": what, "kind": kind, "n": n, "simulations": count, "share": rate})
    return rows


ASKED = {"interval": 0.95, "test": 0.05, "error": 0.05, "power": 0.8}


def beyond(row: dict) -> bool:
    """Whether a share misses what was asked by more than 2 points and by more than chance (2 standard errors)."""
    asked = ASKED[row["kind"]]
    missed = row["share"] - asked if row["kind"] == "error" else abs(row["share"] - asked)  # fewer errors are welcome
    return bool(missed > 0.02 + 2 * math.sqrt(asked * (1 - asked) / row["simulations"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few simulations")
    parser.add_argument("--output", type=Path, help="directory of benchmarks.json, where the table is written, too")
    args = parser.parse_args()
    rows = measure(100 if args.quick else 2500)
    print(f"{'':40} {'':8} {'n':>4} {'simulations':>12} {'share':>7}")
    for row in rows:
        numbers = f"{row['n']:4} {row['simulations']:12} {row['share']:7.1%}"
        print(f"{row['what']:40} {row['kind']:8} {numbers}{' !' * beyond(row)}")
    if args.output:
        file = args.output / "benchmarks.json"
        content = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(content | {"coverage": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

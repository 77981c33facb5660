"""How often intervals hold the truth, and how often tests cry wolf, on made data whose truth is known.

    python benchmarks/coverage.py                    # about two minutes on one core
    python benchmarks/coverage.py --quick            # seconds; for the tests
    python benchmarks/coverage.py --output docs      # writes the table into docs/benchmarks.json, too

A 95 % interval should hold the truth in 95 % of samples, a test reject a true "no difference" in 5 %. Numbers outside
93 to 97 % (3 to 7 %) are marked, unless the simulation's own error explains it. McNemar's test and Wilson's interval
are discrete and may be safer than asked. Data are as skewed, sparse and clustered as scores of programs are; log-normal
rows and sparse rows are more so, to show where the method ends.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from studykit.evaluation import effects, statistics
from studykit.evaluation.metrics.bleu import add1_bleu
from studykit.evaluation.metrics.score import token_mean

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
        found.append(("t over seeds", "interval", n, 1.0,
                      lambda rng, n=n: held(statistics.across_seeds(rng.normal(0, 1, n)), 0.0)))  # fmt: skip
    return found


def measure(simulations: int, seed: int = 0) -> list[dict]:
    """A row per case: what, kind, n, simulations, and the share of intervals that held or of tests that rejected."""
    rows = []
    for index, (what, kind, n, share, experiment) in enumerate(cases()):
        rng, count = np.random.default_rng([seed, index]), round(simulations * share)
        rate = sum(experiment(rng) for _ in range(count)) / count
        rows.append({"what": what, "kind": kind, "n": n, "simulations": count, "share": rate})
    return rows


def beyond(row: dict) -> bool:
    """Whether a share misses what was asked by more than 2 points and by more than chance (2 standard errors)."""
    asked = 0.95 if row["kind"] == "interval" else 0.05
    return abs(row["share"] - asked) > 0.02 + 2 * math.sqrt(0.95 * 0.05 / row["simulations"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few simulations")
    parser.add_argument("--output", type=Path, help="directory of benchmarks.json, where the table is written, too")
    args = parser.parse_args()
    rows = measure(100 if args.quick else 2500)
    print(f"{'':34} {'n':>4} {'simulations':>12} {'held or rejected':>17}")
    for row in rows:
        print(f"{row['what']:34} {row['n']:4} {row['simulations']:12} {row['share']:16.1%}{' !' * beyond(row)}")
    if args.output:
        file = args.output / "benchmarks.json"
        content = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(content | {"coverage": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

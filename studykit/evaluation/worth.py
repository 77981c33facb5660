"""Worth: what each member of a fusion is worth to the result, beside the weight that the fusion gives it.

The worth of a member is the completion loss without it minus the loss with it, in nats per token on the same test rows:
above 0, the member helps. It has an interval over the rows (paired, groups of dependent rows resampled whole) and one
over the seeds. The rank correlation tells whether the weight, or the norm-weighted share, predicts the worth.

    worth = read_worth("runs/fusion_attention/lua-adapterfusion-.../worth.json")
    [(row.member, row.value, row.weight) for row in worth.members if row.mode == "exclude"]

The functions take arrays; `attention.muting` and `attention.record` measure them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studykit.evaluation.results import Interval
from studykit.evaluation.scores import Published
from studykit.evaluation.statistics import mean_sd, paired_bootstrap
from studykit.evaluation.student import half_width, over_seeds
from studykit.runs import files

LEAST_TOKENS = 20  # a kind with fewer tokens says next to nothing of a member's worth


class MemberWorth(Published):
    """What one member is worth to a fusion in one state, and the weight that it has there."""

    member: str
    state: str  # as figures name it
    mode: str  # how it was muted: "exclude" or "zero"
    value: float  # loss without the member minus loss with it, nats per token, mean over the seeds
    interval: Interval | None  # of it over the test rows; None for a single row or group
    by_seed: list[float]
    seed_interval: Interval | None  # Student's t interval over the seeds; None below two seeds
    weight: float  # mean weight over layers and completion tokens, mean over the seeds
    share: float  # norm-weighted share, likewise


class WorthCorrelation(Published):
    """How well one measure of attention predicts what members are worth, by Spearman's rank correlation."""

    state: str
    measure: str  # "weight" or "norm-weighted share"
    over: str  # what the points are
    points: int
    by_seed: list[float]  # correlation of each seed; empty where it is not defined (equal values)
    mean: float | None
    sd: float | None  # over the seeds


class Worth(Published):
    """The content of `worth.json`: the worth of all members of one method's fusions."""

    method: str
    target: str
    samples: int  # test rows
    seeds: int
    members: list[MemberWorth]
    correlations: list[WorthCorrelation]

    @property
    def finished(self) -> list[MemberWorth]:
        """Returns the members of the finished fusion, excluded from the softmax in turn; [] if it has only one."""
        return [row for row in self.members if row.state == self.members[-1].state and row.mode == "exclude"]


@dataclass(frozen=True)
class MutedState:
    """One state of a method's fusions as it was measured, with each of A members muted: R seeds, S rows, K kinds."""

    state: str  # as figures name it
    members: list[str]  # A names
    tokens: np.ndarray  # (S, K), numbers of completion tokens by kind
    nats: np.ndarray  # (R, S, K), losses with all members, summed over the tokens
    muted: dict[str, np.ndarray]  # mode -> (R, A, S, K), losses without each member
    by_layer: np.ndarray  # (R, L, A, S, K), losses without a member in one layer; L = 0: not measured
    weights: np.ndarray  # (R, K, L, A), mean weights at the tokens of a kind; NaN where there are none
    shares: np.ndarray  # (R, K, L, A), norm-weighted shares, likewise


def method_worth(
    method: str,
    target: str,
    states: Sequence[MutedState],
    groups: Sequence[str | None] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Worth:
    """Returns the worth of all members of one method's fusions in each of the states.

    Args:
        groups: group of each row; None: every row is independent.
    """
    members, correlations = [], []
    for one in states:
        members += _state_worth(one, groups, confidence, resamples)
        correlations += _state_correlations(one)
    samples, seeds = len(states[0].tokens), len(states[0].nats)
    return Worth(method=method, target=target, samples=samples, seeds=seeds, members=members, correlations=correlations)


def _state_worth(one: MutedState, groups: Sequence[str | None] | None, confidence: float, resamples: int) -> list:
    tokens, nats = one.tokens.sum(1), one.nats.sum(-1)  # (S,), (R, S)
    counts = one.tokens.sum(0)[:, None, None]  # (K, 1, 1)
    means = [
        np.nansum(of * counts, axis=1).sum((0, 1)) / counts.sum() / of.shape[0] / of.shape[2]
        for of in (one.weights, one.shares)
    ]  # (A,) each
    rows = []
    for mode, losses in one.muted.items():
        for n, member in enumerate(one.members):
            without = losses[:, n].sum(-1)  # (R, S)
            if np.isnan(without).any():  # the only member cannot leave the softmax
                continue
            by_seed = (without - nats).sum(1) / tokens.sum()
            over_rows = paired_bootstrap(
                np.stack([without.mean(0), tokens], axis=1),
                np.stack([nats.mean(0), tokens], axis=1),
                lambda sums: sums[..., 0] / sums[..., 1],
                clusters=groups,
                confidence=confidence,
                resamples=resamples,
            )
            half = half_width([over_seeds(by_seed.tolist())], 1 - confidence) if len(by_seed) > 1 else np.nan
            row = MemberWorth(
                member=member,
                state=one.state,
                mode=mode,
                value=float(by_seed.mean()),
                interval=_interval(over_rows.low, over_rows.high),
                by_seed=by_seed.tolist(),
                seed_interval=_interval(by_seed.mean() - half, by_seed.mean() + half),
                weight=float(means[0][n]),
                share=float(means[1][n]),
            )
            rows.append(row)
    return rows


def _state_correlations(one: MutedState) -> list[WorthCorrelation]:
    """Returns the correlations over members x kinds of token, and over members x layers x kinds where measured."""
    kinds = one.tokens.sum(0) >= LEAST_TOKENS  # (K,)
    tokens, nats = one.tokens.sum(0)[kinds], one.nats.sum(1)[..., kinds]  # (k,), (R, k)
    seeds, found = len(nats), []
    for measure, values in (("weight", one.weights), ("norm-weighted share", one.shares)):
        attention = values[:, kinds]  # (R, k, L, A)
        worth = (one.muted["exclude"].sum(2)[..., kinds] - nats[:, None]) / tokens  # (R, A, k)
        points = {"members x kinds of token": (worth, attention.mean(2).transpose(0, 2, 1))}
        if one.by_layer.shape[1]:
            worth = (one.by_layer.sum(3)[..., kinds] - nats[:, None, None]) / tokens  # (R, L, A, k)
            points["members x layers x kinds of token"] = (worth, attention.transpose(0, 2, 3, 1))
        for over, (worth, weights) in points.items():
            pairs = zip(worth.reshape(seeds, -1), weights.reshape(seeds, -1), strict=True)
            by_seed = [value for a, b in pairs if not np.isnan(value := rank_correlation(a, b))]
            mean, sd = mean_sd(by_seed) if by_seed else (np.nan, np.nan)
            row = WorthCorrelation(
                state=one.state,
                measure=measure,
                over=over,
                points=worth[0].size,
                by_seed=by_seed,
                mean=None if np.isnan(mean) else mean,
                sd=None if np.isnan(sd) else sd,
            )
            found.append(row)
    return found


def rank_correlation(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Returns Spearman's rank correlation of two sequences; NaN if one is NaN somewhere or has equal values only.

    Equal values have their mean rank.

    rank_correlation([1, 2, 3], [10, 20, 15])  # 0.5
    """
    both = np.round(np.asarray([a, b], dtype=float), 9)  # values that differ by rounding are equal
    if np.isnan(both).any():
        return np.nan
    first, second = (values - values.mean() for values in map(ranks, both))
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else np.nan


def ranks(values: np.ndarray) -> np.ndarray:
    """Returns the ranks of values (n,), from 1; equal values have their mean rank."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[at]


def _interval(low: float, high: float) -> Interval | None:
    return None if np.isnan(low) else Interval(low=low, high=high)


def read_worth(file: str | Path) -> Worth | None:
    """Reads a `worth.json`; returns None where members were not muted."""
    path = files.project_path(file)
    return Worth.parse(path.read_bytes(), path, "05_fusion_attention") if path.is_file() else None

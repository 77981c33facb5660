"""Preferences: what people's ratings of pairs say of the methods.

**Strengths.** The model of Bradley and Terry (1952, "Rank analysis of incomplete block designs") gives each method a
strength s and says that method i is preferred to method j with the probability

    p_ij = 1 / (1 + exp(s_j - s_i)).

A tie is half a win of each. The strengths maximise the likelihood. With few ratings it may have no maximum (a method
that always wins, methods that never meet), so each method gets one tie more, with an imagined method of strength 0. A
reader sees no strengths but the **share**, the mean of p_ij over all other methods in percent: 50 % is the middle.

**Intervals** resample clusters of dependent rows, with all ratings of them, and also the raters where there are several
(Owen 2007, "The pigeonhole bootstrap"), one fewer than there are (Rao and Wu 1988, "Resampling inference with complex
survey data"); the percentiles are expanded as in `statistics`. A method that always wins wins
in every resample, too, which would make its interval a point. So the imagined tie becomes a win and a loss there, each
of which is drawn as often as a row is: 0, 1, 2 or more times. Of nothing but wins, the interval ends near 100 %.
Trainings are not resampled: the shares are those of these seeds.

**Agreement** is Krippendorff's alpha of nominal data: 1 where raters always agree, 0 where they agree as by chance.

    found = measure(judgements, baseline="adapterfusion", confidence=0.95, resamples=2000)
    [(row.method, row.share, row.interval) for row in found.methods]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from studykit.evaluation import statistics
from studykit.evaluation.contrasts import interval
from studykit.evaluation.ratings import Judgements, Ratings, collect, read_ratings
from studykit.evaluation.results import Direction, Interval
from studykit.evaluation.scores import EvaluationScores, Published
from studykit.runs import files

MADE = 0.02  # what is left in a resample of an imagined win or loss that was not drawn: strengths stay finite
MADE_TIE = 0.5  # wins, and as many losses, of each method against an imagined one of strength 0
STEPS = 100  # of Newton's method, at most
CHUNK = 500  # resamples at a time


class MethodPreference(Published):
    """How often one method is preferred to the others."""

    method: str
    strength: float  # natural logarithm of the odds, mean 0 over the methods
    share: float  # percent of comparisons with another method that it wins, by the model; a tie is half a win
    interval: Interval | None  # of the share; None for a single cluster of rows
    judgements: int  # of pairs with this method


class Preferred(Published):
    """How often a method is preferred to the baseline."""

    method: str
    share: float  # percent, by the model
    interval: Interval | None
    p_holm: float  # of "50 %", after Holm's correction over all methods
    verdict: Direction


class Tally(Published):
    """How the judgements of two methods were divided."""

    method: str
    against: str
    wins: int
    ties: int  # with those of equal texts
    losses: int
    alike: int  # ties that nobody saw, since both texts are the same


class Rater(Published):
    """The answers of one rater."""

    rater: str
    pairs: int  # seen, without repeated ones
    ties: int  # among them
    repeated: int
    consistent: int  # of the repeated pairs: the same choice both times
    left: float | None  # percent of choices of the left text, ties left aside; None: there are only ties
    seconds: float  # median per pair


class Preferences(Published):
    """The content of `preferences.json`."""

    baseline: str
    confidence: float
    methods: list[MethodPreference]
    contrasts: list[Preferred]  # with the baseline, if it was rated
    tallies: list[Tally]
    raters: list[Rater]
    shown: int  # different pairs that were seen
    clusters: int  # of dependent rows
    alpha: float | None  # Krippendorff's; None for one rater, or where all choices are equal
    shared: int  # pairs that several raters answered
    connected: bool  # whether every two methods met, or met others that did, and so on
    outdated: int  # pairs that do not count, since a method writes another text today


def measure_ratings(
    folder: str | None,
    scores: Mapping[str, EvaluationScores],
    evaluations: Mapping[str, str],
    baseline: str,
    confidence: float,
    resamples: int,
) -> Preferences | None:
    """Returns what the ratings in a folder say; None without any that counts."""
    ratings = read_ratings(folder) if folder else []
    if not ratings:
        return None
    judgements = collect(ratings, scores, evaluations)
    return measure(judgements, ratings, baseline, confidence, resamples) if len(judgements.worth) else None


def read_preferences(run: str | Path) -> Preferences | None:
    """Reads the preferences that notebook 06 published; None where it had no ratings."""
    file = files.project_path(run) / "preferences.json"
    return Preferences.parse(file.read_bytes(), file, "06_compare") if file.is_file() else None


def measure(
    judged: Judgements, ratings: Sequence[Ratings], baseline: str, confidence: float, resamples: int, seed: int = 0
) -> Preferences:
    """Returns strengths, intervals, verdicts against the baseline, and agreement.

    Args:
        judged: at least one judgement.
        ratings: those behind it, for each rater's habits.
        seed: of the bootstrap.
    """
    names = judged.methods
    counts = _counts(judged)  # (C, R, M, M)
    strengths = bradley_terry(counts.sum((0, 1)))
    draws = _resampled(counts, resamples, seed)  # (B, M)
    m = len(counts)
    shares, low, high = win_shares(strengths), *statistics.percentiles(win_shares(draws), confidence, m)
    involved = np.bincount(np.concatenate([judged.first, judged.second]), minlength=len(names))
    contrasts: list[Preferred] = []
    if baseline in names:
        contrasts = _against(names.index(baseline), names, strengths, draws, confidence, m)
    answered = list(judged.units.values())
    return Preferences(
        baseline=baseline,
        confidence=confidence,
        methods=[
            MethodPreference(
                method=name,
                strength=float(strengths[n]),
                share=float(shares[n]),
                interval=interval(float(low[n]), float(high[n])),
                judgements=int(involved[n]),
            )
            for n, name in enumerate(names)
        ],
        contrasts=contrasts,
        tallies=_tallies(judged),
        raters=[_habits(rater, [one for one in ratings if one.rater == rater], judged) for rater in judged.raters],
        shown=len(answered),
        clusters=m,
        alpha=krippendorff([list(unit.values()) for unit in answered]) if len(judged.raters) > 1 else None,
        shared=sum(len(unit) > 1 for unit in answered),
        connected=_is_connected(counts.sum((0, 1))),
        outdated=judged.outdated,
    )


def bradley_terry(wins: np.ndarray, made: np.ndarray | float = MADE_TIE) -> np.ndarray:
    """Returns the strengths (..., M) of M methods, with mean 0, from their wins against each other.

    Newton's method on the log likelihood, which the comparisons with an imagined method make strictly concave. No step
    of it is longer than 2, so that it also arrives from far away.

        bradley_terry(np.array([[0, 3], [1, 0]]))  # [0.41, -0.41]

    Args:
        wins: (..., M, M), how often the method of the row was preferred to that of the column; half for a tie.
        made: (..., M, 2), wins and losses of each method against an imagined method of strength 0; above 0.
    """
    m = wins.shape[-1]
    made = np.broadcast_to(made, (*wins.shape[:-1], 2))
    meetings = wins + np.swapaxes(wins, -1, -2)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(STEPS):
        expected, of_made = probabilities(strengths), 1 / (1 + np.exp(-strengths))
        slope = (wins - meetings * expected).sum(-1) + made[..., 0] - made.sum(-1) * of_made  # (..., M)
        weights = meetings * expected * (1 - expected)
        curvature = (weights.sum(-1) + made.sum(-1) * of_made * (1 - of_made))[..., None] * np.eye(m) - weights
        step = np.clip(np.linalg.solve(curvature, slope[..., None])[..., 0], -2, 2)
        strengths = strengths + step
        if np.abs(step).max(initial=0) < 1e-8:
            break
    return strengths - strengths.mean(-1, keepdims=True)


def probabilities(strengths: np.ndarray) -> np.ndarray:
    """Returns the probability (..., M, M) that the method of the row is preferred to that of the column."""
    return 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))


def win_shares(strengths: np.ndarray) -> np.ndarray:
    """Returns the mean probability (..., M) of being preferred to another method, in percent."""
    m = strengths.shape[-1]
    return 100 * (probabilities(strengths).sum(-1) - 0.5) / max(m - 1, 1)


def krippendorff(units: Sequence[Sequence[str]]) -> float | None:
    """Returns Krippendorff's alpha of nominal data: 1 minus the observed disagreement over that expected by chance.

    In the matrix of coincidences each pair of values of one unit counts 1 / (values of the unit - 1); chance pairs any
    two values of the whole (Krippendorff 2011, "Computing Krippendorff's alpha-reliability"). Units with one value do
    not count.

        krippendorff([["a", "a"], ["a", "b"], ["b", "b"]])  # 0.444

    units: the values that raters gave to each unit, without those that are missing.

    Returns None where no two values can disagree.
    """
    paired = [list(unit) for unit in units if len(unit) > 1]
    totals = Counter(value for unit in paired for value in unit)
    n = sum(totals.values())
    expected = n * n - sum(count * count for count in totals.values())  # ordered pairs of different values
    if not expected:
        return None
    observed = sum(
        (len(unit) ** 2 - sum(count * count for count in Counter(unit).values())) / (len(unit) - 1) for unit in paired
    )
    return 1 - (n - 1) * observed / expected


def _counts(judged: Judgements) -> np.ndarray:
    """Returns the wins (C, R, M, M) of methods by cluster of rows that were judged, and by rater."""
    m = len(judged.methods)
    clusters, cluster = np.unique(judged.cluster, return_inverse=True)
    counts = np.zeros((len(clusters), len(judged.raters), m, m))
    np.add.at(counts, (cluster, judged.rater, judged.first, judged.second), judged.worth)
    np.add.at(counts, (cluster, judged.rater, judged.second, judged.first), 1 - judged.worth)
    return counts


def _resampled(counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Returns strengths (resamples, M), each of clusters and raters drawn with replacement."""
    clusters, raters, m, _ = counts.shape
    rng, flat, draws = np.random.default_rng(seed), counts.reshape(clusters, raters, m * m), []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        of_rows = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size).astype(float)
        drawn = max(raters - 1, 1)  # one fewer, or their variance would be too small (Rao and Wu 1988)
        of_raters = rng.multinomial(drawn, np.full(raters, 1 / raters), size) * (raters / drawn)
        by_rater = np.tensordot(of_rows, flat, axes=1)  # (size, R, M M)
        wins = np.einsum("br,brk->bk", of_raters, by_rater)
        made = MADE + rng.poisson(1.0, (size, m, 2))
        draws.append(bradley_terry(wins.reshape(size, m, m), made))
    return np.concatenate(draws)


def _against(
    at: int, names: Sequence[str], strengths: np.ndarray, draws: np.ndarray, confidence: float, m: int
) -> list[Preferred]:
    """Returns how often each other method is preferred to the one at an index."""
    values, drawn = strengths - strengths[at], draws - draws[:, at : at + 1]
    extreme = (np.abs(drawn - drawn.mean(0)) >= np.abs(values) - statistics.TIE).sum(0)
    rest = [n for n in range(len(names)) if n != at]
    corrected = statistics.holm([statistics.widened(float((extreme[n] + 1) / (len(draws) + 1)), m) for n in rest])
    shares, ends = (100 / (1 + np.exp(-x)) for x in (values, statistics.percentiles(drawn, confidence, m)))
    found = []
    for n, p in zip(rest, corrected, strict=True):
        bounds = interval(float(ends[0][n]), float(ends[1][n]))
        verdict: Direction = "undecided"
        if p < 1 - confidence and bounds and not bounds.includes(50):
            verdict = "better" if shares[n] > 50 else "worse"
        found.append(Preferred(method=names[n], share=float(shares[n]), interval=bounds, p_holm=p, verdict=verdict))
    return found


def _is_connected(wins: np.ndarray) -> bool:
    """Returns whether a chain of comparisons leads from the first method to each other one; wins (M, M)."""
    met = wins + wins.T > 0
    reached = np.arange(len(met)) == 0
    for _ in met:
        reached = reached | met[reached].any(0)
    return bool(reached.all())


def _tallies(judged: Judgements) -> list[Tally]:
    """Returns the judgements of every two methods that met."""
    tallies = []
    for a, name in enumerate(judged.methods):
        for b in range(a + 1, len(judged.methods)):
            forth, back = (judged.first == a) & (judged.second == b), (judged.first == b) & (judged.second == a)
            met = forth | back
            worth = np.where(forth, judged.worth, 1 - judged.worth)[met]
            if met.any():
                tallies.append(
                    Tally(
                        method=name,
                        against=judged.methods[b],
                        wins=int((worth == 1).sum()),
                        ties=int((worth == 0.5).sum()),
                        losses=int((worth == 0).sum()),
                        alike=int((~judged.shown[met]).sum()),
                    )
                )
    return tallies


def _habits(rater: str, ratings: Sequence[Ratings], judged: Judgements) -> Rater:
    answers = [answer for one in ratings for answer in one.answers]
    choices = [choice for of_raters in judged.units.values() for name, choice in of_raters.items() if name == rater]
    sides = [answer.choice == answer.left for answer in answers if answer.choice != "tie"]
    again = judged.repeated[rater]
    return Rater(
        rater=rater,
        pairs=len(choices),
        ties=choices.count("tie"),
        repeated=len(again),
        consistent=sum(before == after for before, after in again),
        left=100 * float(np.mean(sides)) if sides else None,
        seconds=float(np.median([answer.seconds for answer in answers])) if answers else 0.0,
    )

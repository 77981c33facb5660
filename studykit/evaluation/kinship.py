"""Does attention find what is alike? Ranks of a study's sources by similarity against ranks by what a fusion did.

Every study of a family has a target and sources. For each source there are similarities to the target (see
`similarity`; `known` where languages are made, `position`, the place in the fusion, which means nothing, and
`cross_entropy`, the loss of its adapter on the target's rows, negated) and **outcomes**: the attention that it gets,
its worth, and that same loss. A measure and an outcome that are the same numbers (`SAME`) are not ranked against each
other. Spearman's rank correlation of the two over the sources is one number per study. A study with five sources says
almost nothing alone (of the 120 orders, only the perfect one and its reverse have p < 0.05), so the mean over the
studies counts:

- its interval is Student's t over the studies;
- its p is that of a permutation test. Where the studies have one target, the sources of each change places (Fisher's
  exact test, by random draws). Where every language is the target once, languages change places in all studies
  together, as in Mantel's test (1967): the cells of a matrix of languages are not independent.

An attention that finds the *better* adapters finds kin too where they are the better ones. So the partial correlation
given the loss of each source's adapter on its own rows stands beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studykit.errors import UserError, show
from studykit.evaluation import similarity, student
from studykit.evaluation.results import Interval
from studykit.evaluation.scores import Published
from studykit.evaluation.worth import rank_correlation, ranks, read_worth
from studykit.runs import files
from studykit.runs.manifest import finished_run
from studykit.study.gather_parameters import OF_TEXTS, GatherParams
from studykit.training.base import load_base
from studykit.training.result import AdapterTrainingResult, TrainingResult

DRAWS = 5000  # of permutations
TRUTH = "known kinship"  # with which every measure of similarity is checked
TRANSFER = "adapter's loss on the target's rows, negated"  # so that more is better
QUALITY = "adapter's loss on its own rows, negated"
SAME = {"known": TRUTH, "cross_entropy": TRANSFER}  # measure -> the outcome that it is itself


@dataclass(frozen=True)
class Sources:
    """The sources of one study: similarities and outcomes, in one order; more is more similar, or better."""

    study: str
    target: str
    names: list[str]
    similarity: dict[str, list[float]]
    outcomes: dict[str, list[float]]


class RankedOutcome(Published):
    """How one measure of similarity and one outcome agree over the sources."""

    measure: str
    outcome: str
    by_study: dict[str, float]  # Spearman's rank correlation; studies without one (equal values) are left out
    mean: float | None
    interval: Interval | None  # over the studies; None below two
    p: float  # of the permutation test
    partial: float | None  # mean correlation given the quality of the sources' adapters
    first: float  # share of the studies in which the most similar source has the largest outcome


class Kinship(Published):
    """The content of `kinship.json`."""

    studies: int
    confidence: float
    matrix: bool  # whether every language is the target of a study, so that languages were permuted together
    missing: list[str]  # measures that not all studies have
    transfer: dict[str, dict[str, float]] = {}  # loss of a source's adapter, by target and source; of a matrix
    ranked: list[RankedOutcome]

    def of(self, measure: str, outcome: str) -> RankedOutcome | None:
        """Returns one pair, or None."""
        return next((one for one in self.ranked if (one.measure, one.outcome) == (measure, outcome)), None)


def sources_of(p: GatherParams, attended: Callable[[str], Mapping[str, Mapping[str, float]]]) -> list[Sources]:
    """Returns the sources of every study, with the similarities that `p.similarity` names.

    Args:
        attended: returns, of a fusion_attention run, measures of attention by name and member.

    Raises UserError for a study without a fusion, and for `known` where languages are not made.
    """
    bases: dict[tuple[str, str | None], Any] = {}
    found = []
    for study, compared in p.compares.items():
        params = finished_run(compared).params
        if not params["fusions"]:
            raise UserError(f"gather.similarity needs a fusion, and the study {show(study)} has none.")
        fusion = next(iter(params["fusions"].values()))[0]
        target, members = finished_run(fusion).params["target"], finished_run(fusion).params["members"]
        names = [name for name in members if name != target]
        similar = _similarities(p, study, names, target, fusion, bases)
        outcomes = _outcomes(params, attended)
        if "known" in similar:
            outcomes[TRUTH] = dict(similar["known"])
        if "cross_entropy" in (p.similarity or ()):
            similar["cross_entropy"] = dict(outcomes.get(TRANSFER, {}))
        of_study = Sources(
            study=study,
            target=target,
            names=names,
            similarity=_complete(similar, names),
            outcomes=_complete(outcomes, names),
        )
        found.append(of_study)
    return found


def _complete(of: Mapping[str, Mapping[str, float | None]], names: Sequence[str]) -> dict[str, list[float]]:
    """The values in the order of the names, of what is known for each name."""
    found = {key: [value for name in names if (value := values.get(name)) is not None] for key, values in of.items()}
    return {key: values for key, values in found.items() if len(values) == len(names)}


def _similarities(
    p: GatherParams,
    study: str,
    names: Sequence[str],
    target: str,
    fusion: str,
    bases: dict[tuple[str, str | None], Any],
) -> dict[str, Mapping[str, float | None]]:
    """The similarities of the sources to the target, by measure and name."""
    base_run = p.bases[study]
    asked = [measure for measure in p.similarity or () if measure in OF_TEXTS]
    of_texts = similarity.of_sources(asked, p.data[study], base_run, names, target)
    found: dict[str, Mapping[str, float | None]] = {}
    for measure in p.similarity or ():
        if measure == "known":
            found[measure] = _known(p.data[study], study)
        elif measure == "position":
            found[measure] = {name: -float(place) for place, name in enumerate(names)}
        elif measure == "outputs":
            kept = finished_run(fusion).params.get("quantization")  # as the fusion was trained
            if (base_run, kept) not in bases:
                bases[base_run, kept] = load_base(base_run, kept)
            base, tokenizer = bases[base_run, kept]
            found[measure] = similarity.outputs(base, tokenizer, fusion)
        elif measure in OF_TEXTS:
            found[measure] = of_texts[measure]
    return found


def _known(data_run: str, study: str) -> dict[str, float]:
    kinship = finished_run(data_run).read_json("data.json")["kinship"]
    if not kinship:
        raise UserError(f"gather.similarity names known, but the languages of the study {show(study)} are not made.")
    return kinship


def _outcomes(params: Mapping[str, Any], attended: Callable[[str], Mapping[str, Mapping[str, float]]]) -> dict:
    """Outcomes by name and member, of the parameters of a compare run; means over the seeds."""
    found: dict[str, dict[str, float]] = {}
    for word, run in params["attention"].items():
        found |= {f"{measure}, {word}": dict(values) for measure, values in attended(run).items()}
        if worth := read_worth(f"{run}/worth.json"):
            found[f"worth, {word}"] = {row.member: row.value for row in worth.finished}
    for runs in [runs for word, runs in params["adapters"].items() if word.startswith("transfer")][:1]:
        starts = [AdapterTrainingResult.read(f"{run}/training.json").starts for run in runs]
        losses = [{finished_run(run).params["language"]: loss for run, loss in of.items()} for of in starts]
        found[TRANSFER] = {name: -float(np.mean([of[name] for of in losses])) for name in losses[0]}
    members = [finished_run(run).params["members"] for run in next(iter(params["fusions"].values()))]
    found[QUALITY] = {
        name: -float(np.mean([TrainingResult.read(f"{run[name]}/training.json").validation_loss() for run in members]))
        for name in members[0]
    }
    return found


def rank(
    studies: Sequence[Sources], asked: Sequence[str], confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Kinship:
    """Returns the rank correlations of the measures that are asked for with all outcomes, where every study has them.

    A measure has none with the outcome that it is itself, which would be 1 whatever was found.

    Raises UserError if studies have different numbers of sources, or fewer than three.
    """
    if len({len(one.names) for one in studies}) != 1 or len(studies[0].names) < 3:
        raise UserError("gather.similarity needs studies with equally many members, at least three.")
    matrix = len({one.target for one in studies}) > 1
    measures = [name for name in asked if all(name in one.similarity for one in studies)]
    outcomes = [name for name in studies[0].outcomes if all(name in one.outcomes for one in studies)]
    rng = np.random.default_rng(seed)
    ranked = []
    for measure in measures:
        permuted = _permuted(studies, measure, matrix, draws, rng)
        for outcome in outcomes:
            if outcome == SAME.get(measure):
                continue
            found = [rank_correlation(one.similarity[measure], one.outcomes[outcome]) for one in studies]
            known = [value for value in found if not math.isnan(value)]
            partial = [_partial(one, measure, outcome) for one in studies]
            partial = [value for value in partial if not math.isnan(value)]
            mean = float(np.mean(known)) if known else None
            half = student.half_width([student.over_seeds(known)], 1 - confidence) if len(known) > 1 else math.nan
            ranked.append(
                RankedOutcome(
                    measure=measure,
                    outcome=outcome,
                    by_study={one.study: value for one, value in zip(studies, found, strict=True) if value == value},
                    mean=mean,
                    interval=_interval(mean, half),
                    p=_p(permuted, studies, outcome, mean),
                    partial=float(np.mean(partial)) if partial and outcome != QUALITY else None,
                    first=float(np.mean([_is_first(one, measure, outcome) for one in studies])),
                )
            )
    return Kinship(
        studies=len(studies),
        confidence=confidence,
        matrix=matrix,
        missing=[name for name in asked if name not in measures],
        transfer=_transfer(studies) if matrix else {},
        ranked=ranked,
    )


def _transfer(studies: Sequence[Sources]) -> dict[str, dict[str, float]]:
    """The loss of each source's adapter on the target's rows, by target and source, means over the target's studies."""
    losses: dict[str, dict[str, list[float]]] = {}
    for one in studies:
        for name, negated in zip(one.names, one.outcomes.get(TRANSFER, []), strict=False):
            losses.setdefault(one.target, {}).setdefault(name, []).append(-negated)
    return {target: {name: float(np.mean(values)) for name, values in of.items()} for target, of in losses.items()}


def _standard(values: Sequence[float]) -> np.ndarray:
    """Ranks with mean 0 and norm 1, whose product with others is the rank correlation; NaN for equal values."""
    centred = ranks(np.round(np.asarray(values, dtype=float), 9))
    centred = centred - centred.mean()
    norm = np.linalg.norm(centred)
    return centred / norm if norm > 0 else np.full(len(centred), np.nan)


def _permuted(
    studies: Sequence[Sources], measure: str, matrix: bool, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Standard ranks (draws, studies, sources) after sources, or in a matrix languages, have changed places."""
    if not matrix:
        observed = np.stack([_standard(one.similarity[measure]) for one in studies])
        return rng.permuted(np.broadcast_to(observed, (draws, *observed.shape)), axis=-1)
    languages = list(dict.fromkeys(name for one in studies for name in (one.target, *one.names)))
    cells: dict[tuple[str, str], list[float]] = {}
    for one in studies:
        for name, value in zip(one.names, one.similarity[measure], strict=True):
            cells.setdefault((one.target, name), []).append(value)
    found = []
    for _ in range(draws):
        new = dict(zip(languages, (languages[i] for i in rng.permutation(len(languages))), strict=True))
        of_studies = [[(new[one.target], new[name]) for name in one.names] for one in studies]
        # A language that is never a target has no row of its own: its column stands in.
        values = [[float(np.mean(cells.get(pair) or cells[pair[::-1]])) for pair in pairs] for pairs in of_studies]
        found.append([_standard(of_study) for of_study in values])
    return np.array(found)


def _interval(mean: float | None, half: float) -> Interval | None:
    """The interval of a correlation, which ends at -1 and 1."""
    return (
        None if mean is None or math.isnan(half) else Interval(low=max(-1.0, mean - half), high=min(1.0, mean + half))
    )


def _p(permuted: np.ndarray, studies: Sequence[Sources], outcome: str, mean: float | None) -> float:
    """The share of permutations, and the one observed, whose mean correlation is at least as large in size."""
    if mean is None:
        return 1.0
    outcomes = np.stack([_standard(one.outcomes[outcome]) for one in studies])
    means = np.nanmean(np.einsum("dsn,sn->ds", permuted, outcomes), axis=1)
    return float((1 + np.sum(np.abs(means) >= abs(mean) - 1e-9)) / (len(means) + 1))


def _partial(one: Sources, measure: str, outcome: str) -> float:
    """The rank correlation given the adapters' quality; NaN if that is not known or explains one of the two wholly."""
    if QUALITY not in one.outcomes:
        return math.nan
    x, y, z = one.similarity[measure], one.outcomes[outcome], one.outcomes[QUALITY]
    xy, xz, yz = rank_correlation(x, y), rank_correlation(x, z), rank_correlation(y, z)
    scale = math.sqrt(max(0.0, (1 - xz**2) * (1 - yz**2)))
    return (xy - xz * yz) / scale if scale > 1e-9 else math.nan


def _is_first(one: Sources, measure: str, outcome: str) -> bool:
    return int(np.argmax(one.similarity[measure])) == int(np.argmax(one.outcomes[outcome]))


def read_kinship(run: str | Path) -> Kinship | None:
    """Reads the `kinship.json` of a gather run; returns None for a run without one."""
    file = files.project_path(run) / "kinship.json"
    return Kinship.parse(file.read_bytes(), file, "07_gather") if file.is_file() else None

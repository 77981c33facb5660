"""Ratings: which of two completions people prefer, in the files of `studykit rate`.

A page shows **pairs**: two completions of one test row by two methods, without the methods' names. Its **key**, a file
of its own, says which method wrote what. A rater saves **answers**, which name pairs and nothing else. Joined with the
key they are **ratings**, the file that notebook 06 reads:

    ratings/<study>/page-<id>.html                 for the raters
    ratings/<study>/key-<id>.json                  stays here
    ratings/<study>/rated-<id>-<rater>.json        answers and key, for notebook 06

A rating holds a digest of both texts. It counts as long as the methods still write these texts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studykit.errors import UserError, show
from studykit.evaluation.scores import EvaluationScores, Published
from studykit.runs import files

FORMAT = "studykit ratings 1"
Side = Literal["first", "second"]
WORTH = {"first": 1.0, "tie": 0.5, "second": 0.0}  # what a choice counts for the first text


class Origin(Published):
    """What wrote a text of a pair."""

    method: str
    seed: int | None  # of the training; None for the base
    digest: str  # of prompt and completion, see `text_digest`


class Pair(Published):
    """Two completions of one test row. Which one a rater sees on the left is the page's choice."""

    id: str  # says nothing of methods and rows
    row: str  # id of the test row
    first: Origin
    second: Origin


class PageKey(Published):
    """What the pairs of a page are; no rater sees it."""

    page: str  # its id
    study: str
    pairs: list[Pair]  # as shown
    repeats: dict[str, str]  # pairs that come a second time, with the sides exchanged: id -> id of the first time
    # Pairs of equal texts were drawn too, but are not shown: they are ties. They lie under the shown pair that was
    # drawn next, with which they count, or under "" where none was left: these count once all shown pairs are answered.
    alike: dict[str, list[Pair]]


class Answer(BaseModel):
    """What a rater chose of one pair."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    pair: str
    choice: Literal["first", "second", "tie"]
    left: Side  # which text was on the left, or above
    seconds: float = Field(ge=0)  # from the first sight of the pair to the choice


class Answers(BaseModel):
    """The file that a page saves."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["studykit ratings 1"]
    page: str
    rater: str = Field(min_length=1, max_length=60)
    answers: list[Answer]


class Ratings(Published):
    """The answers of one rater to one page, with its key."""

    key: PageKey
    rater: str
    answers: list[Answer]


class Judgements(NamedTuple):
    """Ratings as arrays: J judgements by R raters of rows in C clusters."""

    methods: list[str]
    raters: list[str]  # those of at least one judgement: a rater without any would be drawn in resamples, and be empty
    first: np.ndarray  # (J,) indices of methods
    second: np.ndarray  # (J,)
    worth: np.ndarray  # (J,) 1 where the first was preferred, 0.5 for a tie, 0 where the second was
    cluster: np.ndarray  # (J,) indices of clusters of dependent rows
    rater: np.ndarray  # (J,) indices of raters
    shown: np.ndarray  # (J,) whether a rater saw the pair; the others are alike
    units: dict[str, dict[str, str]]  # pair -> rater -> choice, of the pairs that were shown
    repeated: dict[str, list[tuple[str, str]]]  # rater -> choices of pairs, the first and the second time
    outdated: int  # pairs that do not count: a method writes another text today, or is not compared


def text_digest(prompt: str, completion: str) -> str:
    """Returns 16 hex digits of the hash of a prompt with its completion."""
    return hashlib.sha256(f"{prompt}\0{completion}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def folder_of(study: str) -> str:
    """Returns where the pages, keys and ratings of a study lie, below the project's directory."""
    return f"ratings/{study}"


def join_answers(file: Path, folder: Path, study: str, unfinished: bool = False) -> Ratings:
    """Reads what a rater saved and joins it with its page's key.

    Args:
        file: the answers.
        folder: where the keys of the study lie.
        study: the study's name, for messages.
        unfinished: whether pairs may be left without an answer.

    Raises UserError for answers that are damaged, incomplete, or to pairs that no page of the study has.
    """
    try:
        found = Answers.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); name a file that a rating page saved.") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its beginning"
        raise UserError(
            f"{file} does not hold the answers of a rating page (at {where}); name a file that a page saved."
        ) from None
    keys = {key.page: key for key in read_keys(folder)}
    if found.page not in keys:
        known = ", ".join(keys) or "none"
        raise UserError(
            f"{file} has the answers to page {show(found.page)}; the pages of the study {study} are: {known}."
        )
    key = keys[found.page]
    asked = {*(pair.id for pair in key.pairs), *key.repeats}
    answered = [answer.pair for answer in found.answers]
    if unknown := [pair for pair in answered if pair not in asked]:
        raise UserError(
            f"{file} answers pair {show(unknown[0])}, which page {key.page} does not have; save the answers again."
        )
    if len(answered) > len(set(answered)):
        raise UserError(f"{file} answers a pair twice; save the answers again.")
    if len(answered) < len(asked) and not unfinished:
        raise UserError(
            f"{file} answers {len(answered)} of {len(asked)} pairs; answer the others on the same page, which has kept "
            "these, and save again, or accept fewer with --unfinished."
        )
    if not found.rater.strip():
        raise UserError(f"{file} has an empty name of a rater; it needs a name or another word.")
    return Ratings(key=key, rater=found.rater.strip(), answers=found.answers)


def read_keys(folder: Path) -> list[PageKey]:
    """Reads the keys of a study's pages."""
    return [PageKey.parse(file.read_bytes(), file, "`studykit rate`") for file in sorted(folder.glob("key-*.json"))]


def save_ratings(ratings: Ratings, folder: Path) -> Path:
    """Writes ratings where notebook 06 finds them; raises UserError if the rater's other answers are there already."""
    name = re.sub(r"[^a-z0-9]+", "-", ratings.rater.lower()).strip("-")[:30]
    mark = hashlib.sha256(ratings.rater.encode()).hexdigest()[:4]  # names may differ in other letters alone
    file = folder / f"rated-{ratings.key.page}-{name or 'rater'}-{mark}.json"
    if file.is_file() and Ratings.parse(file.read_bytes(), file, "`studykit rate`") != ratings:
        raise UserError(
            f"{ratings.rater} has answered page {ratings.key.page} already, in {file}; remove that file if the new "
            "answers are to replace it."
        )
    files.write_json(file, ratings.model_dump())
    return file


def read_ratings(folder: str | Path) -> list[Ratings]:
    """Reads all ratings in a folder, which may be missing."""
    found = sorted(files.project_path(folder).glob("rated-*.json"))
    return [Ratings.parse(file.read_bytes(), file, "`studykit rate` with --read") for file in found]


def written_today(scores: EvaluationScores, run: str) -> dict[tuple[int | None, str], str]:
    """Returns the digests of the first completion of each row, by seed and row, that an evaluate run holds."""
    digests: dict[tuple[int | None, str], str] = {}
    for checkpoint in scores.final:
        lines = files.project_path(run) / "samples" / f"{checkpoint.file_stem}.jsonl"
        for line in filter(None, lines.read_text(encoding="utf-8").split("\n")):
            one = json.loads(line)
            digests.setdefault((checkpoint.seed, one["id"]), text_digest(one["prompt"], one["prediction"]))
    return digests


def collect(
    ratings: Sequence[Ratings], scores: Mapping[str, EvaluationScores], evaluations: Mapping[str, str]
) -> Judgements:
    """Returns the ratings of texts that the methods still write, as arrays.

    The second answer to a repeated pair counts for the rater's consistency alone.

    Args:
        scores: of the compared methods.
        evaluations: their evaluate runs, by method.
    """
    today = {method: written_today(scores[method], evaluations[method]) for method in scores}
    tested = next(iter(scores.values()))
    groups = {row: group or f"row {row}" for row, group in zip(tested.ids, tested.groups, strict=True)}
    clusters = {group: n for n, group in enumerate(dict.fromkeys(groups.values()))}

    def counts(pair: Pair) -> bool:
        sides = (pair.first, pair.second)
        return all(today.get(side.method, {}).get((side.seed, pair.row)) == side.digest for side in sides)

    lines: list[tuple] = []
    units: dict[str, dict[str, str]] = {}
    repeated: dict[str, list[tuple[str, str]]] = {one.rater: [] for one in ratings}
    outdated: set[str] = set()
    for one in ratings:
        choices = {answer.pair: answer.choice for answer in one.answers}
        outdated |= {f"{one.key.page} {pair.id}" for pair in one.key.pairs if not counts(pair)}
        current = {pair.id: pair for pair in one.key.pairs if pair.id in choices and counts(pair)}
        whole = [""] if all(pair.id in choices for pair in one.key.pairs) else []
        alike = {pair.id: pair for id in (*current, *whole) for pair in one.key.alike.get(id, ()) if counts(pair)}
        for id, pair in (current | alike).items():
            choice = choices[id] if id in current else "tie"
            names, cluster = (pair.first.method, pair.second.method), clusters[groups[pair.row]]
            lines.append((*names, WORTH[choice], cluster, one.rater, id in current))
            if id in current:
                units.setdefault(f"{one.key.page} {id}", {})[one.rater] = choice
        again = [(id, of) for id, of in one.key.repeats.items() if id in choices and of in current]
        repeated[one.rater] += [(choices[of], choices[id]) for id, of in again]
    firsts, seconds, worth, of_rows, by, shown = zip(*lines, strict=True) if lines else ((),) * 6
    methods = [method for method in scores if method in {*firsts, *seconds}]
    raters = list(dict.fromkeys(by))
    first, second = (np.array([methods.index(method) for method in names], int) for names in (firsts, seconds))
    of_rater = np.array([raters.index(rater) for rater in by], int)
    columns = first, second, np.array(worth), np.array(of_rows), of_rater, np.array(shown)
    return Judgements(methods, raters, *columns, units, repeated, len(outdated))

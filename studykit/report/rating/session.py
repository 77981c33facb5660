"""A session of `studykit rate`: a study's page is written with its key, and raters' answers go where 06 reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from studykit.errors import UserError, show
from studykit.evaluation.comparison import read_comparable
from studykit.evaluation.pairing import draw_pairs, first_samples
from studykit.evaluation.ratings import join_answers, save_ratings
from studykit.evaluation.samples import read_samples
from studykit.report.rating.page import rating_page
from studykit.runs import files
from studykit.runs.text import plural
from studykit.study.family import StudyPlan


def _folder(planned: StudyPlan) -> Path:
    """Where the ratings of a study lie; raises UserError for a family, whose studies have no names of their own."""
    if planned.members:
        raise UserError(
            f"{planned.file} is a family of {len(planned.members)} studies; people's ratings belong to a study file "
            "without `vary`."
        )
    return files.project_path(planned.result.params["ratings"])


def write_page(
    planned: StudyPlan, here: Path, pairs: int, methods: Sequence[str] = (), seed: int = 0, output: str | None = None
) -> Iterator[str]:
    """Writes a page of pairs of finished evaluations, and its key; yields sentences for the terminal.

    Args:
        here: the directory from which `output` is seen.
        pairs: that are shown, without repeated ones.
        methods: that are compared; none: all of the study.
        seed: of the draw; another one makes another page.
        output: file of the page; by default it lies beside the key.

    Raises UserError for a method that the study does not evaluate, and where an evaluation is not finished.
    """
    folder, study, evaluations = _folder(planned), planned.study, planned.result.params["evaluations"]
    if unknown := [method for method in methods if method not in evaluations]:
        raise UserError(f"--method {show(unknown[0])} is no method of {planned.file}; it has {', '.join(evaluations)}.")
    chosen = {method: run for method, run in evaluations.items() if method in methods or not methods}
    if len(chosen) < 2:
        raise UserError(f"{planned.file} would be rated with {len(chosen)} method; a page compares at least two.")
    scores = read_comparable(chosen)
    written = {
        method: {one.seed: first_samples(read_samples(files.project_path(run), one)) for one in scores[method].final}
        for method, run in chosen.items()
    }
    of_evaluation = next(run.params for run in planned.runs if run.dir in chosen.values())
    first_line = of_evaluation["first_line"]
    first_line = study.task == "commit" if first_line is None else first_line
    key, texts = draw_pairs(study.study, written, pairs, seed, first_line)
    language = study.language or next(iter(scores.values())).language
    file = here / output if output else folder / f"page-{key.page}.html"
    files.write_text(file, rating_page(key, texts, study.task, language))
    files.write_json(folder / f"key-{key.page}.json", key.model_dump())
    alike = sum(map(len, key.alike.values()))
    yield f"{_shown(file)}: {plural(len(key.pairs), 'pair')} of {plural(len(chosen), 'method')}, and of these " + (
        f"{plural(len(key.repeats), 'pair')} a second time. {plural(alike, 'drawn pair')} of equal texts "
        f"{'counts' if alike == 1 else 'count'} as {'a tie' if alike == 1 else 'ties'}, unseen."
    )
    yield f"Send this file to the raters, but not {_shown(folder / f'key-{key.page}.json')}, which names the methods."
    yield f"`studykit rate {planned.file} --read FILE ...` reads what they save."


def read_back(planned: StudyPlan, answers: Sequence[Path], unfinished: bool = False) -> Iterator[str]:
    """Puts raters' answers where notebook 06 finds them; yields sentences for the terminal.

    All files are checked before the first is kept. Raises UserError for one that is damaged.
    """
    folder = _folder(planned)
    joined = [join_answers(file, folder, planned.study.study, unfinished) for file in answers]
    for ratings in joined:
        file = save_ratings(ratings, folder)
        yield f"{_shown(file)}: {plural(len(ratings.answers), 'answer')} of {ratings.rater}."
    yield f"`studykit run {planned.file}` compares the methods again, with these ratings."


def _shown(file: Path) -> str:
    """A file as seen from the project's directory, if it lies below it."""
    return str(file.relative_to(files.home()) if file.is_relative_to(files.home()) else file)

"""Many studies in words: what is decided, what is not, and what no interval holds."""

from __future__ import annotations

import pytest

from studykit.evaluation.differences import pool
from studykit.evaluation.gathered import GatheredMetric, GatheredResults
from studykit.evaluation.gathering import _decided
from studykit.report import figures, pooled
from tests.evaluation.test_gathering import cell


def results(values, covariate: bool = True, shared=()) -> GatheredResults:
    cells = [cell(value, base, rows=base, error=0.5) for base, value in zip("abcdefg", values, strict=False)]
    numbers = {one.study: float(i) for i, one in enumerate(cells)} if covariate else None
    gathered = _decided([pool(cells, ["base"], 0.95, numbers)], "pass_at_1", 0.95)
    metric = GatheredMetric(metric="pass_at_1", label="pass@1", unit="%", gathered=gathered)
    name = "log10 parameters" if covariate else None
    return GatheredResults(
        over=["base"], covariate=name, confidence=0.95, shared_methods=list(shared), metrics=[metric]
    )


def test_a_decided_difference_and_its_slope_close_the_report():
    found = results([4.0, 5.1, 5.9, 7.0, 8.1])
    name = pooled.pair(found.main.gathered[0])
    first, slope = pooled.in_brief(found)
    assert "is better than" in first and "over base (+6.0 points, interval +" in first and "5 of 5 studies" in first
    assert f"{name} grows with log10 parameters, by +1.0" in slope


def test_a_unit_that_outweighs_all_others_is_named():
    alike = results([4.0, 4.1, 3.9, 4.0])
    assert "rests on" not in pooled.in_brief(alike)[0]
    cells = [cell(4.0, base, rows=base, error=0.1 if base == "c" else 1.0) for base in "abcd"]
    gathered = _decided([pool(cells, ["base"])], "pass_at_1", 0.95)
    found = alike.model_copy(update={"metrics": [alike.main.model_copy(update={"gathered": gathered})]})
    assert pooled.in_brief(found)[0].endswith(" It rests on one unit: c has 97% of the weight.")
    found = alike.model_copy(update={"metrics": [alike.main.model_copy(update={"pooled_interactions": gathered})]})
    assert "It rests on one unit: c" in pooled.in_brief(found)[1], "of a difference of differences, too"


def test_an_undecided_difference_is_not_called_equal():
    found = results([-3.0, 3.1, -2.0, 2.1], covariate=False)
    (line,) = pooled.in_brief(found)
    assert line == "pass@1: 1 of 1 difference is undecided."
    said = pooled.sentences(found, found.main)
    assert "cannot be told apart from" in said[0] and "With only 4 units" in said[-1]
    assert pooled.slope_table(found, found.main) == []


def test_shared_trainings_are_named():
    one = results([1, 2, 3, 4, 5]).main.gathered[0]
    said = pooled.sentences(found := results([1, 2, 3, 4, 5], shared=[one.against, "foreign"]), found.main)
    assert any(f"the same trainings of {one.against}." in sentence for sentence in said)
    assert not any("shared" in sentence for sentence in pooled.sentences(results([1, 2, 3]), results([1, 2, 3]).main))


@pytest.mark.parametrize("draw", [figures.forest_of_studies, figures.slope])
def test_figures_say_in_words_what_they_show(draw):
    found = results([4.0, 5.1, 5.9, 7.0])
    figure = draw(found.main.gathered[0], found, found.main)
    assert "pass@1" in figure.alt and figure.caption and "<svg" in figures.svg(figure)


def test_the_tables_have_a_line_per_difference_and_per_study():
    found = results([4.0, 5.1, 5.9])
    assert len(pooled.pooled_table(found.main)) == len(pooled.slope_table(found, found.main)) == 1
    assert "3 units, 3 studies" in pooled.pooled_caption(found, found.main)

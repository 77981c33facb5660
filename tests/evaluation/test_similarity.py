"""Measures of similarity: what is the same is 1, what shares nothing is 0, and made languages are ranked by the truth."""

from __future__ import annotations

import numpy as np
import pytest

from studykit.data.polyglot import programs
from studykit.data.polyglot.kin import kin, translated
from studykit.data.rows import Row
from studykit.evaluation import similarity
from studykit.evaluation.metrics import syntax_trees
from studykit.evaluation.worth import rank_correlation

SOURCES, SHARES = ["amber", "birch", "cedar", "dune", "elm"], [1.0, 0.75, 0.5, 0.25, 0.0]
PROGRAMS = programs(40, seed=0, split="test")


def rows(code) -> list[Row]:
    return [Row(p.key, "x", "p", code(p), group=p.key) for p in PROGRAMS]


@pytest.mark.parametrize("measure", ["tokens", "programs"])
def test_languages_that_share_more_words_are_more_similar(measure):
    found = []
    for seed in range(4):
        made = kin(SOURCES, "fern", SHARES, "tokens", seed)
        written = {name: rows(of.code) for name, of in made.items()}
        texts = {name: [row.target for row in of] for name, of in written.items()}
        by_name = texts if measure == "tokens" else written
        values = [getattr(similarity, measure)(by_name[name], by_name["fern"]) for name in SOURCES]
        assert max(values) == pytest.approx(1) == values[np.argmax([made[name].kinship for name in SOURCES])]
        found.append(rank_correlation(values, [made[name].kinship for name in SOURCES]))
    assert np.mean(found) > 0.9


def test_grammars_are_compared_in_classes_that_they_share():
    code = {name: [p.code(name) for p in PROGRAMS] for name in ("python", "ruby", "lua", "javascript")}
    assert similarity.syntax(code["lua"], code["lua"], ("lua", "lua")) == pytest.approx(1)
    for name in ("ruby", "lua", "javascript"):
        assert 0.2 < similarity.syntax(code["python"], code[name], ("python", name)) < 0.999
    assert similarity.syntax(code["lua"], code["lua"], ("lua", "amber")) is None, "a made language has no grammar"


@pytest.mark.parametrize("axis", ["tokens", "structure"])
def test_made_languages_cannot_check_syntax_since_only_the_clone_parses_as_lua(axis):
    """Whatever rank they get by the parser of Lua is one of its errors, not of trees."""
    made = kin(SOURCES, "fern", SHARES, axis, 0)
    clone = max(SOURCES, key=lambda name: made[name].kinship)
    for name in SOURCES:
        back = [translated(made[name].code(p), made["fern"].words) for p in PROGRAMS]
        assert {syntax_trees.parse(code, "lua").parsed for code in back} == {name == clone}, name


def test_without_a_common_program_there_is_no_edit():
    other = [Row("i", "x", "p", "return 1", group="another")]
    assert similarity.programs(rows(lambda p: p.code("lua")), other) is None


def test_linear_cka_ignores_rotation_and_scale_and_tells_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert similarity.cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    assert similarity.cka(x, rng.normal(size=(400, 6))) < 0.1
    assert similarity.cka(x, np.ones((400, 6))) == 0

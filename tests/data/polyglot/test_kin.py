"""Languages made from Lua: their kinship is what was asked for, and every completion can be run as Lua."""

from __future__ import annotations

import pytest

from studykit.data import prepare
from studykit.data.checks import CipherCheck
from studykit.data.polyglot import programs
from studykit.data.polyglot.kin import GRAMMAR, TOKEN, WORDS, kin, translated
from studykit.data.rows import row_from_json, row_to_json
from studykit.errors import UserError
from studykit.evaluation.execution.programs import executable, runs_in
from studykit.study.parameters import check

SOURCES, SHARES = ["amber", "birch", "cedar", "dune", "elm"], [1.0, 0.75, 0.5, 0.25, 0.0]
PROGRAMS = programs(200, seed=3, split="train")


def tokens(code: str) -> list[str]:
    return [token for token in TOKEN.findall(code) if not token.isspace()]


@pytest.mark.parametrize("seed", range(4))
def test_sources_share_the_asked_part_of_the_targets_tokens(seed):
    made = kin(SOURCES, "fern", SHARES, "tokens", seed)
    for name in SOURCES:
        counted = [(a == b) for p in PROGRAMS for a, b in zip(tokens(p.code("lua")), tokens(p.code("lua")), strict=True)
                   if a in WORDS for b in [a] if made[name].words[a] == made["fern"].words[b]]  # fmt: skip
        total = sum(token in WORDS for p in PROGRAMS for token in tokens(p.code("lua")))
        assert len(counted) / total == pytest.approx(made[name].kinship, abs=0.03)
    assert sorted(made[name].kinship for name in SOURCES) == pytest.approx(sorted(SHARES), abs=0.02)


def test_the_seed_deals_the_shares_to_the_names():
    deals = [kin(SOURCES, "fern", SHARES, "structure", seed).values() for seed in range(6)]
    assert len({tuple(of.kinship for of in deal) for deal in deals}) > 3, "a name says nothing of its language"


def test_a_clone_writes_as_the_target_does_and_a_stranger_has_no_word_in_common():
    made = {round(of.kinship, 2): of for of in kin(["amber", "birch"], "fern", [1.0, 0.0], "tokens", 0).values()}
    clone, stranger, target = made[1.0], made[0.0], kin(["amber", "birch"], "fern", [1.0, 0.0], "tokens", 0)["fern"]
    assert clone.code(PROGRAMS[0]) == target.code(PROGRAMS[0])
    assert all(stranger.words[word] != target.words[word] for word in WORDS)
    assert not set(target.words.values()) & set(WORDS), "no word is Lua's own"


def test_every_program_is_translated_back_token_by_token():
    words = kin(SOURCES, "fern", SHARES, "tokens", 0)["fern"].words
    for program in PROGRAMS:
        lua, cipher = program.code("lua"), translated(program.code("lua"), words)
        assert not set(tokens(cipher)) & set(WORDS)
        assert tokens(translated(cipher, words)) == tokens(lua)
    assert "return" not in tokens(translated("return 1", words)), "Lua's own words are no words of the cipher"


def test_structure_is_shared_by_quarters_with_the_same_words():
    made = kin(SOURCES, "fern", SHARES, "structure", 0)
    assert all(of.words == made["fern"].words for of in made.values())
    assert {len(of.broken): of.kinship for of in made.values()} == {0: 1.0, 1: 0.75, 2: 0.5, 3: 0.25, 4: 0.0}
    for rule in GRAMMAR:
        one = next(of for of in made.values() if rule in of.broken)
        assert any(one.code(p) != made["fern"].code(p) for p in PROGRAMS), rule


def params(**values):
    given = {"task": "generation", "members": [*SOURCES, "fern"], "target": "fern", "kinship": SHARES}
    sizes = {"source_examples": 6, "target_examples": 4, "valid_examples": 3, "test_examples": 5}
    return check("data", given | sizes | values)


def test_rows_of_made_languages_run_as_lua():
    rows, manifest = prepare.prepare(params())
    assert manifest.kinship.keys() == set(SOURCES)
    row = row_from_json(row_to_json(rows["fern"]["test"][0]))
    assert isinstance(row.check, CipherCheck) and runs_in(row.language, row.check) == "lua" and "fern" in row.prompt
    program = executable(row.language, row.target, row.check)
    assert program.language == "lua" and "local function solve" in program.source
    assert "local function solve" not in executable(row.language, "local function solve() end", row.check).source


@pytest.mark.parametrize(
    "values, said",
    [
        ({"kinship": [1.0]}, "kinship has 1 numbers for 5 sources"),
        ({"kinship": [1.5, 0.0, 0.0, 0.0, 0.0]}, "it must be a list of numbers from 0 to 1"),
        ({"kinship_in": "structure", "kinship": [0.3] * 5}, "it must be quarters"),
        ({"members": [*SOURCES[:4], "python", "fern"]}, "names 'python', but with kinship all are made"),
        ({"path": "rows"}, "made languages have no other rows"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(values, said):
    with pytest.raises(UserError, match=said):
        params(**values)

"""Laws of the generator: splits, determinism, descriptions, tests and commits."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.data.polyglot import LANGUAGES, SPLITS, PolyglotProgram, function_name, programs, sampler
from studykit.data.polyglot.canonical import COMMUTATIVE
from studykit.data.polyglot.commits import commit, rebuilders
from studykit.data.polyglot.syntax import Bin, Cmp, Evaluator, Num, Undefined, children, walk


@pytest.fixture(scope="module")
def many() -> dict[str, list[PolyglotProgram]]:
    sizes = {"train": 8000, "valid": 1000, "test": 1000}
    return {split: programs(sizes[split], seed=1, split=split) for split in SPLITS}


@pytest.fixture(scope="module")
def some() -> list[PolyglotProgram]:
    return [program for split in SPLITS for program in programs(70, seed=3, split=split)]


def nodes(program: PolyglotProgram):
    return list(walk(program.function))


def test_programs_texts_tests_and_commits_are_those_of_earlier_versions():
    """A study's rows depend on every one of these, so the digest is only changed on purpose, with every data run."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for program in programs(200, seed=7, split=split):
            change = commit(program, 3)
            code = [[p.code(language) for language in LANGUAGES] for p in (program, change.after)]
            item = [program.key, program.family, program.description, code, asdict(program.check), change.message]
            digest.update(json.dumps(item).encode())
    assert digest.hexdigest() == "dc1039794ad5aee28573e5dd4a9cfff2c7e0e5a9f81395eaed556471db6186ac"


def test_splits_share_no_structure_and_no_text(many):
    for view in (lambda p: p.key, lambda p: p.description, lambda p: p.code("python"), lambda p: p.code("lua")):
        seen = [{view(program) for program in many[split]} for split in SPLITS]
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_programs_are_unique_and_structures_are_many(many):
    everything = [program for split in SPLITS for program in many[split]]
    assert len({program.canonical for program in everything}) == len(everything)
    assert len({program.key for program in everything}) > 4000
    assert len({program.family for program in everything}) == 5


def test_same_programs_in_another_process():
    script = (
        "from studykit.data.polyglot import programs\n"
        "from studykit.data.polyglot.commits import commit\n"
        "for p in programs(60, 5, 'test'):\n"
        "    print(p.code('go'), p.description, p.tests, commit(p, 2).message)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and len(outputs.pop()) > 1000


def test_shorter_lists_are_prefixes_and_seeds_differ():
    assert programs(40, seed=9) == programs(90, seed=9)[:40]
    assert programs(40, seed=9) != programs(40, seed=10)


@pytest.mark.parametrize("arguments", [(-1, 0, "train"), (10**9, 0, "train"), (1, 0, "dev")])
def test_wrong_requests_are_refused(arguments):
    with pytest.raises(ValueError, match=r"-1|1000000000|dev"):
        programs(*arguments)


def test_exhausted_families_say_how_many_programs_there_are(monkeypatch):
    from studykit.data.polyglot.families import solve
    from studykit.data.polyglot.syntax import Return, Var

    def tiny(rng):
        return solve("a", "int", Return(Bin("+", Var("a"), Num(rng.randrange(5)))))

    monkeypatch.setattr(sampler, "FAMILIES", {tiny: 1})
    split = PolyglotProgram(tiny(random.Random(0)), "tiny").split
    assert len(programs(5, split=split)) == 5
    with pytest.raises(ValueError, match="about 5"):
        programs(6, split=split)


def test_structure_ignores_constants_order_of_operands_and_names(some):
    rng = random.Random(0)

    def shaken(node):
        for field, position, child in list(children(node)):
            old, new = getattr(node, field), shaken(child)
            whole = new if position is None else (*old[:position], new, *old[position + 1 :])
            node = replace(node, **{field: whole})
        if type(node) is Num:
            return Num(rng.randrange(100))
        if type(node) in (Bin, Cmp) and node.op in COMMUTATIVE and rng.random() < 0.5:
            return replace(node, left=node.right, right=node.left)
        return node

    names = {"a": "b", "b": "a", "xs": "ys", "x": "item", "total": "sum_so_far", "solve": "run"}
    for program in some:
        assert replace(program, function=shaken(program.function)).renamed(names).key == program.key


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_operators_are_part_of_the_structure(seed):
    (program,) = programs(1, seed, "train")
    for node, rebuild in rebuilders(program.function):
        if type(node) is Bin and node.op == "-":
            assert replace(program, function=rebuild(replace(node, op="+"))).key != program.key


def test_a_description_determines_the_program(many):
    meanings: dict[str, str] = {}
    for program in many["train"]:
        code = program.code("python")
        assert meanings.setdefault(program.description, code) == code


def test_programs_are_small(many):
    for program in many["train"]:
        assert len(program.description.split()) < 20
        assert program.name == "solve" and len(program.function.params) <= 2
        assert all(0 <= node.value <= 20 for node in nodes(program) if type(node) is Num)
        assert len(re.findall(r"\w+|[^\w\s]", program.code("python"))) <= 45


def test_tests_agree_with_the_evaluator_and_meet_both_branches(some):
    complete = 0
    for program in some:
        assert 3 <= len(program.tests) <= 6
        evaluator = Evaluator(program.function)
        for test in program.tests:
            assert evaluator.call(test.args) == test.expected == program.evaluate(test.args)
        expected = {node for node in nodes(program) if type(node) is Cmp}
        complete += expected == {node for node, _ in evaluator.trace}
    assert complete > 0.9 * len(some)


def test_what_languages_disagree_on_is_undefined():
    for op, left, right in (("%", -1, 3), ("%", 3, 0), ("repeat", "a", -1), ("*", 2**40, 2**40)):
        with pytest.raises(Undefined):
            Evaluator.binary(op, left, right)
    with pytest.raises(Undefined):
        Evaluator.builtin("first", [])


def test_commits_stay_in_the_split_and_say_what_changed(some):
    messages = set()
    for program in some:
        for seed in range(2):
            change = commit(program, seed)
            before, after, message = change.before, change.after, change.message
            assert before == program and after != program and after.split == program.split
            assert all(before.code(language) != after.code(language) for language in LANGUAGES)
            assert after.tests and re.fullmatch(r"[A-Z][^\n]*[^.\n]", message)
            messages.add(message.split()[0])
            if message.startswith("Rename"):
                assert after.key == before.key
            elif message.startswith("Return"):
                assert len(after.code("python")) > len(before.code("python")) or "instead" in message
    assert messages >= {"Rename", "Return", "Compute", "Check"}
    assert commit(some[0], 1) == commit(some[0], 1)


def test_documented_is_a_comment_and_the_code(some):
    signs = {"python": "#", "javascript": "//", "go": "//", "ruby": "#", "julia": "#", "lua": "--"}
    for language, sign in signs.items():
        first, rest = some[0].documented(language).split("\n", 1)
        assert first == f"{sign} {some[0].description}" and rest == some[0].code(language)


def test_names_follow_the_language():
    assert function_name("go", "score_item") == function_name("javascript", "score_item") == "scoreItem"
    assert {function_name(language, "score_item") for language in ("python", "ruby", "julia", "lua")} == {"score_item"}

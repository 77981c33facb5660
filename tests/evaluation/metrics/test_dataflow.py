"""Data flow: what programs say in which language, and what does not change it."""

import pytest

from studykit.evaluation.metrics.dataflow import RULES, flows
from studykit.evaluation.metrics.syntax_trees import parse


def edges(text: str, language: str) -> list[tuple]:
    return sorted(flows(parse(text, language), language).elements())


# One assignment of a sum, written in every language; b and c are set before.
SUMS = {
    "c": "int b = 1, c = 2; a = b + c;",
    "c++": "int b = 1, c = 2; a = b + c;",
    "c#": "int b = 1, c = 2; a = b + c;",
    "go": "package p\nfunc f() { var b int = 1; var c int = 2; a = b + c }",
    "java": "int b = 1, c = 2; a = b + c;",
    "javascript": "let b = 1, c = 2; a += b + c;",
    "php": "<?php $b = 1; $c = 2; $a = $b + $c;",
    "python": "b = 1\nc = 2\na = b + c\n",
    "ruby": "b = 1\nc = 2\na = b + c\n",
    "rust": "fn f() { let b = 1; let c = 2; a = b + c; }",
}


@pytest.mark.parametrize("language", sorted(RULES))
def test_an_assignment_is_computed_from_both_terms_in_order(language):
    found = edges(SUMS[language], language)
    numbers = {edge for edge in found if edge[1] == "computedFrom" and len(edge[2]) == 2}
    assert len(numbers) == 1, found
    target, _, (first, second) = numbers.pop()
    assert len({target, first, second}) == 3
    assert (first, "comesFrom", (first,)) in found and (second, "comesFrom", (second,)) in found


@pytest.mark.parametrize("language", sorted(RULES))
def test_names_do_not_matter_but_their_order_does(language):
    text = SUMS[language]
    renamed = text.replace("a =", "zz =").replace("a +=", "zz +=").replace("$a", "$zz").replace("c", "q") \
        if language not in ("php", "go", "c#") else text.replace("b", "q")  # fmt: skip
    if language == "go":
        renamed = text.replace(" b", " q")
    assert edges(renamed, language) == edges(text, language)
    assert edges(text.replace("b + ", "c + ").replace("$b + ", "$c + "), language) != edges(text, language)


LOOPS = {
    "c++": "for (auto x : xs) { s = x; }",
    "c#": "foreach (var x in xs) { s = x; }",
    "java": "for (int x : xs) { s = x; }",
    "php": "<?php foreach ($xs as $x) { $s = $x; }",
    "python": "for x in xs:\n    s = x\n",
    "ruby": "for x in xs do\n  s = x\nend\n",
    "rust": "fn f() { for x in xs { s = x; } }",
}


@pytest.mark.parametrize("language", sorted(LOOPS))
def test_a_loop_computes_its_variable_from_what_it_runs_over(language):
    found = edges(LOOPS[language], language)
    computed = [edge for edge in found if edge[1] == "computedFrom"]
    assert len(computed) == 2, found
    (item,) = {edge[0] for edge in computed} & {source for edge in computed for source in edge[2]}
    assert item is not None


def test_a_value_set_in_a_choice_may_hold_after_it():
    text = "x = 1\nif c:\n    x = 2\ny = x\n"
    always = "x = 1\nif c:\n    x = 2\nelse:\n    x = 3\ny = x\n"
    assert edges(text, "python") != edges(always, "python")
    assert all(kind in ("comesFrom", "computedFrom") for _, kind, _ in edges(always, "python"))


def test_a_loop_carries_values_to_its_next_round():
    once = edges("while a:\n    b = c\n    c = a\n", "python")
    assert (once[0][0], "comesFrom") == (once[0][0], once[0][1])
    assert any(source == (target,) for target, kind, source in once if kind == "comesFrom")


def test_parts_of_an_assignment_pair_up():
    assert edges("a, b = b, a\n", "python") == edges("x, y = y, x\n", "python")
    assert edges("a, b = f(c)\n", "python") != edges("a, b = c, c\n", "python")


@pytest.mark.parametrize("language", sorted(RULES))
def test_nothing_flows_in_nothing(language):
    assert edges("", language) == []

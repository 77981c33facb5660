"""What a commit message says of its diff: names, verb, direction."""

from __future__ import annotations

import pytest

from studykit.data.diffs import unified_diff
from studykit.data.polyglot import programs
from studykit.data.polyglot.commits import Commit, commit
from studykit.evaluation.metrics.messages import Diff, direction, mentions, same_verb, score_messages, share_real
from studykit.evaluation.metrics.properties import TABLE_ORDER

DIFF = unified_diff(
    "def total(items):\n    # -- all\n    count = 7\n    return load(count)\n",
    "def total(items):\n    # -- all\n    limit = 3\n    return load(limit)\n", "a/sums.py", "b/sums.py",
)  # fmt: skip


def diffs(changes: list[Commit], language: str = "lua") -> list[str]:
    return [unified_diff(*(f"{p.code(language)}\n" for p in (c.before, c.after)), "a/x", "b/x") for c in changes]


@pytest.fixture(scope="module")
def changes() -> list[Commit]:
    return [commit(program, i) for i, program in enumerate(programs(40, 0, "test"))]


def test_a_reference_invents_nothing_and_contradicts_nothing(changes):
    messages = [change.message for change in changes]
    scores = score_messages(messages, messages, diffs(changes))
    assert scores["names_real"].value == scores["verb"].value == scores["direction"].value == 100
    assert scores["names_touched"].value > 90  # the value of a rename that is the article, "a", is left out
    assert set(scores) <= set(TABLE_ORDER)


def test_the_message_of_the_opposite_edit_has_the_same_names_and_the_wrong_direction(changes):
    """Reference and candidate exchange what is new and what is old; of a rename or another constant this is all."""
    turned = [change for change in changes if change.message.startswith("Rename ")]
    old_new = [change.message.split()[1::2] for change in turned]
    messages = [f"Rename {new} to {old}" for old, new in old_new]
    scores = score_messages(messages, [change.message for change in turned], diffs(turned))
    assert scores["direction"].value == 0 and scores["verb"].value == scores["names_real"].value == 100
    backwards = diffs([Commit(change.after, change.before, "") for change in turned])
    assert score_messages(messages, messages, backwards)["direction"].value == 100


def test_a_message_that_fits_every_diff_names_nothing_and_says_no_direction(changes):
    messages = ["Fix bug"] * len(changes)
    scores = score_messages(messages, [change.message for change in changes], diffs(changes))
    assert scores["names_touched"].value == 0 and scores["names_real"].value == 100
    assert 0 < scores["direction"].value < 100 and scores["verb"].value == 0


def test_an_invented_name_lowers_the_share_of_real_ones():
    diff = Diff(DIFF)
    assert share_real("Set limit to 3 in total", diff) == 100
    assert share_real("Set `limit` to 4", diff) == 50
    for invented in ("max_count", "maxCount", "numpy.load", "save()", "`x`", "12", "z"):
        assert share_real(f"Use {invented} for limit", diff) == 50, invented
    assert share_real("Fix sums.py and #12", diff) == 100  # a file of the header, and the number of an issue
    assert mentions("Add a test", diff) == []


def test_touched_names_are_those_whose_number_changes_or_all_on_changed_lines():
    assert Diff(DIFF).touched == {"count", "limit", "7", "3"}
    assert Diff("@@\n-return b < c\n+return b > c").touched == {"b", "c"}
    assert Diff("").touched == set() and Diff("--- a/x\n+++ b/x\n@@\n--- a\n+-- b").lines == (["-- a"], ["-- b"])
    scores = score_messages(["Set limit"] * 2, ["Use limit"] * 2, ["", DIFF])
    assert scores["names_touched"].rows == [1] and scores["names_touched"].per_example == [25]
    assert "names_touched" not in score_messages(["x"], ["y"], [""])


@pytest.mark.parametrize(
    ("message", "right"),
    [
        ("Use limit instead of count", 100), ("Use count instead of limit", 0), ("Rename count to limit", 100),
        ("Renamed limit to count", 0), ("Change the bound from 7 to 3", 100), ("Replace 3 by 7", 0),
        ("count -> limit", 100), ("Load 3, not 7", 100), ("Update the bound", 50),
    ],
)  # fmt: skip
def test_the_direction_follows_from_the_names_on_changed_lines(message, right):
    assert direction(message, "Use limit rather than count", Diff(DIFF)) == right


def test_what_only_adds_removes_nothing():
    added = Diff("@@\n x = 1\n+y = 2")
    assert direction("Add y", "Add y", added) == 100 and direction("Remove y", "Add y", added) == 0
    assert direction("Explain y", "Add y", added) == 50


def test_the_direction_covers_the_rows_whose_reference_says_one():
    """Elsewhere an empty message would be as right as any other."""
    added = "@@\n x = 1\n+y = 2"
    references = ["Fix y", "Use limit instead of count", "Add y", "Add y", "Remove y"]
    texts = [added, DIFF, added, DIFF, added]
    for message in ("", "garbage"):
        score = score_messages([message] * 5, references, texts)["direction"]
        assert score.rows == [1, 2] and score.per_example == [50, 50] and score.signature.endswith("n:2")
    doubled = [[text for text in of_all for _ in range(2)] for of_all in (references, references, texts)]
    score = score_messages(*doubled, 2)["direction"]
    assert score.rows == [1, 2] and score.per_example == [100] * 4
    assert "direction" not in score_messages([""], ["Fix y"], [added])


def test_operators_are_told_apart_by_the_words_of_the_reference():
    diff, reference = Diff("@@\n-return b < c\n+return b > c"), "Check that b is over c, not that b is under c"
    assert direction("Check for b is over c instead of b is under c", reference, diff) == 100
    assert direction("Check that b is under c, not that b is over c", reference, diff) == 0


def test_verbs_of_one_class_are_one_and_endings_do_not_matter():
    assert same_verb("fix(api): drops the cache", "Removed the cache") and same_verb("Computing x", "Compute y")
    assert not same_verb("Add x", "Remove x") and not same_verb("", "") and not same_verb("42", "42")

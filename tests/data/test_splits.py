"""Division and near duplicates, by their laws."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studykit.data.near_duplicates import drop_near_duplicates, find_similar, shingles, similarity
from studykit.data.request import Example
from studykit.data.rows import Row
from studykit.data.splits import SPLITS, assign_split, components, divide, require_groups
from studykit.errors import UserError

UNITS = st.lists(
    st.lists(st.sampled_from([f"r{i}" for i in range(12)]), min_size=1, max_size=3).map(tuple), max_size=25
)
SHARES = (0.5, 0.25, 0.25)


def examples(units, split=None):
    return [Example(Row(str(n), "go", "p", "t"), f"x, line {n}", split, u) for n, u in enumerate(units)]


@given(units=UNITS, seed=st.integers(0, 9))
def test_no_unit_and_no_group_is_in_two_splits(units, seed):
    divided = divide(examples(units), SHARES, seed)
    for of in (lambda e: e.units, lambda e: [e.row.group]):
        found = {split: {unit for e in divided if e.split == split for unit in of(e)} for split in SPLITS}
        assert not any(found[a] & found[b] for a, b in [("train", "valid"), ("train", "test"), ("valid", "test")])


@given(units=UNITS, seed=st.integers(0, 9), data=st.data())
def test_the_division_does_not_depend_on_the_order(units, seed, data):
    made = examples(units)
    mixed = data.draw(st.permutations(made))
    key = lambda e: (e.row.id, e.split, e.row.group)  # noqa: E731
    assert sorted(map(key, divide(made, SHARES, seed))) == sorted(map(key, divide(mixed, SHARES, seed)))


@given(units=UNITS)
def test_components_are_the_closure_of_shared_units(units):
    names = components(units)
    for a, of_a in zip(units, names, strict=True):
        assert of_a <= min(a)
        for b, of_b in zip(units, names, strict=True):
            assert of_a == of_b or not set(a) & set(b)
    reach = {frozenset(u for u, n in zip(units, names, strict=True) if n == name) for name in names}
    for group in reach:  # connected: what is reached from one member is all of it
        seen = set(next(iter(group)))
        while more := {unit for u in group if set(u) & seen for unit in u} - seen:
            seen |= more
        assert seen == {unit for u in group for unit in u}


def test_shares_are_met_and_the_seed_matters():
    names = [f"repository {n}" for n in range(4000)]
    drawn = [assign_split(name, (0.8, 0.15, 0.05), 0) for name in names]
    for split, share in zip(SPLITS, (0.8, 0.15, 0.05), strict=True):
        assert abs(drawn.count(split) / 4000 - share) < 0.02
    assert drawn != [assign_split(name, (0.8, 0.15, 0.05), 1) for name in names]
    assert {assign_split(name, (0.0, 1.0, 0.0), 0) for name in names} == {"valid"}
    assert {assign_split(name, (0.7, 0.3, 0.0), 0) for name in names} == {"train", "valid"}


def test_rows_that_join_no_group_move_nothing():
    few, more = ([(f"r{n}",) for n in range(k)] for k in (50, 90))
    assert [e.split for e in divide(examples(few), SHARES, 3)] == [e.split for e in divide(examples(more), SHARES, 3)][
        :50
    ]


def test_own_splits_stay_and_what_has_none_of_a_test_is_fitted():
    units = [(f"r{n}",) for n in range(200)]
    assert {e.split for e in divide(examples(units, "valid"), SHARES, 0)} == {"valid"}
    fitted = [e.split for e in divide(examples(units, "fit"), SHARES, 0)]
    assert set(fitted) == {"train", "valid"} and abs(fitted.count("train") / 200 - 2 / 3) < 0.1


def test_too_few_groups_to_divide():
    with pytest.raises(UserError, match=r"go belong to 2 repository only \(a, b\), .*set data.split_by to 'file' or"):
        require_groups(examples([("a",), ("b",)]), divide(examples([("a",), ("b",)]), SHARES, 0), "repository")


WORDS = st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join)


@settings(max_examples=60)
@given(texts=st.lists(WORDS, max_size=14), threshold=st.sampled_from([0.2, 0.5, 0.7, 0.9, 1.0]), n=st.integers(0, 4))
def test_the_filter_finds_what_comparing_all_pairs_finds(texts, threshold, n):
    sets, kept, wanted = [shingles(text) for text in texts], [], {}
    for index, grams in enumerate(sets):
        like = [j for j in kept if grams and similarity(grams, sets[j]) >= threshold] if index >= n else []
        if like:
            wanted[index] = like[0]
        else:
            kept.append(index)
    assert find_similar(texts, threshold, protected=n) == wanted


def test_shingles_ignore_space_and_short_texts_are_whole():
    assert shingles("a  b\n\tc") == shingles("a b c") != shingles("a b d")
    assert len(shingles("a b c d e f")) == 2 and shingles(" \n") == frozenset()


def row(text: str) -> Row:
    return Row("r", "go", f"<{text}>", "t", (1, len(text) + 1))


@settings(max_examples=30)
@given(texts=st.lists(WORDS, min_size=3, max_size=15), seed=st.integers(0, 99))
def test_after_thinning_the_test_is_whole_and_nothing_of_it_is_trained_on(texts, seed):
    rng = random.Random(seed)
    splits = {split: [row(rng.choice(texts)) for _ in range(5)] for split in SPLITS}
    kept, gone = drop_near_duplicates(splits, 0.6)
    assert kept["test"] == splits["test"]
    text = lambda r: f"{r.prompt[1:-1]}\nt"  # noqa: E731
    for split in ("train", "valid"):
        assert not any(
            similarity(shingles(text(a)), shingles(text(b))) >= 0.6 for a in kept[split] for b in kept["test"]
        )
    for n, a in enumerate(kept["train"]):
        others = kept["valid"] + kept["train"][:n]
        assert not any(similarity(shingles(text(a)), shingles(text(b))) >= 0.6 for b in others)
    assert {split for split, _ in gone} <= {"train", "valid"} and ("valid", "valid") not in gone
    for split in SPLITS:
        went = sum(len(items) for (from_, _), items in gone.items() if from_ == split)
        assert len(kept[split]) + went == 5

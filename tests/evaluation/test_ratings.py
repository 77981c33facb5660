"""Ratings: pairs are balanced and blind, answers are checked, and only texts that are still written count."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from studykit.errors import UserError
from studykit.evaluation.pairing import draw_pairs
from studykit.evaluation.preferences import measure_ratings
from studykit.evaluation.ratings import FORMAT, join_answers, read_keys, read_ratings, save_ratings
from studykit.evaluation.samples import Sample
from studykit.evaluation.scores import read_scores
from tests.made_study import evaluated

METHODS = ("base", "lora", "bottleneck", "full")


def sample(row: str, text: str) -> Sample:
    return Sample(id=row, prompt=f"task {row}", reference="", prediction=text, sample=0, finished=True,
                  prompt_cut=False, nats=None, tokens=None, status=None, stderr=None)  # fmt: skip


def written(methods=METHODS, rows=40, seeds=(0, 1, 2), text="{method} {seed} {row}".format):
    """The completions of each method; the base has no seed."""
    return {
        method: {
            seed: {f"r{n}": sample(f"r{n}", text(method=method, seed=seed, row=n)) for n in range(rows)}
            for seed in ((None,) if method == "base" else seeds)
        }
        for method in methods
    }


@pytest.mark.parametrize("count", [6, 60, 63])
def test_pairs_are_balanced_over_methods_sides_rows_and_seeds(count):
    key, texts = draw_pairs("s", written(), count, seed=0)
    met = Counter(frozenset((pair.first.method, pair.second.method)) for pair in key.pairs)
    assert len(met) == 6 and max(met.values()) - min(met.values()) <= 1 and len(key.pairs) == count
    lead = Counter(pair.first.method for pair in key.pairs)
    lead.subtract(pair.second.method for pair in key.pairs)
    assert max(map(abs, lead.values())) <= 3, lead
    rows = Counter(pair.row for pair in key.pairs)
    assert max(rows.values()) <= -(-count // 40), "no row comes again before all have come"
    assert all(None in (a.seed, b.seed) or a.seed == b.seed for a, b in ((p.first, p.second) for p in key.pairs))
    assert texts.keys() == {pair.id for pair in key.pairs} and len(key.repeats) == round(count / 10)
    assert len({*texts, *key.repeats}) == count + len(key.repeats) and set(key.repeats.values()) <= texts.keys()


def test_the_same_seed_draws_the_same_page_and_another_one_another():
    pages = [draw_pairs("s", written(), 12, seed)[0] for seed in (0, 0, 1)]
    assert pages[0] == pages[1] and pages[0].page != pages[2].page


def test_equal_texts_are_ties_that_nobody_sees():
    """Of two methods with equal texts in three of four rows, the ties stay three for each shown pair."""

    def text(method, seed, row):
        return f" {row}\n" if row % 4 and method == "lora" else f"{row}" if row % 4 else method

    key, texts = draw_pairs("s", written(("lora", "bottleneck"), rows=400, text=text), 50, seed=0)
    assert all(shown.first.strip() != shown.second.strip() for shown in texts.values())
    ties = [pair for alike in key.alike.values() for pair in alike]
    assert len(key.pairs) == 50 and 100 < len(ties) < 220 and all(int(pair.row[1:]) % 4 for pair in ties)
    with pytest.raises(UserError, match="All completions of lora, bottleneck are alike"):
        draw_pairs("s", written(("lora", "bottleneck"), text="same".format), 5, seed=0)


def test_where_first_lines_are_scored_only_they_are_shown():
    def text(method, seed, row):
        return f"\nFix {method}\nmore" if row % 2 else f"Fix it\n{method}"

    key, texts = draw_pairs("s", written(("lora", "bottleneck"), text=text), 5, seed=0, first_line=True)
    assert {text for shown in texts.values() for text in (shown.first, shown.second)} == {"Fix lora", "Fix bottleneck"}


def test_few_pairs_are_refused_and_rare_differences_shown_as_far_as_there_are_any():
    with pytest.raises(UserError, match="3 pairs of 4 methods are too few; ask for at least one pair per method"):
        draw_pairs("s", written(), 3, seed=0)

    def text(method, seed, row):
        return method if row == 0 else "same"

    key, _ = draw_pairs("s", written(("lora", "bottleneck"), text=text), 30, seed=0)
    assert len(key.pairs) == 3 and sum(map(len, key.alike.values())) == 39 * 3 and key.alike[""]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with evaluations of three methods, and the key of a page."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    planned = evaluated(tmp_path, lambda method, seed, n: f"{method} {seed} {n}", group=2)
    runs = planned.result.params["evaluations"]
    samples = {method: read(tmp_path / run) for method, run in runs.items()}
    key, _ = draw_pairs("tiny", samples, 12, seed=0)
    folder = tmp_path / "ratings/tiny"
    folder.mkdir(parents=True)
    (folder / f"key-{key.page}.json").write_text(key.model_dump_json())
    return planned, folder, key


def read(run):
    from studykit.evaluation.pairing import first_samples
    from studykit.evaluation.samples import read_samples

    return {one.seed: first_samples(read_samples(run, one)) for one in read_scores(run).final}


def answered(key, likes, rater="alice", **changes) -> dict:
    """What a page saves for a rater who likes one method best, then the first in the alphabet."""
    pairs = {pair.id: pair for pair in key.pairs}

    def choice(pair):
        names = (pair.first.method, pair.second.method)
        return "first" if min(names, key=lambda name: (name != likes, name)) == names[0] else "second"

    answers = [{"pair": id, "choice": choice(pair), "left": "first", "seconds": 2.5} for id, pair in pairs.items()]
    answers += [
        {"pair": id, "choice": choice(pairs[of]), "left": "second", "seconds": 1} for id, of in key.repeats.items()
    ]
    return {"format": FORMAT, "page": key.page, "rater": rater, "answers": answers} | changes


def saved(folder, content) -> object:
    file = folder.parent / "answers.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def found(planned):
    runs = planned.result.params["evaluations"]
    scores = {method: read_scores(run) for method, run in runs.items()}
    return measure_ratings(planned.result.params["ratings"], scores, runs, "base", 0.95, 300)


def test_what_raters_prefer_comes_back(study):
    planned, folder, key = study
    assert read_keys(folder) == [key] and found(planned) is None
    for rater, likes in (("alice", "lora"), ("Bob", "lora"), ("Ä/../x", "bottleneck")):
        save_ratings(join_answers(saved(folder, answered(key, likes, rater)), folder, "tiny"), folder)
    assert [ratings.rater for ratings in read_ratings("ratings/tiny")] == ["alice", "Bob", "Ä/../x"]
    assert all(file.parent == folder for file in folder.glob("rated-*")) and len(list(folder.glob("rated-*"))) == 3
    result = found(planned)
    shares = {row.method: row.share for row in result.methods}
    assert shares["lora"] > shares["base"] > shares["bottleneck"]
    assert result.shown == result.shared == 12 and result.clusters == 6 and result.outdated == 0
    assert sum(one.wins + one.ties + one.losses for one in result.tallies) == 36 and result.alpha < 0, (
        "no pair has three equal choices"
    )
    alice = result.raters[0]
    assert (alice.pairs, alice.repeated, alice.consistent, alice.seconds) == (12, 1, 1, 2.5)
    for one in result.raters:
        assert one.left is not None and 0 < one.left < 100


def test_texts_that_changed_do_not_count(study, tmp_path):
    planned, folder, key = study
    save_ratings(join_answers(saved(folder, answered(key, "lora")), folder, "tiny"), folder)
    changed = evaluated(tmp_path, lambda method, seed, n: f"{method} {seed} {n}{'!' * (method == 'lora')}", group=2)
    result = found(changed)
    assert result.shown + result.outdated == 12 and result.outdated == sum(
        "lora" in (pair.first.method, pair.second.method) for pair in key.pairs
    )
    assert [row.method for row in result.methods] == ["base", "bottleneck"]
    gone = evaluated(tmp_path, lambda method, seed, n: "new", group=2)
    assert found(gone) is None


def test_a_tie_of_equal_texts_counts_with_the_pair_drawn_after_it(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    planned = evaluated(tmp_path, lambda method, seed, n: "same" if n % 2 else f"{method} {seed} {n}")
    runs = planned.result.params["evaluations"]
    key, _ = draw_pairs("tiny", {method: read(tmp_path / run) for method, run in runs.items()}, 12, seed=0)
    folder = tmp_path / "ratings/tiny"
    folder.mkdir(parents=True)
    (folder / f"key-{key.page}.json").write_text(key.model_dump_json())
    answers = answered(key, "lora")
    some = {pair for pair, alike in key.alike.items() if alike}
    answers["answers"] = [one for one in answers["answers"] if one["pair"] not in some]
    save_ratings(join_answers(saved(folder, answers), folder, "tiny", unfinished=True), folder)
    assert some and sum(one.alike for one in found(planned).tallies) == 0
    for file in folder.glob("rated-*"):
        file.unlink()
    save_ratings(join_answers(saved(folder, answered(key, "lora")), folder, "tiny"), folder)
    assert sum(one.alike for one in found(planned).tallies) == sum(map(len, key.alike.values()))


def test_ties_after_the_last_pair_count_once_all_pairs_are_answered(study):
    planned, folder, key = study
    *shown, last = key.pairs
    key = key.model_copy(update={"pairs": shown, "repeats": {}, "alike": {"": [last]}})
    (folder / f"key-{key.page}.json").write_text(key.model_dump_json())
    answers = answered(key, "lora")
    for left, ties in ((1, 0), (0, 1)):
        few = answers | {"answers": answers["answers"][left:]}
        save_ratings(join_answers(saved(folder, few), folder, "tiny", unfinished=True), folder)
        assert sum(one.alike for one in found(planned).tallies) == ties
        for file in folder.glob("rated-*"):
            file.unlink()


def test_a_rater_without_an_answer_that_counts_changes_nothing(study):
    """Else half of the resamples would draw nobody but this rater, and every interval would hold almost all shares."""
    planned, folder, key = study
    save_ratings(join_answers(saved(folder, answered(key, "lora")), folder, "tiny"), folder)
    alone = found(planned)
    empty = answered(key, "lora", "Bob", answers=[])
    save_ratings(join_answers(saved(folder, empty), folder, "tiny", unfinished=True), folder)
    assert found(planned) == alone and [one.rater for one in alone.raters] == ["alice"]


def test_each_damage_has_its_sentence(study):
    _, folder, key = study
    good = answered(key, "lora")

    def refused(content, message, **options):
        with pytest.raises(UserError, match=message):
            join_answers(saved(folder, content), folder, "tiny", **options)

    one = good["answers"][0]
    refused("{", "answers.json does not hold the answers of a rating page")
    refused({"cells": []}, "does not hold the answers of a rating page")
    refused(good | {"answers": [one | {"choice": "third"}]}, r"\(at answers.0.choice\)")
    refused(good | {"answers": [one | {"seconds": -1}]}, r"\(at answers.0.seconds\)")
    refused(good | {"page": "0" * 10}, f"page '0000000000'; the pages of the study tiny are: {key.page}")
    refused(good | {"answers": [one | {"pair": "x"}]}, f"answers pair 'x', which page {key.page} does not have")
    refused(good | {"answers": [one, one]}, "answers a pair twice")
    refused(good | {"answers": [one]}, "answers 1 of 13 pairs; answer the others on the same page")
    refused(good | {"rater": " "}, "empty name of a rater")
    with pytest.raises(UserError, match="missing.json cannot be read"):
        join_answers(folder / "missing.json", folder, "tiny")
    join_answers(saved(folder, good | {"answers": [one]}), folder, "tiny", unfinished=True)
    save_ratings(join_answers(saved(folder, good), folder, "tiny"), folder)
    save_ratings(join_answers(saved(folder, good), folder, "tiny"), folder)
    with pytest.raises(UserError, match="alice has answered page .* already"):
        save_ratings(join_answers(saved(folder, answered(key, "base")), folder, "tiny"), folder)

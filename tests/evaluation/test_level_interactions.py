"""Differences in differences between studies: which studies meet, and that they are what four methods would give."""

from __future__ import annotations

import pytest

from studykit.errors import UserError
from studykit.evaluation import level_interactions as module
from studykit.evaluation.comparison import compare
from studykit.evaluation.gathered import GatheredMetric
from studykit.report import pooled
from studykit.runs.files import write_json
from studykit.study.gather_parameters import GatherParams
from tests import made_runs
from tests.made_scores import changed, method, rescored

CROSSED = {
    "adapter": {"a": "none", "b": "none", "c": "nf4", "d": "nf4"},
    "fusion": {"a": "none", "b": "nf4", "c": "none", "d": "nf4"},
}


def made(home, shares, change=lambda study, content: content) -> dict[str, str]:
    """Compare runs by study, of two methods with these pass rates."""
    runs = {}
    for study, of_study in shares.items():
        evaluations = {}
        for word, (share, spread) in of_study.items():
            place = home / f"runs/evaluate/{study}-{word}-0000000000"
            place.mkdir(parents=True)
            content = change(study, method(share, seeds=(0, 1, 2), spread=spread, n=60))
            write_json(place / "scores.json", content.model_dump(mode="json"))
            made_runs.finish(place, "evaluate", {})
            evaluations[word] = str(place)
        runs[study] = str(home / f"runs/compare/{study}-0000000000")
        (home / f"runs/compare/{study}-0000000000").mkdir(parents=True)
        made_runs.finish(home / f"runs/compare/{study}-0000000000", "compare", {"evaluations": evaluations})
    return runs


def test_studies_meet_that_differ_in_one_key_alone():
    assert module.changes_of("fusion", CROSSED) == [("fusion", "a", "b"), ("fusion", "c", "d")]
    assert module.changes_of("adapter", CROSSED) == [("adapter", "a", "c"), ("adapter", "b", "d")]
    three = {"x": {"a": 1, "b": 2, "c": 3}}
    assert module.changes_of("x", three) == [("x", "a", "b"), ("x", "a", "c")]


def test_a_difference_in_differences_is_that_of_four_methods(tmp_path):
    shares = {"a": {"adv": (0.5, 0.02), "plain": (0.4, 0.01)}, "b": {"adv": (0.3, 0.03), "plain": (0.4, 0.0)}}
    levels = {"fusion": {"a": "none", "b": "nf4"}, "adapter": {"a": "none", "b": "none"}}
    p = GatherParams(compares=made(tmp_path, shares), levels=levels, over=["fusion"], interactions=["fusion"])
    (found,) = module.level_interactions(p, "pass_at_1", [("adv", "plain")])
    four = {f"{word}{study}": method(*shares[study][word][:1], spread=shares[study][word][1], n=60)
            for study in "ab" for word in ("adv", "plain")}  # fmt: skip
    wanted = compare(four, "pass_at_1", "plaina", 0.95, 10_000, pairs=[],
                     interactions=[["advb", "plainb", "adva", "plaina"]]).interactions[0]  # fmt: skip
    assert found.contrast.value == pytest.approx(wanted.value) and found.contrast.by_seed == wanted.by_seed
    assert found.contrast.overall_interval == wanted.overall_interval and found.contrast.verdict == wanted.verdict
    assert (found.factor, found.level, found.reference, found.elsewhere) == (
        "fusion",
        "nf4",
        "none",
        {"adapter": "none"},
    )
    of_metric = GatheredMetric(metric="pass_at_1", label="pass@1", unit="%", gathered=[], interactions=[found])
    (line,) = pooled.interaction_table(of_metric)
    assert line["difference"] == "adv − plain" and line["verdict"] in (
        "undecided",
        "smaller",
        "smaller on these seeds only",
    )


def only_half(scores):
    """The scores with a pass@1 of the second half of the rows."""
    half = scores["pass_at_1"].model_copy(update={"rows": list(range(30, 60)), "n": 30})
    return scores | {"pass_at_1": half.model_copy(update={"per_example": half.per_example[30:]})}


def test_studies_of_other_rows_do_not_meet(tmp_path):
    shares = {study: {"adv": (0.5, 0.0), "plain": (0.4, 0.0)} for study in "ab"}
    runs = made(tmp_path, shares, lambda study, of: changed(of, ids=[f"{study}{n}" for n in range(60)]))
    p = GatherParams(
        compares=runs, levels={"data.seed": {"a": 0, "b": 1}}, over=["data.seed"], interactions=["data.seed"]
    )
    with pytest.raises(UserError, match="the studies 'a' and 'b', whose test rows differ"):
        module.level_interactions(p, "pass_at_1", [("adv", "plain")])
    runs = made(tmp_path / "covered", shares, lambda study, of: of if study == "a" else rescored(of, only_half))
    p = p.model_copy(update={"compares": runs})
    with pytest.raises(UserError, match="'a' and 'b', whose evaluations have the score pass@1 on different rows"):
        module.level_interactions(p, "pass_at_1", [("adv", "plain")])
    assert module.level_interactions(p.model_copy(update={"interactions": []}), "pass_at_1", [("adv", "plain")]) == []

"""Gathering: one study is itself, every named respect is a source of error, and false findings are as rare as said."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from studykit.data.rows import Row, write_rows
from studykit.errors import UserError
from studykit.evaluation import gathering
from studykit.evaluation.comparison import compare
from studykit.evaluation.covariates import covariates, is_logarithmic
from studykit.evaluation.differences import Cell, by_trainings, pool, seed_error
from studykit.evaluation.gathered import GatheredResults
from studykit.evaluation.results import ComparisonResults
from studykit.evaluation.student import StandardError, student_t
from studykit.report import figures, pooled
from studykit.runs.files import write_json
from studykit.study.gather_parameters import GatherParams
from tests import made_runs
from tests.made_scores import method

SCORES = {"base": method(0.2), "adapterfusion": method(0.4, spread=0.01), "advfusion_zero": method(0.5, spread=0.02)}
MAIN = compare(SCORES, "pass_at_1", "adapterfusion", 0.95, 2000)
STUDY = ComparisonResults(main="pass_at_1", metrics={"pass_at_1": MAIN}, sources=[], attention=[], cost=[], time=[])


def cell(value, base="a", draw=0, error=1.0, rows=None, seeds=()) -> Cell:
    levels = {"base": base, "data.seed": draw}
    rows = f"rows {draw}" if rows is None else rows
    return Cell(f"{base} {draw}", levels, value, StandardError(error, 99), list(seeds), rows, MAIN.contrasts[0])


def test_one_study_is_itself():
    (one,) = gathering.study_cells(
        {"s": STUDY}, "pass_at_1", "advfusion_zero", "adapterfusion", {"base": {"s": "a"}}, {"s": "r"}
    )
    contrast = MAIN.contrast("advfusion_zero", "adapterfusion")
    gathered = pool([one], ["base"])
    assert gathered.value == contrast.value and gathered.tau == 0 and gathered.prediction is None
    assert gathered.studies[0].interval == contrast.overall_interval
    assert gathered.interval.high - gathered.value == pytest.approx(contrast.overall_interval.high - contrast.value)


def test_bases_are_pooled_over_their_own_spread():
    gathered = pool([cell(y, base, rows=base) for base, y in zip("abcd", (1, 3, 5, 7), strict=True)], ["base"])
    error = math.sqrt(np.var([1, 3, 5, 7], ddof=1) / 4)
    assert gathered.value == pytest.approx(4) and not gathered.rows_shared
    assert gathered.interval.high - 4 == pytest.approx(student_t(0.975, 3) * error)
    assert [unit.name for unit in gathered.units] == list("abcd")
    assert gathered.prediction.high > gathered.interval.high, "another base differs by more than the mean errs"


def test_rows_that_all_bases_share_add_their_error():
    values = list(zip("abcd", (1, 3, 5, 7), strict=True))
    apart = pool([cell(y, base, rows=base) for base, y in values], ["base"])
    shared = pool([cell(y, base) for base, y in values], ["base"])
    halves = [one.interval.high - one.value for one in (apart, shared)]
    assert shared.rows_shared and halves[1] == pytest.approx(math.hypot(halves[0], student_t(0.975, 99) * 1.0))


def test_draws_of_the_data_are_a_second_source_of_error():
    cells = [cell(i + 4 * j, base, j) for i, base in enumerate("abc") for j in (0, 1, 2)]
    alone, both = pool(cells, ["base"]), pool(cells, ["base", "data.seed"])
    assert both.value == pytest.approx(alone.value) and not both.rows_shared
    bases = student_t(0.975, 2) * math.sqrt(1 / 3)  # the bases' spread is no larger than their own errors
    draws = student_t(0.975, 2) * 4 / math.sqrt(3)
    assert both.interval.high - both.value == pytest.approx(math.hypot(bases, draws), rel=0.01)
    assert alone.rows_shared, "without the draws, their rows are the same for all bases"


def test_a_slope_on_the_logarithm():
    covariate = {f"{base} {j}": float(i) for i, base in enumerate("abcd") for j in (0, 1)}
    cells = [cell(1 + 2 * i + (0.1 if j else -0.1), base, j, 0.1) for i, base in enumerate("abcd") for j in (0, 1)]
    slope = pool(cells, ["base", "data.seed"], covariate=covariate).slope
    assert slope.value == pytest.approx(2) and slope.constant == pytest.approx(1) and slope.p < 0.05
    assert slope.interval.low < 2 < slope.interval.high
    assert pool(cells[:4], ["base"], covariate=covariate).slope.interval is None, "two points always lie on a line"
    assert pool(cells, ["data.seed"], covariate=dict.fromkeys(covariate, 1.0)).slope is None


def test_a_study_whose_seeds_agree_by_chance_does_not_outweigh_the_others():
    """Three studies of two seeds each have one variance over seeds, with three degrees of freedom, and equal weights."""
    seeds = {"a": (0.999, 1.001), "b": (0.0, 2.0), "c": (4.0, 6.0)}
    cells = [cell(float(np.mean(of)), base, error=0.1, rows=base, seeds=of) for base, of in seeds.items()]
    squares = 2 * (0.001**2 + 1 + 1)
    error = seed_error(cells)
    assert error.df == 3 and error.value == pytest.approx(math.sqrt(squares / 3))
    gathered = pool(cells, ["base"])
    assert [unit.weight for unit in gathered.units] == pytest.approx([1 / 3] * 3)
    assert gathered.studies[0].error == pytest.approx(math.sqrt(0.01 + squares / 6))
    one = [cell(1.0, "d", rows="d", seeds=[1.0]), *cells]
    assert seed_error(one) == error, "one seed has no variance of its own"
    assert pool(one, ["base"]).units[0].weight < 0.25, "but it has the error of one seed in this family"
    assert seed_error(one[:1]) is None
    interval = gathered.units[0].interval
    half = math.hypot(student_t(0.975, 99) * 0.1, student_t(0.975, 3) * math.sqrt(squares / 6))
    assert interval.high - 1 == pytest.approx(half) == 1 - interval.low, "three degrees of freedom widen the interval"


def test_trainings_that_several_studies_evaluate_count_once():
    """Evaluated twice, with equal results, trainings say of others what they say evaluated once."""
    of = {"a": (0.0, 2.0), "b": (4.0, 6.0), "c": (1.0, 1.5)}
    once = [cell(float(np.mean(seeds)), base, rows=base, seeds=seeds) for base, seeds in of.items()]
    named = [replace(one, trainings=(f"runs/fusion/{one.study}",)) for one in once]
    twice, apart = ([replace(one, levels=one.levels | {"evaluate": kept}) for one in cells for kept in ("none", "nf4")]
                    for cells in (named, once))  # fmt: skip
    single, double = pool(once, ["base"]), pool(twice, ["base"])
    assert double.interval == single.interval and double.p == single.p and double.tau == single.tau
    assert seed_error(by_trainings(twice)) == seed_error(once) and seed_error(apart).df == 6
    assert [unit.studies for unit in double.units] == [2, 2, 2] and len(double.studies) == 6
    halves = [one.units[0].interval.high - one.units[0].value for one in (double, pool(apart, ["base"]))]
    assert halves[0] > 1.3 * halves[1], "as if they were other trainings, a unit would seem better known than it is"
    assert pool(twice[:2], ["base"]).interval == pool(once[:1], ["base"]).interval
    four = replace(twice[1], value=3.0, seeds=[2.0, 4.0], row_error=StandardError(3.0, 99))
    (mean,) = by_trainings([twice[0], four])
    assert (mean.value, mean.seeds, mean.row_error.value) == (2.0, [1.0, 3.0], 2.0)


def test_methods_whose_trainings_several_studies_share_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    compares = {}
    for study, fusion in {"full": "f", "nf4": "f", "other": "g"}.items():
        compares[study] = f"runs/compare/{study}"
        (tmp_path / compares[study]).mkdir(parents=True)
        evaluations = {word: f"runs/evaluate/{study}-{word}" for word in ("base", "adapterfusion")}
        params = {"evaluations": evaluations, "adapters": {}, "fusions": {"adapterfusion": [f"runs/fusion/{fusion}"]}}
        made_runs.finish(tmp_path / compares[study], "compare", params)
    p = GatherParams(compares=compares, data={}, bases={}, levels={}, over=["x"])
    assert gathering.shared_methods(p) == ["adapterfusion"], "evaluated in other numbers, but one training"
    assert len({gathering.trainings(run) for run in compares.values()}) == 2


def test_methods_without_a_differing_row_are_not_known_exactly():
    same = {"average": SCORES["base"], "lora": SCORES["base"]}
    study = STUDY.model_copy(update={"metrics": {"pass_at_1": compare(same, "pass_at_1", "average", 0.95, 2000)}})
    (one,) = gathering.study_cells({"s": study}, "pass_at_1", "lora", "average", {"base": {"s": "x"}}, {"s": "r"})
    assert one.value == 0 and one.row_error.value == 100 / 200


def test_pairs_that_all_studies_have():
    other = {name: SCORES[name] for name in ("base", "adapterfusion", "advfusion_zero")} | {"lora": method(0.3)}
    more = STUDY.model_copy(update={"metrics": {"pass_at_1": compare(other, "pass_at_1", "adapterfusion", 0.95, 2000)}})
    assert gathering.shared_pairs({"a": more, "b": STUDY}, "pass_at_1") == [["advfusion_zero", "adapterfusion"]]
    with pytest.raises(UserError, match="'b' does not compare lora with adapterfusion"):
        gathering.study_cells({"b": STUDY}, "pass_at_1", "lora", "adapterfusion", {}, {"b": "r"})


def test_an_interaction_that_all_studies_test_is_pooled_as_a_difference_is(tmp_path, monkeypatch):
    """AdvFusion gains 10, 14 and 12 points more over LoRAs than over bottlenecks, in three draws."""
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    four = ("advfusion_zero-lora", "adapterfusion-lora", "advfusion_zero", "adapterfusion")
    levels, runs, data = {"draw": {}}, {}, {}
    for draw, gain in enumerate((0.10, 0.14, 0.12)):
        shares = dict(zip(four, (0.5 + gain, 0.5, 0.4, 0.4), strict=True))
        scores = {word: method(share, spread=0.01 * n) for n, (word, share) in enumerate(shares.items())}
        asked = [[*four], [*four[2:], *four[:2]]][: 1 if draw else 2]  # the first study tests one more
        made = compare(scores, "pass_at_1", "adapterfusion", 0.95, 4000, interactions=asked)
        study = f"draw {draw}"
        levels["draw"][study], runs[study], data[study] = draw, f"runs/compare/{draw}", f"runs/data/{draw}"
        results = STUDY.model_copy(update={"metrics": {"pass_at_1": made}})
        (tmp_path / runs[study]).mkdir(parents=True)
        write_json(tmp_path / runs[study] / "compare.json", results.model_dump(mode="json"))
        made_runs.finish(tmp_path / runs[study], "compare", {"evaluations": {"base": f"runs/evaluate/{draw}"}})
        (tmp_path / data[study] / "rows/lua").mkdir(parents=True)
        (tmp_path / data[study] / "rows/lua/test.jsonl").write_text(f"{draw}\n")
        made_runs.finish(tmp_path / data[study], "data", {})
    found = gathering.gather(GatherParams(compares=runs, data=data, bases={}, levels=levels, over=["draw"])).main
    (one,) = found.pooled_interactions
    assert (one.method, one.against) == (
        "advfusion_zero-lora \u2212 adapterfusion-lora",
        "advfusion_zero \u2212 adapterfusion",
    )
    assert [round(study.value) for study in one.studies] == [10, 14, 12] and one.value == pytest.approx(12, abs=0.5)
    assert one.direction == "better" and one.p_holm == one.p, "it is corrected apart from the plain differences"
    (line,) = pooled.pooled_interaction_table(found)
    assert line["verdict"] == "larger" and line["difference"].startswith("(advfusion_zero-lora \u2212 ")
    results = GatheredResults(over=["draw"], covariate=None, confidence=0.95, shared_methods=[], metrics=[found])
    assert any(
        "is larger than **advfusion_zero \u2212 adapterfusion** over draw" in said for said in pooled.in_brief(results)
    )
    figure = figures.forest_of_studies(one, results, found)
    assert "(advfusion_zero-lora \u2212 adapterfusion-lora) \u2212 (advfusion_zero \u2212 adapterfusion)" in figure.alt


@pytest.mark.parametrize("changes, error", [
    ({"covariate": "size"}, "which is no number in the study 'x'"),
    ({"covariate": "data.seed"}, "which is 0 in the study 'x' and has no logarithm"),
    ({"covariate": "kinship", "values": {"lua": 1.0}}, "gather.values has no number for 'ruby'"),
])  # fmt: skip
def test_a_covariate_is_a_number_of_every_study(changes, error):
    levels = {"target": {"x": "ruby"}, "data.seed": {"x": 0}}
    p = GatherParams(compares={"x": "runs/compare/x"}, levels=levels, over=["target"], **changes)
    with pytest.raises(UserError, match=error):
        covariates(p, {"x": "ruby"})


def test_the_similarity_of_sources_and_target_is_a_covariate(tmp_path, monkeypatch):
    """The mean over the sources, as it is: half of `a`'s tokens in x are the target's, none of the others' are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDYKIT_HOME", str(tmp_path))
    texts = {
        "x": {"a": "return y", "b": "end if", "t": "return z"},
        "y": {"a": "end if", "b": "end if", "t": "return z"},
    }
    for study, of_study in texts.items():
        rows = {name: {"test": [Row("1", name, "p", text, group="1")]} for name, text in of_study.items()}
        write_rows(tmp_path / f"runs/data/{study}-0000000001/rows", rows)
        params = {"members": list(of_study), "target": "t", "task": "generation", "language": ""}
        made_runs.finish(tmp_path / f"runs/data/{study}-0000000001", "data", params)
    data = {study: f"runs/data/{study}-0000000001" for study in texts}
    runs = {study: f"runs/compare/{study}" for study in texts}
    found = {}
    for measure in ("tokens", "programs", "syntax"):
        p = GatherParams(compares=runs, data=data, bases=dict.fromkeys(texts, ""), levels={}, over=["target"],
                         covariate=measure)  # fmt: skip
        if measure == "syntax":
            with pytest.raises(UserError, match="'syntax', which is no number in the study 'x'"):
                covariates(p, dict.fromkeys(texts, "t"))
        else:
            found[measure] = covariates(p, dict.fromkeys(texts, "t"))
            assert not is_logarithmic(p) and is_logarithmic(p.model_copy(update={"covariate": "parameters"}))
    assert found == {"tokens": {"x": 0.25, "y": 0}, "programs": {"x": 0.25, "y": 0}}


@pytest.mark.parametrize("of_bases, of_draws", [(0, 0), (3, 0), (0, 3), (3, 3)])
def test_false_findings_are_rare_whatever_varies(of_bases, of_draws):
    """Five bases and three draws of the data, no true difference on average: at most 5 % find one, and 3 sd of it."""
    rng, found, slopes, studies = np.random.default_rng(0), 0, 0, 150
    covariate = {f"{base} {j}": float(i) for i, base in enumerate("abcde") for j in range(3)}
    for _ in range(studies):
        bases, draws = of_bases * rng.standard_normal(5), of_draws * rng.standard_normal(3)
        cells = [
            cell(bases[i] + draws[j] + rng.standard_normal(), base, j)
            for i, base in enumerate("abcde")
            for j in range(3)
        ]
        gathered = pool(cells, ["base", "data.seed"], covariate=covariate)
        found += gathered.p < 0.05
        slopes += gathered.slope.p < 0.05
    assert max(found, slopes) / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies), (found, slopes)


@pytest.mark.parametrize("spreads", [(1, 1, 1, 1, 1), (0.02, 0.3, 0.5, 1, 1)])
def test_false_findings_are_rare_with_two_seeds(spreads):
    """Five bases of which two seeds each are known, and no true difference on average: at most 5 %, and 3 sd of it."""
    rng, found, studies = np.random.default_rng(0), 0, 300
    for _ in range(studies):
        cells = []
        for base, spread in zip("abcde", spreads, strict=True):
            seeds = 0.2 * rng.standard_normal() + spread * rng.standard_normal(2)
            cells.append(cell(float(seeds.mean()), base, error=1e-4, rows=base, seeds=seeds))
        found += pool(cells, ["base"]).p < 0.05
    assert found / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies), found

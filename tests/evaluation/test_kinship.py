"""Ranks of sources: a perfect order is found, a placebo is not, and languages of a matrix change places together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from studykit.errors import UserError
from studykit.evaluation import kinship
from studykit.evaluation.kinship import QUALITY, TRANSFER, TRUTH, Sources
from studykit.report import figures
from studykit.report import kinship as report

NAMES, SHARES = list("abcde"), [1.0, 0.75, 0.5, 0.25, 0.0]


def rank(studies, asked=("known",), **options):
    return kinship.rank(studies, asked, **options)


def study(at: int, outcome=None, quality=None, target: str = "t", names=NAMES) -> Sources:
    rng = np.random.default_rng(at)
    known = list(rng.permutation(SHARES))
    outcomes = {"weight, m": known if outcome is None else outcome}
    return Sources(
        study=f"s{at}",
        target=target,
        names=list(names),
        similarity={"known": known, "position": [-float(i) for i in range(5)]},
        outcomes=outcomes | ({QUALITY: quality} if quality else {}),
    )


def test_a_perfect_order_is_found_and_the_position_is_not():
    found = rank([study(at) for at in range(30)], ("known", "position"), draws=300)
    known, position = found.of("known", "weight, m"), found.of("position", "weight, m")
    assert known.mean == known.first == 1 and known.p == pytest.approx(1 / 301)
    assert abs(position.mean) < 0.3 and position.interval.low < 0 < position.interval.high and position.p > 0.05
    assert "mean rank correlation of +1.00" in report.sentences(found)[0]
    assert report.table_of(found)[0]["most similar is first"] == "100%"


def test_syntax_is_said_to_be_uncalibrated_and_no_other_measure_is():
    studies = [study(at) for at in range(6)]
    studies = [replace(one, similarity=one.similarity | {"syntax": one.similarity["known"]}) for one in studies]
    found = rank(studies, ("known", "syntax"), draws=20)
    names = [row["similarity"] for row in report.table_of(found)]
    assert names == ["known", "syntax (not calibrated)"]
    said = report.sentences(found)
    assert said[1].startswith("Similarity by syntax (not calibrated) and attention") and "not calibrated" not in said[0]
    assert sum("Made languages have no grammar" in sentence for sentence in said) == 1
    assert not any("not calibrated" in sentence for sentence in report.sentences(rank(studies, draws=20)))


def test_cross_entropy_is_ranked_against_attention_but_not_against_the_loss_that_it_is():
    """The loss would agree with itself whatever was found; with known kinship and with attention it need not."""
    studies = []
    for at in range(6):
        one = study(at)
        losses = [-share for share in one.similarity["known"]]
        outcomes = one.outcomes | {TRUTH: one.similarity["known"], TRANSFER: losses}
        studies.append(replace(one, similarity=one.similarity | {"cross_entropy": losses}, outcomes=outcomes))
    found = rank(studies, ("known", "cross_entropy"), draws=20)
    pairs = {(one.measure, one.outcome) for one in found.ranked}
    assert pairs == {
        *(("known", outcome) for outcome in ("weight, m", TRANSFER)),
        *(("cross_entropy", outcome) for outcome in ("weight, m", TRUTH)),
    }
    assert found.of("cross_entropy", TRUTH).mean == found.of("known", TRANSFER).mean == pytest.approx(-1)
    assert f"The same numbers are no pair: known and {TRUTH}; cross_entropy and {TRANSFER}." in report.caption(found)
    assert "cross_entropy" not in report.caption(rank(studies, draws=20))


def test_losses_of_a_matrix_of_languages_stand_by_target_and_source():
    languages = list("abcd")
    studies = []
    for at, target in enumerate(languages * 2):
        sources = [name for name in languages if name != target]
        losses = [1.0 + 0.1 * languages.index(name) + (at >= 4) for name in sources]
        known = {"known": [3.0, 2.0, 1.0]}
        studies.append(Sources(f"s{at}", target, sources, known, {TRANSFER: [-loss for loss in losses]}))
    found = rank(studies, draws=20).transfer
    assert found["b"] == pytest.approx({"a": 1.5, "c": 1.7, "d": 1.8}), "means over both draws"
    assert rank(studies[:1] * 3, draws=20).transfer == {}, "one target is no matrix"
    figure = figures.transfer_matrix(found)
    (axes,) = [axes for axes in figure.axes if axes.get_xlabel().startswith("target")]
    assert [text.get_text() for text in axes.texts[:3]] == ["1.50", "1.50", "1.50"], "the source a, target by target"
    assert "b a 1.50" in figure.alt and len(axes.texts) == 12


def test_five_sources_of_one_study_are_not_enough():
    found = rank([study(0)], draws=2000).of("known", "weight, m")
    assert found.interval is None
    assert found.p == pytest.approx(2 / 120, abs=0.01), "of 120 orders, this one and its reverse"


def test_quality_that_explains_attention_leaves_nothing():
    rng, studies = np.random.default_rng(0), []
    for at in range(40):
        quality = rng.normal(size=5)
        outcome = quality + rng.normal(size=5) * 0.3
        one = study(at, list(outcome), list(quality))
        one.similarity["known"] = list(quality + rng.normal(size=5) * 0.3)
        studies.append(one)
    found = rank(studies, draws=20).of("known", "weight, m")
    assert found.mean > 0.6 and abs(found.partial) < 0.35


def test_the_languages_of_a_matrix_change_places_together():
    languages, rng = list("abcdef"), np.random.default_rng(1)
    similarity = rng.normal(size=(6, 6))
    similarity = similarity + similarity.T
    studies = []
    for t, target in enumerate(languages):
        others = [i for i in range(6) if i != t]
        row = [float(similarity[t, i]) for i in others]
        studies.append(Sources(target, target, [languages[i] for i in others], {"known": row}, {"weight, m": row}))
    assert rank(studies, draws=200).of("known", "weight, m").p < 0.02
    hub = [
        [float(x in ("a", "b")) for x in one.names] for one in studies
    ]  # two languages are alike to all, and help all
    helped = [
        Sources(one.study, one.target, one.names, {"known": row}, {"weight, m": row})
        for one, row in zip(studies, hub, strict=True)
    ]
    apart = [replace(one, target="t") for one in helped]
    p = [rank(of, draws=400).of("known", "weight, m").p for of in (helped, apart)]
    assert p[0] == pytest.approx(1 / 15, abs=0.04) and p[1] < 0.01, "there are 15 pairs of languages, not 30 free cells"
    assert rank(studies, draws=20).matrix and not rank([study(0), study(1)], draws=20).matrix


def test_two_sources_cannot_be_ranked():
    with pytest.raises(UserError, match="at least three"):
        rank([Sources("s", "t", ["a", "b"], {"known": [1.0, 0.0]}, {"weight, m": [1.0, 0.0]})])


def test_a_measure_that_a_study_lacks_is_named():
    lacking = study(1)
    del lacking.similarity["position"]
    found = rank([study(0), lacking], ("known", "position"), draws=20)
    assert found.missing == ["position"] and {one.measure for one in found.ranked} == {"known"}

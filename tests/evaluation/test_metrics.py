"""Metrics: golden values of published variants, and the laws that a bootstrap over statistics stands on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from studykit.evaluation.metrics import LABELS, corpus_value, score
from studykit.params import UserError

PREDICTIONS = ["fix null pointer in parser", "Update README.md", "print a message and exit with the given code"]
REFERENCES = ["Fix null pointer exception in JSON parser.", "Update README", "Print an error log message."]
# sacreBLEU corpus, authors' total, authors' averages, chrF2: each example alone, then all three
GOLDEN = {
    "sacrebleu": (13.94, 31.95, 4.77, 8.80),
    "bleu_paper": (22.41, 47.29, 14.11, 15.70),
    "bleu_paper_sentence": (22.41, 47.29, 14.11, 27.94),
    "chrf": (46.65, 93.92, 32.65, 48.85),
}
TEXT = st.lists(st.sampled_from(["a", "b", "fix", "(", ")", "+", "x.", "\n"]), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=5)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    parts = [slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 3)]
    found = [score(PREDICTIONS[part], REFERENCES[part])[name]["value"] for part in parts]
    assert np.round(found, 2).tolist() == pytest.approx(GOLDEN[name])


def test_rouge_l_is_without_stemmer_and_a_plain_mean():
    prediction, reference = "fix null pointers in parser", REFERENCES[0]
    assert score([prediction], [reference])["rouge_l"]["value"] == pytest.approx(66.67, abs=0.01)
    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score(reference, prediction)["rougeL"].fmeasure
    assert 100 * stemmed == pytest.approx(83.33, abs=0.01)
    assert score(["a b c\nd e"], ["d e\na b c"])["rouge_l"]["value"] == pytest.approx(60)
    both = score([prediction, "x"], [reference, "x"])["rouge_l"]
    assert both["value"] == pytest.approx((66.67 + 100) / 2, abs=0.01)


@given(PAIRS)
def test_values_are_recovered_from_what_is_kept_per_example(pairs):
    predictions, references = map(list, zip(*pairs, strict=True))
    scores = score(predictions, references)
    assert list(scores) == list(LABELS)
    for name, entry in scores.items():
        kept = entry.get("per_example", entry.get("statistics"))
        assert len(kept) == entry["n"] == len(pairs)
        again = corpus_value(name)(np.sum(kept, axis=0)) if "statistics" in entry else np.mean(kept)
        assert again == pytest.approx(entry["value"], abs=1e-9)
        assert -1e-9 <= entry["value"] <= 100 + 1e-9
    assert scores["sacrebleu"]["value"] == BLEU().corpus_score(predictions, [references]).score
    assert scores["chrf"]["value"] == CHRF().corpus_score(predictions, [references]).score


@given(PAIRS)
def test_copying_the_reference_scores_full_marks_where_the_metric_allows_it(pairs):
    references = [reference for _, reference in pairs]
    scores = score(references, references)
    for name in ("exact_match", "bleu_paper", "bleu_paper_sentence", "chrf"):
        assert scores[name]["value"] == pytest.approx(100)


def test_an_empty_prediction_counts_and_scores_zero():
    scores = score(["", "a b c d"], ["a b", "a b c d"])
    assert all(entry["empty"] == 1 for entry in scores.values())
    assert scores["bleu_paper_sentence"]["per_example"] == [0, pytest.approx(100)]
    assert score([""], ["a"])["bleu_paper"]["value"] == 0
    assert scores["exact_match"]["value"] == 50


def test_corpus_values_are_vectorised():
    scores = score(PREDICTIONS, REFERENCES)
    for name in ("bleu_paper", "sacrebleu", "chrf"):
        rows = np.array(scores[name]["statistics"])
        one_by_one = [float(corpus_value(name)(row)) for row in rows]
        assert corpus_value(name)(rows).tolist() == pytest.approx(one_by_one)


def test_signatures_say_which_variant():
    scores = score(PREDICTIONS, REFERENCES)
    assert scores["sacrebleu"]["signature"].startswith(
        "sacreBLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2."
    )
    assert all(entry["signature"].endswith("|n:3") and "level:" in entry["signature"] for entry in scores.values())
    assert len({entry["signature"] for entry in scores.values()}) == len(scores)


@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [(["a", "b"], ["a", " \n"], "index 1"), (["a"], ["a", "b"], "1 predictions and 2"), ([], [], "at least one")],
)
def test_rows_are_refused_never_dropped(predictions, references, words):
    with pytest.raises(UserError, match=words):
        score(predictions, references)

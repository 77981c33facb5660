"""Metrics: golden values of published variants, and the laws that a bootstrap over statistics stands on."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from studykit.errors import UserError
from studykit.evaluation.metrics import overlap
from studykit.evaluation.metrics.score import LABELS, corpus_value, score_texts
from studykit.evaluation.scores import Score

PREDICTIONS = ["fix null pointer in parser", "Update README.md", "print a message and exit with the given code"]
REFERENCES = ["Fix null pointer exception in JSON parser.", "Update README", "Print an error log message."]
# Each example alone, then all three.
GOLDEN = {
    "sacrebleu": (13.94, 31.95, 4.77, 8.80),
    "bleu_paper": (22.41, 47.29, 14.11, 15.70),
    "bleu_paper_sentence": (22.41, 47.29, 14.11, 27.94),
    "chrf": (46.65, 93.92, 32.65, 48.85),
    "b_norm": (34.11, 45.18, 14.49, 31.26),
    "bleu_codexglue": (25.88, 75.98, 11.87, 14.35),
}
COMMON = ["exact_match", "bleu_paper", "bleu_paper_sentence", "sacrebleu", "rouge_l", "chrf"]
CODE = [*COMMON, "bleu_codexglue", "edit_similarity"]
TEXT = st.lists(st.sampled_from(["a", "b", "fix", "(", ")", "+", "x.", "\n"]), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=5)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    parts = [slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 3)]
    language = "cobol" if name == "bleu_codexglue" else None
    found = [score_texts(PREDICTIONS[part], REFERENCES[part], language)[name].value for part in parts]
    assert np.round(found, 2).tolist() == pytest.approx(GOLDEN[name])


def test_rouge_l_is_without_stemmer_and_a_plain_mean():
    prediction, reference = "fix null pointers in parser", REFERENCES[0]
    assert score_texts([prediction], [reference])["rouge_l"].value == pytest.approx(66.67, abs=0.01)
    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score(reference, prediction)["rougeL"].fmeasure
    assert 100 * stemmed == pytest.approx(83.33, abs=0.01)
    assert score_texts(["a b c\nd e"], ["d e\na b c"])["rouge_l"].value == pytest.approx(60)
    assert RougeScorer(["rougeLsum"]).score("d e\na b c", "a b c\nd e")["rougeLsum"].fmeasure == 1  # not what we report
    both = score_texts([prediction, "x"], [reference, "x"])["rouge_l"]
    assert both.value == pytest.approx((66.67 + 100) / 2, abs=0.01)


def test_texts_and_programs_have_metrics_of_their_own():
    assert list(score_texts(["a"], ["a"])) == [*COMMON, "b_norm"]
    assert list(score_texts(["a"], ["a"], "cobol")) == CODE
    assert list(score_texts(["a"], ["a"], "python")) == [*CODE, "parse_ok", "codebleu", "codebleu_compat"]
    assert list(score_texts(["a"], ["a"], "lua")) == [*CODE, "parse_ok", "codebleu_3"]
    assert list(score_texts(["a"], ["a"], "Cpp")) == list(score_texts(["a"], ["a"], "c++"))


def test_formatting_moves_what_splits_at_white_space_only():
    plain, spaced = ["return a+b"], ["return a + b"]
    scores = score_texts(plain, spaced, "python") | score_texts(plain, spaced)
    assert scores["b_norm"].value == scores["bleu_paper"].value == pytest.approx(100)
    assert scores["codebleu"].components["syntax"] == 100
    by_hand = 100 * np.exp(1 - 4 / 2) * (2 / 3 * 1 / 2) ** (1 / 4)  # two words, one of them among the four
    assert scores["bleu_codexglue"].value == pytest.approx(by_hand)


def test_b_norm_gives_an_empty_prediction_something():
    """By its definition: the brevity penalty counts one word more on both sides."""
    references = ["a", "a b", "a b c", "a b c d e"]
    assert score_texts([""] * 4, references)["b_norm"].per_example == pytest.approx([36.8, 13.5, 5.0, 0.7], abs=0.05)


def test_b_norm_splits_at_underscores_and_ignores_case():
    assert score_texts(["Add foo_bar()"], ["add FOO _ BAR ( )"])["b_norm"].value == pytest.approx(100)


@given(st.text(max_size=8), st.text(max_size=8).filter(str.strip))
def test_edit_similarity_is_one_minus_the_distance_over_the_longer_length(prediction, reference):
    a, b = prediction.strip(), reference.strip()
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        previous, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(previous[j] + (x != y), previous[j + 1] + 1, row[j] + 1))
    assert overlap.edit_similarity(prediction, reference) == pytest.approx(100 * (1 - row[-1] / max(len(a), len(b))))


def test_parse_ok_counts_programs_that_parse():
    entry = score_texts(["x = 1", "x = (", "", "def f(:\n  pass"], ["y"] * 4, "python")["parse_ok"]
    assert entry.per_example == [100, 0, 0, 0]
    assert (entry.unparsable, entry.empty, entry.value) == (3, 1, 25)


def test_a_body_parses_behind_its_signature():
    """Alone it may not; what else is measured does not see the signature."""
    bodies, before = ["  return a\n}", "", "  return (\n}"], ["func f(a int) int {\n"] * 3
    alone, whole = (score_texts(bodies, ["  return b\n}"] * 3, "go", contexts) for contexts in (None, before))
    assert alone["parse_ok"].per_example == [0, 0, 0] and whole["parse_ok"].per_example == [100, 0, 0]
    assert whole["codebleu"].value == alone["codebleu"].value and whole["codebleu"].unparsable == 2
    assert "|context:before|" in whole["parse_ok"].signature


@given(PAIRS)
@pytest.mark.parametrize("language", [None, "python", "kotlin"])
def test_values_are_recovered_from_what_is_kept_per_example(language, pairs):
    predictions, references = map(list, zip(*pairs, strict=True))
    scores = score_texts(predictions, references, language)
    assert {name: Score.model_validate_json(one.model_dump_json()) for name, one in scores.items()} == scores
    for name, entry in scores.items():
        kept = entry.statistics or entry.per_example
        assert len(kept) == entry.n == len(pairs)
        again = corpus_value(name)(np.sum(kept, axis=0)) if entry.statistics else np.mean(kept)
        assert again == pytest.approx(entry.value, abs=1e-9)
        assert -1e-9 <= entry.value <= 100 + 1e-9
        assert entry.label == LABELS[name]
    libraries = {"sacrebleu": BLEU(), "chrf": CHRF()}
    for name, metric in libraries.items():
        assert scores[name].value == pytest.approx(metric.corpus_score(predictions, [references]).score, abs=1e-9)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    rouges = [100 * scorer.score(r, p)["rougeL"].fmeasure for p, r in pairs]
    assert scores["rouge_l"].per_example == pytest.approx(rouges)


@given(PAIRS)
def test_copying_the_reference_scores_full_marks_where_the_metric_allows_it(pairs):
    references = [reference for _, reference in pairs]
    scores = score_texts(references, references) | score_texts(references, references, "cobol")
    for name in ("exact_match", "bleu_paper", "bleu_paper_sentence", "chrf", "b_norm", "bleu_codexglue",
                 "edit_similarity"):  # fmt: skip
        assert scores[name].value == pytest.approx(100)


def test_an_empty_prediction_counts_and_scores_zero():
    scores = score_texts(["", "a b c d"], ["a b", "a b c d"])
    assert all(entry.empty == 1 for entry in scores.values())
    assert scores["bleu_paper_sentence"].per_example == [0, pytest.approx(100)]
    assert score_texts([""], ["a"])["bleu_paper"].value == 0
    assert scores["exact_match"].value == 50


def test_corpus_values_are_vectorised():
    scores = score_texts(PREDICTIONS, REFERENCES, "java")
    for name in ("bleu_paper", "sacrebleu", "chrf", "bleu_codexglue", "codebleu", "codebleu_compat"):
        rows = np.array(scores[name].statistics)
        one_by_one = [float(corpus_value(name)(row)) for row in rows]
        assert corpus_value(name)(rows).tolist() == pytest.approx(one_by_one)


def test_signatures_say_which_variant():
    scores = (
        score_texts(PREDICTIONS, REFERENCES)
        | score_texts(PREDICTIONS, REFERENCES, "go")
        | score_texts(PREDICTIONS, REFERENCES, "lua")
        | {"codebleu_repaired": score_texts(PREDICTIONS, REFERENCES, "rust")["codebleu_repaired"]}
    )
    assert scores["sacrebleu"].signature.startswith("sacreBLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.")
    assert all(entry.signature.endswith("|n:3") and "level:" in entry.signature for entry in scores.values())
    assert len({entry.signature for entry in scores.values()}) == len(scores) == len(LABELS)
    own = [entry.signature for name, entry in scores.items() if name not in ("sacrebleu", "chrf")]
    assert all(f"|{part}:" in text for text in own for part in ("tok", "smooth", "level", "case", "version"))
    assert "tree-sitter-go-0." in scores["codebleu"].signature and "lang:lua" in scores["parse_ok"].signature


def test_what_no_tokenizer_expects_does_not_stop_scoring():
    odd = ["\ud800 = 1", "a\0b", "\ufeffx", "\r\n\x1b", "é" * 999]
    for language in (None, "python", "php"):
        assert all(entry.n == 5 for entry in score_texts(odd, ["x = 1"] * 5, language).values())


def test_scoring_needs_no_torch():
    code = """
import sys
from studykit.evaluation import scoring
from studykit.evaluation.metrics import score
score.score_texts(["x"], ["x"], "python")
assert not {"torch", "transformers"} & set(sys.modules), "imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [(["a", "b"], ["a", " \n"], "index 1"), (["a"], ["a", "b"], "1 predictions and 2"), ([], [], "at least one")],
)
def test_rows_are_refused_never_dropped(predictions, references, words):
    with pytest.raises(UserError, match=words):
        score_texts(predictions, references)

"""Text metrics, each with the signature that says which variant it is.

The same three pairs score 0 to 31 "BLEU" depending on tokenizer, smoothing and level, so no number leaves this module
without `name|tok|smooth|level|case|version|n`. All scores are on a 0-100 scale.

BLEU (paper) is what the AdvFusion authors run: the TF-NMT BLEU of Hugging Face `bleu` with smooth=True, i.e. 13a
tokens, +1 on matches and totals of all four orders. They write a corpus score and a mean of sentence scores, which
differ widely; both are reported. sacreBLEU and chrF are the library's own; ROUGE-L is rouge-score without stemmer, as
a plain mean (its bootstrap aggregator is unseeded).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from studykit.params import UserError

LABELS = {
    "exact_match": "Exact match",
    "bleu_paper": "BLEU (paper), corpus",
    "bleu_paper_sentence": "BLEU (paper), sentence mean",
    "sacrebleu": "sacreBLEU",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
}
ROUGE_SIGNATURE = "ROUGE-L|tok:rouge|smooth:none|level:sentence|case:lower|stem:no"
ORDERS, CHRF_ORDERS = 4, 6


def score(predictions: Sequence[str], references: Sequence[str]) -> dict[str, dict]:
    """All metrics of `LABELS` over n pairs: name -> {"label", "value", "signature", "n", "empty", and one of the two
    below}.

    - "per_example": n floats whose mean is the value (exact match, sentence BLEU, ROUGE-L);
    - "statistics": n rows of counts (corpus scores); `corpus_value(name)` turns sums of rows into the score, so that a
      bootstrap can resample examples instead of averaging sentence scores.

    Everything is JSON. `empty` counts predictions without a visible character; they are scored (0 in BLEU), never
    dropped. UserError for an empty reference, which no metric defines, and for sequences of different length.
    """
    _check(predictions, references)
    texts = [text.strip() for text in predictions]
    common = {"n": len(texts), "empty": sum(not text for text in texts)}
    tokens = _tokens(predictions), _tokens(references)
    counts = np.array([_bleu_counts(p, r) for p, r in zip(*tokens, strict=True)])
    bleu, chrf = BLEU(), CHRF()
    sacre, chrf_value = (metric.corpus_score(list(predictions), [list(references)]).score for metric in (bleu, chrf))
    rouge = RougeScorer(["rougeL"], use_stemmer=False)
    rouges = [100 * rouge.score(r, p)["rougeL"].fmeasure for p, r in zip(predictions, references, strict=True)]
    exact = [100.0 * (p == r.strip()) for p, r in zip(texts, references, strict=True)]
    found = {
        "exact_match": {
            "per_example": exact,
            "signature": "exact_match|tok:none|smooth:none|level:sentence|case:mixed|version:1",
        },
        "bleu_paper": {"statistics": counts.tolist(), "signature": _paper("corpus")},
        "bleu_paper_sentence": {"per_example": paper_bleu(counts).tolist(), "signature": _paper("sentence")},
        "sacrebleu": {
            "value": sacre,
            "statistics": counts.tolist(),
            "signature": f"sacreBLEU|{bleu.get_signature()}|level:corpus",
        },
        "rouge_l": {
            "per_example": rouges,
            "signature": f"{ROUGE_SIGNATURE}|version:{version('rouge-score')}",
        },
        "chrf": {
            "value": chrf_value,
            "statistics": [_chrf_counts(p, r) for p, r in zip(predictions, references, strict=True)],
            "signature": f"chrF|{chrf.get_signature()}|level:corpus",
        },
    }
    for name, entry in found.items():
        if "per_example" in entry:
            entry["value"] = float(np.mean(entry["per_example"]))
        elif "value" not in entry:
            entry["value"] = float(corpus_value(name)(np.sum(entry["statistics"], axis=0)))
        entry |= {"label": LABELS[name], "signature": f"{entry['signature']}|n:{len(texts)}", **common}
    return found


def corpus_value(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function from summed `statistics` (..., k) to the score (...) of a corpus metric, or of "loss"."""
    return {"bleu_paper": paper_bleu, "sacrebleu": sacre_bleu, "chrf": chrf_score, "loss": token_mean}[name]


def token_mean(counts: np.ndarray) -> np.ndarray:
    """Loss per token from counts (..., 2): nats, tokens."""
    return counts[..., 0] / counts[..., 1]


def paper_bleu(counts: np.ndarray) -> np.ndarray:
    """TF-NMT BLEU with smooth=True from counts (..., 10);

    0 for an empty prediction, where the original divides by zero.
    """
    matches, totals = counts[..., :ORDERS], counts[..., ORDERS : 2 * ORDERS]
    return _brevity(counts) * 100 * np.exp(np.mean(np.log((matches + 1.0) / (totals + 1.0)), axis=-1))


def sacre_bleu(counts: np.ndarray) -> np.ndarray:
    """sacreBLEU corpus score with its default smoothing (exp:

    the k-th order without a match counts as 1 / 2^k) from counts (..., 10).
    """
    matches, totals = counts[..., :ORDERS].astype(float), counts[..., ORDERS : 2 * ORDERS]
    zero = (matches == 0) & (totals > 0)
    smoothed = np.where(zero, 0.5 ** np.cumsum(zero, axis=-1), matches)
    usable = (totals > 0).all(axis=-1) & (matches > 0).any(axis=-1)
    precision = np.where(usable[..., None], smoothed / np.maximum(totals, 1), 1.0)
    return np.where(usable, _brevity(counts) * 100 * np.exp(np.mean(np.log(precision), axis=-1)), 0.0)


def chrf_score(counts: np.ndarray) -> np.ndarray:
    """chrF2 corpus score from counts (..., 18):

    for each order 1-6 the character n-grams of prediction and reference, and matches.
    """
    prediction, reference, match = (counts[..., i::3].astype(float) for i in range(3))
    used = (prediction > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=-1), 1)
    precision = np.where(used, match / np.maximum(prediction, 1), 0).sum(axis=-1) / orders
    recall = np.where(used, match / np.maximum(reference, 1), 0).sum(axis=-1) / orders
    beta = 4  # beta = 2, squared
    return 100 * (1 + beta) * precision * recall / np.maximum(beta * precision + recall, 1e-300)


def _brevity(counts: np.ndarray) -> np.ndarray:
    """Brevity penalty (...) from counts (..., 10); 0 for an empty prediction."""
    prediction, reference = counts[..., -2].astype(float), counts[..., -1].astype(float)
    return np.where(prediction > 0, np.exp(np.minimum(0.0, 1 - reference / np.maximum(prediction, 1e-300))), 0.0)


def _bleu_counts(prediction: list[str], reference: list[str]) -> list[int]:
    """[matches of order 1-4, n-grams of order 1-4 in the prediction, tokens of prediction and of reference]."""
    found, wanted = (_ngrams(tokens, ORDERS) for tokens in (prediction, reference))
    matches = [(a & b).total() for a, b in zip(found, wanted, strict=True)]
    return [*matches, *(order.total() for order in found), len(prediction), len(reference)]


def _chrf_counts(prediction: str, reference: str) -> list[int]:
    """Per order [n-grams of the prediction, of the reference, matches];

    sacrebleu skips orders that the reference is too short for.
    """
    found, wanted = (_ngrams("".join(text.split()), CHRF_ORDERS) for text in (prediction, reference))
    return [
        count
        for a, b in zip(found, wanted, strict=True)
        for count in (a.total() if b else 0, b.total(), (a & b).total())
    ]


def _ngrams(sequence: Sequence, orders: int) -> list[Counter]:
    """One Counter of n-grams per order 1..orders."""
    return [Counter(tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)) for n in range(1, orders + 1)]


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    tokenize = Tokenizer13a()
    return [tokenize(text.rstrip()).split() for text in texts]


def _paper(level: str) -> str:
    return f"BLEU-paper|tok:13a|smooth:add1-all|level:{level}|case:mixed|version:{version('sacrebleu')}"


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    if len(predictions) != len(references) or not references:
        raise UserError(
            f"{len(predictions)} predictions and {len(references)} references: "
            "as many of both, and at least one, are needed"
        )
    if empty := [index for index, text in enumerate(references) if not text.strip()]:
        raise UserError(
            f"{len(empty)} of {len(references)} references are empty, the first at index {empty[0]}: remove those rows"
        )

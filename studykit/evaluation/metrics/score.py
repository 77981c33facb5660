"""All metrics of n predictions, each with the signature that names its variant.

The same three pairs score 0 to 31 "BLEU" depending on tokenizer, smoothing and level, so no number leaves this module
without `name|tok|smooth|level|case|version|n`. All scores are on a 0-100 scale.

Texts and programs alike get exact match, BLEU (paper), sacreBLEU, ROUGE-L and chrF. Texts also get B-Norm; programs
get the BLEU of CodeXGLUE code-to-code (CodeTransOcean's), edit similarity, the share that parses, and CodeBLEU.

BLEU (paper) is what the AdvFusion authors compute. They report a corpus score and a mean of sentence scores, which
differ widely, so both are given here. ROUGE-L is a plain mean: the bootstrap aggregator of rouge-score is unseeded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from studykit.errors import UserError
from studykit.evaluation.metrics import bleu, codebleu, overlap, syntax_trees
from studykit.evaluation.scores import Score
from studykit.study.languages import canonical

LABELS = {
    "exact_match": "Exact match",
    "bleu_paper": "BLEU (paper), corpus",
    "bleu_paper_sentence": "BLEU (paper), sentence mean",
    "sacrebleu": "sacreBLEU",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "b_norm": "B-Norm",
    "bleu_codexglue": "BLEU (CodeXGLUE code-to-code)",
    "edit_similarity": "Edit similarity",
    "parse_ok": "Parses",
    "codebleu": "CodeBLEU",
    "codebleu_compat": "CodeBLEU, compat",
    "codebleu_repaired": "CodeBLEU, repaired",
    "codebleu_3": "CodeBLEU-3 (no data flow)",
}
CORPUS_VALUES = {
    "bleu_paper": bleu.add1_bleu,
    "sacrebleu": bleu.sacre_bleu,
    "chrf": overlap.chrf,
    "bleu_codexglue": bleu.add1_bleu,
    "codebleu": codebleu.fixed,
    "codebleu_compat": codebleu.compat,
    "codebleu_repaired": codebleu.compat,
    "codebleu_3": codebleu.fixed,
}
Entry = dict[str, Any]  # fields of a `Score`: per_example or statistics, signature, and what else is known


def score_texts(
    predictions: Sequence[str],
    references: Sequence[str],
    language: str | None = None,
    contexts: Sequence[str] | None = None,
) -> dict[str, Score]:
    """Returns every metric of n pairs, by its key in `LABELS`.

    A score has either `per_example`, n numbers whose mean is its value, or `statistics`, n rows of counts: then
    `corpus_value(name)` turns the sums of rows into the score, so that a bootstrap can resample examples instead of
    averaging scores of sentences. Predictions without a visible character are scored like all others and counted.

        scores = score_texts(["return a+b"], ["return a + b"], "python")
        scores["chrf"].value, scores["chrf"].signature

    language: of the programs, if these are programs; None for natural language. A language without a grammar has
        neither "parse_ok" nor CodeBLEU; one without an extractor of data flow has "codebleu_3" in place of "codebleu"
        and "codebleu_compat", which is "codebleu_repaired" where published code misses the language's data flow.
    contexts: the text before each prediction where the prediction is only the end of a program (a signature, and the
        prediction its body). Both are parsed together; all other metrics look at the prediction alone.

    Raises UserError for an empty reference, which no metric defines, and for sequences of different length.
    """
    _check(predictions, references)
    pairs = list(zip(predictions, references, strict=True))
    entries = _common(pairs) | (_text(pairs) if language is None else _code(pairs, canonical(language), contexts))
    empty = sum(not text.strip() for text in predictions)
    scores = {}
    for name, entry in entries.items():
        if "statistics" in entry:
            value = float(corpus_value(name)(np.sum(entry["statistics"], axis=0)))
        else:
            value = float(np.mean(entry["per_example"]))
        signature = f"{entry.pop('signature')}|n:{len(pairs)}"
        scores[name] = Score(label=LABELS[name], value=value, signature=signature, n=len(pairs), empty=empty, **entry)
    return scores


def corpus_value(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from summed `statistics` (..., k) to the score (...) of a corpus metric, or of "loss"."""
    return token_mean if name == "loss" else CORPUS_VALUES[name]


def token_mean(counts: np.ndarray) -> np.ndarray:
    """Returns the loss per token from counts (..., 2): nats, tokens."""
    return counts[..., 0] / counts[..., 1]


def _common(pairs: list[tuple[str, str]]) -> dict[str, Entry]:
    """Metrics of texts and programs alike."""
    counts = [bleu.counts(bleu.words_13a(p), bleu.words_13a(r)) for p, r in pairs]
    paper = f"BLEU-paper|tok:13a|smooth:add1-all|level:{{}}|case:mixed|version:{version('sacrebleu')}"
    libraries = {}
    for name, metric in (("sacreBLEU", BLEU()), ("chrF", CHRF())):
        metric.corpus_score(["a"], [["a"]])  # the signature needs the number of references, known only now
        libraries[name] = f"{name}|{metric.get_signature()}|level:corpus"
    return {
        "exact_match": {
            "per_example": [100.0 * (p.strip() == r.strip()) for p, r in pairs],
            "signature": "exact_match|tok:none|smooth:none|level:sentence|case:mixed|space:stripped|version:1",
        },
        "bleu_paper": {"statistics": counts, "signature": paper.format("corpus")},
        "bleu_paper_sentence": {
            "per_example": bleu.add1_bleu(np.array(counts)).tolist(),
            "signature": paper.format("sentence"),
        },
        "sacrebleu": {"statistics": counts, "signature": libraries["sacreBLEU"]},
        "rouge_l": {
            "per_example": [overlap.rouge_l(p, r) for p, r in pairs],
            "signature": "ROUGE-L|tok:a-z0-9|smooth:none|level:sentence|case:lower|stem:no|version:1",
        },
        "chrf": {
            "statistics": [overlap.chrf_counts(p, r) for p, r in pairs],
            "signature": libraries["chrF"],
        },
    }


def _text(pairs: list[tuple[str, str]]) -> dict[str, Entry]:
    """Metrics of natural language only."""
    counts = np.array([bleu.counts(bleu.words_norm(p), bleu.words_norm(r)) for p, r in pairs])
    return {
        "b_norm": {
            "per_example": bleu.norm_bleu(counts).tolist(),
            "signature": "B-Norm|tok:punctuation|smooth:add1-above-1|level:sentence|case:lower|version:1",
        }
    }


def _code(pairs: list[tuple[str, str]], language: str, contexts: Sequence[str] | None) -> dict[str, Entry]:
    """Metrics of programs of a language (canonical name) only."""
    entries: dict[str, Entry] = {
        "bleu_codexglue": {
            "statistics": [bleu.counts(p.split(), r.split()) for p, r in pairs],
            "signature": "BLEU-CodeXGLUE|tok:whitespace|smooth:add1-all|level:corpus|case:mixed|version:1",
        },
        "edit_similarity": {
            "per_example": [overlap.edit_similarity(p, r) for p, r in pairs],
            "signature": "edit_similarity|tok:character|smooth:none|level:sentence|case:mixed|"
            "distance:levenshtein|norm:longer|version:1",
        },
    }
    if not codebleu.supported(language):
        return entries
    compared = [codebleu.compare(p, r, language) for p, r in pairs]
    rows, parsed = [row for row, _ in compared], [ok for _, ok in compared]
    if contexts is not None:
        whole = zip(contexts, pairs, strict=True)
        parsed = [bool(p.strip()) and syntax_trees.parse(before + p, language).parsed for before, (p, _) in whole]
    published = "codebleu_repaired" if language in codebleu.REPAIRED else "codebleu_compat"
    names = ("codebleu", published) if codebleu.has_dataflow(language) else ("codebleu_3",)
    settings = f"case:mixed|lang:{language}"
    grammar = f"version:2,{syntax_trees.version(language)}"
    unparsable = {"unparsable": len(parsed) - sum(parsed)}
    entries["parse_ok"] = unparsable | {
        "per_example": [100.0 * ok for ok in parsed],
        "signature": f"parse_ok|tok:tree-sitter|smooth:none|level:sentence|{settings}|empty:0|"
        f"context:{'none' if contexts is None else 'before'}|{grammar}",
    }
    for name in names:
        as_published = name == published
        total = codebleu.components(np.sum(rows, axis=0), as_published)
        percent = [None if np.isnan(share) else 100 * float(share) for share in total]
        shares = dict(zip(codebleu.COMPONENTS, percent, strict=True))
        if name == "codebleu_3":
            del shares["dataflow"]
        entries[name] = unparsable | {
            "statistics": rows,
            "components": shares,
            "signature": f"{name}|tok:whitespace|smooth:eps0.1|level:corpus|{settings}|"
            f"weights:{'/'.join(['1'] * len(shares))}|zero-dataflow:{as_published:d}|{grammar}",
        }
        if as_published:
            entries[name]["substituted"] = bool(not total[-1] > 0)  # also true for nan: no data flow at all
    return entries


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    if len(predictions) != len(references) or not references:
        raise UserError(
            f"{len(predictions)} predictions and {len(references)} references were given; metrics need at least one "
            "pair, and as many of the one as of the other."
        )
    if empty := [index for index, text in enumerate(references) if not text.strip()]:
        raise UserError(
            f"{len(empty)} of {len(references)} references are empty, the first at index {empty[0]}; remove those rows."
        )

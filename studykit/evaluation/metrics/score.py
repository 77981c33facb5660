"""All metrics of n predictions, each with the signature that says which variant it is.

The same three pairs score 0 to 31 "BLEU" depending on tokenizer, smoothing and level, so no number leaves this module
without `name|tok|smooth|level|case|version|n`. All scores are on a 0-100 scale.

Texts and programs alike get exact match, BLEU (paper), sacreBLEU, ROUGE-L and chrF. Texts get B-Norm besides; programs
get the BLEU of CodeXGLUE code-to-code (CodeTransOcean's), edit similarity, the share that parses, and CodeBLEU.

BLEU (paper) is what the AdvFusion authors run; they write a corpus score and a mean of sentence scores, which differ
widely, so both are reported. ROUGE-L is a plain mean (the bootstrap aggregator of rouge-score is unseeded).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from studykit.data.languages import canonical
from studykit.errors import UserError
from studykit.evaluation.metrics import bleu, codebleu, overlap, syntax_trees

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
    "codebleu_3": "CodeBLEU-3 (no data flow)",
}
CORPUS_VALUES = {
    "bleu_paper": bleu.add1_bleu,
    "sacrebleu": bleu.sacre_bleu,
    "chrf": overlap.chrf,
    "bleu_codexglue": bleu.add1_bleu,
    "codebleu": codebleu.fixed,
    "codebleu_compat": codebleu.compat,
    "codebleu_3": codebleu.fixed,
}


def score(
    predictions: Sequence[str],
    references: Sequence[str],
    language: str | None = None,
    contexts: Sequence[str] | None = None,
) -> dict[str, dict]:
    """Metrics over n pairs: name (a key of `LABELS`) -> {"label", "value", "signature", "n", "empty", and one of the
    two below}.

    - "per_example": n floats whose mean is the value;
    - "statistics": n rows of counts (corpus scores); `corpus_value(name)` turns sums of rows into the score, so that a
      bootstrap can resample examples instead of averaging sentence scores.

    language: of the programs, if these are programs; None for natural language. A language without a grammar has
    neither "parse_ok" nor CodeBLEU; one without an extractor of data flow has "codebleu_3" in place of "codebleu" and
    "codebleu_compat". Their entries have besides "unparsable", the number of predictions that do not parse, and those
    of CodeBLEU "components" {name: value, or None without any data flow in the references}; "codebleu_compat" says
    whether no data flow match was counted as a full one: "substituted".

    contexts: what stands before each prediction where that is only the end of a program (a signature, and the
    prediction its body). Whether it parses is asked of both together, everything else of the prediction alone.

    Everything is JSON. `empty` counts predictions without a visible character; they are scored, never dropped.
    UserError for an empty reference, which no metric defines, and for sequences of different length.
    """
    _check(predictions, references)
    pairs = list(zip(predictions, references, strict=True))
    found = _common(pairs) | (_text(pairs) if language is None else _code(pairs, canonical(language), contexts))
    empty = sum(not text.strip() for text in predictions)
    for name, entry in found.items():
        kept = entry.get("statistics", entry.get("per_example"))
        value = corpus_value(name)(np.sum(kept, axis=0)) if "statistics" in entry else np.mean(kept)
        signature = f"{entry['signature']}|n:{len(pairs)}"
        entry |= {"label": LABELS[name], "value": float(value), "signature": signature, "n": len(pairs), "empty": empty}
    return found


def corpus_value(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function from summed `statistics` (..., k) to the score (...) of a corpus metric, or of "loss"."""
    return token_mean if name == "loss" else CORPUS_VALUES[name]


def token_mean(counts: np.ndarray) -> np.ndarray:
    """Loss per token from counts (..., 2): nats, tokens."""
    return counts[..., 0] / counts[..., 1]


def _common(pairs: list[tuple[str, str]]) -> dict[str, dict]:
    """What texts and programs alike are measured by."""
    counts = [bleu.counts(bleu.words_13a(p), bleu.words_13a(r)) for p, r in pairs]
    paper = f"BLEU-paper|tok:13a|smooth:add1-all|level:{{}}|case:mixed|version:{version('sacrebleu')}"
    libraries = {}
    for name, metric in (("sacreBLEU", BLEU()), ("chrF", CHRF())):
        metric.corpus_score(["a"], [["a"]])  # only then does it know how many references there are
        libraries[name] = f"{name}|{metric.get_signature()}|level:corpus"
    return {
        "exact_match": {
            "per_example": [100.0 * (p.strip() == r.strip()) for p, r in pairs],
            "signature": "exact_match|tok:none|smooth:none|level:sentence|case:mixed|version:1",
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


def _text(pairs: list[tuple[str, str]]) -> dict[str, dict]:
    counts = np.array([bleu.counts(bleu.words_norm(p), bleu.words_norm(r)) for p, r in pairs])
    return {
        "b_norm": {
            "per_example": bleu.norm_bleu(counts).tolist(),
            "signature": "B-Norm|tok:punctuation|smooth:add1-above-1|level:sentence|case:lower|version:1",
        }
    }


def _code(pairs: list[tuple[str, str]], language: str, contexts: Sequence[str] | None) -> dict[str, dict]:
    """What programs of a language (canonical name) are measured by."""
    found = {
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
        return found
    rows, parsed = zip(*(codebleu.compare(p, r, language) for p, r in pairs), strict=True)
    if contexts is not None:
        whole = zip(contexts, pairs, strict=True)
        parsed = [bool(p.strip()) and syntax_trees.parse(before + p, language).parsed for before, (p, _) in whole]
    names = ("codebleu", "codebleu_compat") if codebleu.has_dataflow(language) else ("codebleu_3",)
    total = codebleu.components(np.sum(rows, axis=0))
    shares = dict(zip(codebleu.COMPONENTS, np.where(np.isnan(total), None, 100 * total), strict=True))
    if names == ("codebleu_3",):
        del shares["dataflow"]
    place = f"case:mixed|lang:{language}"
    grammar = f"version:1,{syntax_trees.version(language)}"
    known = {"unparsable": len(parsed) - sum(parsed)}
    found["parse_ok"] = known | {
        "per_example": [100.0 * ok for ok in parsed],
        "signature": f"parse_ok|tok:tree-sitter|smooth:none|level:sentence|{place}|empty:0|"
        f"context:{'none' if contexts is None else 'before'}|{grammar}",
    }
    for name in names:
        zero = "1" if name == "codebleu_compat" else "0"
        found[name] = known | {
            "statistics": list(rows),
            "components": shares,
            "signature": f"{name}|tok:whitespace|smooth:eps0.1|level:corpus|{place}|"
            f"weights:{'/'.join(['1'] * len(shares))}|zero-dataflow:{zero}|{grammar}",
        }
    if "codebleu_compat" in found:
        found["codebleu_compat"]["substituted"] = bool(not total[-1] > 0)  # true without any data flow (nan), too
    return found


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

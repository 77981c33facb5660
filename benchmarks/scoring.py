"""Seconds that each metric takes for 1,000 pairs of programs of 50 lines; torch is not needed.

Programs are made from a seed: functions of loops, choices and assignments in Python, Java and Go. A prediction is its
reference with every eighth line changed. The whole of `score_texts`, in one process, is to take at most 20 s.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

from studykit.evaluation.metrics import bleu, codebleu, overlap
from studykit.evaluation.metrics.score import score_texts

LINES = {
    "python": ("{i}for {a} in range({n}):", "{i}if {a} > {n}:", "{i}{a} = {b} * {n} + {c}", "{i}print({a}, {b})", ""),
    "java": ("{i}for (int {a} = 0; {a} < {n}; {a}++) {{", "{i}if ({a} > {n}) {{", "{i}{a} = {b} * {n} + {c};",
             "{i}System.out.println({a} + {b});", "{i}}}"),
    "go": ("{i}for {a} := 0; {a} < {n}; {a}++ {{", "{i}if {a} > {n} {{", "{i}{a} = {b} * {n} + {c}",
           "{i}fmt.Println({a}, {b})", "{i}}}"),
}  # fmt: skip
HEADS = {"python": "def solve(total):", "java": "static void solve(int total) {", "go": "func solve(total int) {"}
NAMES = ["total", "index", "count", "best", "left", "right", "value", "row", "limit", "rest"]


def program(language: str, rng: random.Random, lines: int) -> list[str]:
    """A function of `lines` lines (two more than a multiple of six): blocks open with a loop or a choice, hold
    statements and close."""
    loop, choice, assign, call, close = LINES[language]
    body = []
    for _ in range((lines - 2) // 6):
        block = [(rng.choice((loop, choice)), 1), (assign, 2), (assign, 2), (call, 2), (close, 1), (assign, 1)]
        for form, depth in block:
            names = dict(zip("abc", rng.sample(NAMES, 3), strict=True))
            body.append(form.format(i="    " * depth, n=rng.randrange(100), **names))
    return [HEADS[language], *body, close.format(i="")]


def pairs(language: str, n: int, lines: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Predictions and references."""
    rng = random.Random(seed)
    references = [program(language, rng, lines) for _ in range(n)]
    others = [program(language, rng, lines) for _ in range(n)]
    predictions = [[b if i % 8 == 7 else a for i, (a, b) in enumerate(zip(*both, strict=True))]
                   for both in zip(references, others, strict=True)]  # fmt: skip
    return ["\n".join(text) for text in predictions], ["\n".join(text) for text in references]


def measures(language: str) -> dict[str, Callable[[str, str], object]]:
    """What is computed for each pair; the rest of `score_texts` is sums."""
    return {
        "BLEU (paper), sacreBLEU": lambda p, r: bleu.counts(bleu.words_13a(p), bleu.words_13a(r)),
        "B-Norm": lambda p, r: bleu.counts(bleu.words_norm(p), bleu.words_norm(r)),
        "BLEU (CodeXGLUE)": lambda p, r: bleu.counts(p.split(), r.split()),
        "ROUGE-L": overlap.rouge_l,
        "chrF": overlap.chrf_counts,
        "edit similarity": overlap.edit_similarity,
        "CodeBLEU, parse share": lambda p, r: codebleu.compare(p, r, language),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--lines", type=int, default=50)
    options = parser.parse_args()
    print(f"seconds for {options.pairs} pairs of {options.lines} lines, one process")
    for language in LINES:
        predictions, references = pairs(language, options.pairs, options.lines)
        print(f"\n{language}")
        for name, measure in measures(language).items():
            began = time.perf_counter()
            for prediction, reference in zip(predictions, references, strict=True):
                measure(prediction, reference)
            print(f"  {name:<24} {time.perf_counter() - began:6.2f}")
        began = time.perf_counter()
        score_texts(predictions, references, language)
        print(f"  {'all metrics':<24} {time.perf_counter() - began:6.2f}")


if __name__ == "__main__":
    main()
